"""Cores and memory under control groups, on synthetic file systems of typical machines, containers and jobs."""

import os
from pathlib import Path

import pytest

from sr_core.process import workers
from sr_core.process.machine import available_memory, cores, has_amx

GIB = 2**30
V1_NONE = 9223372036854771712
"""The number by which version 1 says that there is no limit."""
MEMINFO = "MemTotal: 536870912 kB\nMemFree: 1 kB\nMemAvailable: 524288000 kB\n"  # 500 GiB of 512
V2 = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, files: dict[str, str | int]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n" if isinstance(content, int) else content)
    return root


def v1_mount(controller: str, top: str = "/") -> str:
    return f"35 31 0:32 {top} /sys/fs/cgroup/{controller} ro - cgroup cgroup rw,{controller}\n"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def test_without_control_groups_the_machine_s_memory_and_the_affinity_count(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    assert (available_memory(root), cores(root)) == (500 * GIB, 64)


def test_a_docker_container_of_version_2_sees_its_limits_at_the_top(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/memory.max": 10 * GIB,
        "sys/fs/cgroup/memory.current": 9 * GIB,
        "sys/fs/cgroup/memory.stat": f"anon {GIB}\ninactive_file {8 * GIB}\nactive_file 5\n",
        "sys/fs/cgroup/cpu.max": "400000 100000\n",
    })  # fmt: skip
    assert available_memory(root) == 9 * GIB, "a store that was just written stays in the page cache: it can be dropped"
    assert cores(root) == 4


def test_a_docker_container_of_version_1_sees_its_own_group_at_the_mount_point(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/system.slice/containerd.service\n",
        "proc/self/mountinfo": v1_mount("memory", "/docker/abc")
        + "36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 8 * GIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 6 * GIB,
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {5 * GIB}\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 150000,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
    })  # fmt: skip
    assert (available_memory(root), cores(root)) == (7 * GIB, 2)


def test_a_kubernetes_pod_s_limit_counts_though_its_group_is_not_visible(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "9:memory:/kubepods/burstable/pod1/abc\n",
        "proc/self/mountinfo": v1_mount("memory", "/kubepods/burstable/pod1/abc"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
        "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {4 * GIB}\ntotal_inactive_file 0\n",
    })  # fmt: skip
    assert available_memory(root) == 3 * GIB


def test_a_slurm_job_of_version_2_is_limited_by_the_groups_above_its_own(tmp_path: Path) -> None:
    job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    step = f"{job}/step_0/user/task_0"
    root = tree(tmp_path, {
        "proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
        "proc/self/mountinfo": V2,
        f"{job}/memory.max": 16 * GIB,
        f"{job}/memory.current": 2 * GIB,
        f"{job}/memory.stat": f"inactive_file {GIB}\n",
        f"{job}/cpu.max": "800000 100000\n",
        f"{step}/memory.max": "max\n",
        f"{step}/memory.current": 1,
        f"{step}/cpu.max": "max 100000\n",
    })  # fmt: skip
    assert (available_memory(root), cores(root)) == (15 * GIB, 8)


def test_the_tightest_of_several_groups_counts(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "0::/user.slice/run-1.scope\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/user.slice/memory.max": 20 * GIB,
        "sys/fs/cgroup/user.slice/memory.current": 19 * GIB,
        "sys/fs/cgroup/user.slice/run-1.scope/memory.max": 4 * GIB,
        "sys/fs/cgroup/user.slice/run-1.scope/memory.current": 0,
        "sys/fs/cgroup/user.slice/run-1.scope/memory.high": "max\n",
    })  # fmt: skip
    assert available_memory(root) == GIB


def test_a_host_of_version_1_with_nothing_set_limits_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "4:memory:/user.slice\n1:cpu:/\n0::/\n",
        "proc/self/mountinfo": v1_mount("memory") + v1_mount("cpu")
        + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 7 * GIB,
        "sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes": V1_NONE,
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
    })  # fmt: skip
    assert (available_memory(root), cores(root)) == (500 * GIB, 64)


@pytest.mark.parametrize("path", ["/../..", "/../other", "/kubepods/pod1/abc", "/"])
def test_a_group_that_cannot_be_found_below_the_mount_leaves_the_mount_s_own_limit(tmp_path: Path, path: str) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/memory.max": 6 * GIB,
        "sys/fs/cgroup/memory.current": GIB,
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    })  # fmt: skip
    assert (available_memory(root), cores(root)) == (5 * GIB, 1)


def test_a_mount_point_may_have_any_name(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "0::/job\n",
        "proc/self/mountinfo": r"30 23 0:26 / /odd\040place rw shared:9 - cgroup2 none rw" + "\n",
        "odd place/job/memory.max": 2 * GIB,
        "odd place/job/memory.current": 0,
    })  # fmt: skip
    assert available_memory(root) == 2 * GIB


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files: dict[str, str | int] = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2}
    files |= {"sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 2 * GIB}
    assert available_memory(tree(tmp_path, files)) == 0


def test_files_that_cannot_be_read_or_hold_anything_else_limit_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/self/cgroup": "nonsense\n0::/a\n",
        "proc/self/mountinfo": "nonsense\n- -\n" + V2,
        "sys/fs/cgroup/a/memory.max": "lots\n",
        "sys/fs/cgroup/a/cpu.max": "\n",
        "sys/fs/cgroup/a/memory.stat": "\n \nx\n",
    })  # fmt: skip
    (root / "sys/fs/cgroup/memory.max").mkdir()  # reading it is an error, for root as well
    assert (available_memory(root), cores(root)) == (500 * GIB, 64)


def test_without_a_list_of_mounts_the_usual_places_are_read(tmp_path: Path) -> None:
    files: dict[str, str | int] = {"sys/fs/cgroup/memory.max": 3 * GIB, "sys/fs/cgroup/memory.current": 0}
    assert available_memory(tree(tmp_path, files)) == 3 * GIB


def test_a_quota_never_gives_more_cores_than_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    files: dict[str, str | int] = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2}
    assert cores(tree(tmp_path, files | {"sys/fs/cgroup/cpu.max": "800000 100000\n"})) == 2


def test_image_files_are_shared_out_to_as_many_processes_as_the_quota_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 3)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    assert workers.share_out([large]) == 3


def test_this_machine_is_read_without_a_fault() -> None:
    assert available_memory() > 0
    assert 1 <= cores() <= 64


@pytest.mark.parametrize(
    ("flags", "there"),
    [("fpu avx512f amx_bf16 avx512_fp16 amx_tile amx_int8", True), ("fpu avx512f avx512_bf16", False), ("", False)],
)
def test_units_for_matrices_of_bf16_are_read_from_the_cpu_s_flags(tmp_path: Path, flags: str, there: bool) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n"})
    assert has_amx(root) is there
    assert not has_amx(tmp_path / "nothing")
