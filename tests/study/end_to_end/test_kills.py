"""A study that dies, however and whenever, goes on with the same command as if nothing had happened."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.record.journal import read

Check = Callable[[Path], None]

AT_A_LINE = """
import os, signal
from study.record.journal import Journal, encode
append = Journal.append
def dying(self, event):
    if type(event).__name__ in {kinds} and {torn}:
        self._file.write(encode(self._next, event)[:-20])
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, event)
    if type(event).__name__ in {kinds}:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = dying
"""
"""Kills the process right after an event of these kinds is in the journal, or in the middle of its line."""

AT_A_RENAME = """
import os, signal
from pathlib import Path
replace = Path.replace
def dying(self, target):
    if Path(target).match({pattern!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = dying
"""
"""Kills the process when a file is written under a temporary name, before it is renamed."""


def kinds(*names: str, torn: bool = False) -> str:
    return AT_A_LINE.format(kinds=names, torn=torn)


@pytest.fixture
def check(finished: Any, outcome_of: Any, state_of: Any, tree_of: Any) -> Check:
    """check(root): a study came out like the uninterrupted one; nothing runs, is doubled or left over."""

    def equals_uninterrupted(root: Path) -> None:
        state = state_of(root)
        assert outcome_of(root) == outcome_of(finished.root)
        assert state.complete and state.counted == 7
        assert sorted(state.endings) == list(range(7)), "a trial ended twice or never"
        assert not [warning for warning in state.warnings if "differs after its resume" in warning]
        assert state.concluded.scores == finished.state.concluded.scores
        assert state.concluded.per_image == finished.state.concluded.per_image
        for part in ("tiny", "stores"):
            written, expected = (tree_of(r / part) for r in (root, finished.root))
            of_views = {name for name in written.keys() | expected.keys() if name.startswith((".mlflow", ".optuna"))}
            differing = written.keys() ^ expected.keys()
            # A patch says what the checkout of each session had changed: one a session, if anything. So is its claim.
            claims = {name for name in differing if name.startswith("owners/")}
            assert {name for name in differing - claims if not name.endswith((".lock", ".patch"))} <= of_views
            for name in written.keys() - of_views:
                if Path(name).suffix in (".safetensors", ".json", ".csv"):
                    assert written[name] == expected[name], name

    return equals_uninterrupted


@pytest.mark.slow
def test_killed_after_every_single_line_that_tells_something_new_a_study_comes_out_the_same(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, check: Check
) -> None:
    argv = tiny.argv(tmp_path / "root")
    for kind in ("StudyOpened", "SessionStarted", "Started"):
        assert commands.run("study.run", *argv, first=kinds(kind)).status == -signal.SIGKILL
    new = ("Proposed", "Validated", "Checkpointed", "Finished", "Pruned", "Concluded", "SessionEnded")
    deaths = 0
    while (ended := commands.run("study.run", *argv, first=kinds(*new))).status == -signal.SIGKILL:
        deaths += 1
        assert deaths < 200, "a session that is killed makes no progress"
    assert (ended.status, ended.err) == (0, "")
    told = [type(event).__name__ for event in read(finished.folder.journal)]
    assert deaths == sum(kind in new for kind in told) - 1, "the first proposal came before the first of these deaths"
    check(tmp_path / "root")


TWO_THREADS = """
import os
from sr_core.training import choice
os.sched_setaffinity(0, range(os.cpu_count()))
choice._MAX_TIME_WITH_ALL_CORES = 1e9
"""
"""A study that is begun like this trains with two threads, whatever is faster."""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_killed_a_study_of_two_threads_comes_out_the_same(
    tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any, state_of: Any
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def run(root: Path, first: str = "") -> int:
        env = {"OMP_NUM_THREADS": "2"}
        ended: int = commands.start("study.run", *tiny.argv(root), first=TWO_THREADS + first, env=env).wait().status
        return ended

    assert run(whole) == 0
    checkpoints = ("Validated", "Checkpointed")
    for kind in (*checkpoints, "Started", "Validated", "Finished", *checkpoints, "Validated"):
        assert run(killed, kinds(kind)) == -signal.SIGKILL
    assert run(killed) == 0
    assert [state_of(root).opened.runtime["threads"] for root in (whole, killed)] == [2, 2]
    assert outcome_of(killed) == outcome_of(whole)


@pytest.mark.slow
def test_killed_within_a_line_of_every_kind_a_study_comes_out_the_same(
    tiny: Any, commands: Any, tmp_path: Path, check: Check
) -> None:
    argv = tiny.argv(tmp_path / "root")
    for kind in (
        "StudyOpened",
        "SessionStarted",
        "Proposed",
        "Started",
        "Validated",
        "Checkpointed",
        "Finished",
        "Pruned",
        "Concluded",
        "SessionEnded",
    ):
        assert commands.run("study.run", *argv, first=kinds(kind, torn=True)).status == -signal.SIGKILL, kind
    assert commands.run("study.run", *argv).status == 0
    check(tmp_path / "root")


@pytest.mark.slow
def test_killed_before_any_file_gets_its_name_a_study_comes_out_the_same_and_no_part_stays(
    tiny: Any, commands: Any, tmp_path: Path, check: Check
) -> None:
    argv = tiny.argv(tmp_path / "root")
    for pattern in (
        "stores/*.h5",
        "trials/0000/config.json",
        "trials/0000/checkpoint.safetensors",
        "trials/0000/weights.safetensors",
        "trials/0004/checkpoint.safetensors",
        "trials/0006/weights.safetensors",
        "results/ranking.csv",
        "results/comparison.png",
        "best/config.json",
    ):
        died = commands.run("study.run", *argv, first=AT_A_RENAME.format(pattern=pattern))
        assert died.status == -signal.SIGKILL, pattern
    assert commands.run("study.run", *argv).status == 0
    check(tmp_path / "root")


@pytest.mark.slow
def test_killed_from_outside_with_both_views_open_nothing_is_left_running_or_doubled_in_them(
    finished_copy: Any, tiny: Any, commands: Any, tmp_path: Path, wait_until: Any, check: Check
) -> None:
    root = tmp_path / "root"
    journal = root / "tiny" / "journal.jsonl"
    argv = tiny.argv(root, views=True)

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    for upto in (1, 9, 18, 27, 36, 45, 54, 62):
        process = commands.start("study.run", *argv)
        wait_until(lambda: lines() >= upto or process.poll() is not None)  # noqa: B023  # used at once
        process.kill()
        assert process.wait().status == -signal.SIGKILL, upto
    assert commands.run("study.run", *argv, first=kinds("SessionEnded")).status == -signal.SIGKILL
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    check(root)
    shown = views_of(root)
    assert shown == views_of(finished_copy.root)
    assert "RUNNING" not in str(shown)


def views_of(root: Path) -> dict[str, Any]:
    """What MLflow and Optuna show, without ids and times."""
    import optuna
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found: dict[str, Any] = {}
    for experiment in client.search_experiments(filter_string="name = 'tiny'"):
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            tags = run.data.tags
            name = f"{tags.get('study.role')} {tags.get('study.trial', '')}"
            assert name not in found, f"{name} is doubled"
            found[name] = {
                "status": run.info.status,
                "params": run.data.params,
                "state": tags.get("study.state"),
                "parent": "mlflow.parentRunId" in tags,
                "curves": {
                    key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                    for key in run.data.metrics
                    if "seconds" not in key and not key.startswith("system/")  # the machine's, not the study's
                },
                "files": sorted(f.path for f in client.list_artifacts(run.info.run_id)),
            }
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{root / 'optuna.db'}")
    found["optuna"] = [(t.state.name, t.value, t.params, t.intermediate_values) for t in study.get_trials()]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_that_the_same_command_goes_on(
    number: int, status: int, tiny: Any, commands: Any, tmp_path: Path, state_of: Any, wait_until: Any, check: Check
) -> None:
    root = tmp_path / "root"
    argv = tiny.argv(root)
    process = commands.start("study.run", *argv)
    wait_until(lambda: process.out.count("validated") >= 6)
    process.kill(number)
    ended = process.wait()
    assert ended.status == status
    reason = {75: "terminated", 130: "interrupted"}[status]
    assert ended.err.splitlines()[-1] == f"{reason}; the same command continues from here"
    state = state_of(root)
    assert state.ended.reason == reason
    assert 0 < state.counted < 7
    half_done = [t for t in state.trials.values() if not t.ended]
    assert len(half_done) == 1 and half_done[0].checkpoint >= half_done[0].patches
    assert (root / "tiny" / "trials" / f"{half_done[0].number:04d}" / "checkpoint.safetensors").exists()
    assert ended.last_line.startswith("next: python -m study.run ")

    again = commands.run("study.run", *argv)
    assert (again.status, again.err) == (0, "")
    assert f"trial {half_done[0].number:3d}  resumed    from {half_done[0].checkpoint} patches" in again.out
    check(root)


SLOW = """
import time
from study.executors.inline import InlineExecutor
def slow(self, trial):
    print("suspending", flush=True)
    time.sleep(60)
InlineExecutor.suspend = slow
"""


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_the_study_goes_on_from_the_last_checkpoint(
    tiny: Any, commands: Any, tmp_path: Path, wait_until: Any, check: Check
) -> None:
    argv = tiny.argv(tmp_path / "root")
    process = commands.start("study.run", *argv, first=SLOW)
    wait_until(lambda: process.out.count("validated") >= 6)
    process.kill(signal.SIGINT)
    wait_until(lambda: "suspending" in process.out)
    process.kill(signal.SIGINT)
    ended = process.wait()
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended.err
    assert commands.run("study.run", *argv).status == 0
    check(tmp_path / "root")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 75, "terminated; the same command continues from here\n"),
        (signal.SIGHUP, 75, "terminated; the same command continues from here\n"),
    ],
)
def test_stopped_while_the_images_are_prepared_it_leaves_nothing_behind(
    number: int, status: int, said: str, tiny: Any, commands: Any, tmp_path: Path, wait_until: Any
) -> None:
    slow = (
        "import time, study.session.session as s\n"
        "s.prepare_material = lambda *_: print('now', flush=True) or time.sleep(60)"
    )
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), first=slow)
    wait_until(lambda: "now" in process.out)
    process.kill(number)
    ended = process.wait()
    assert (ended.status, ended.err) == (status, said)
    assert not (tmp_path / "root" / "tiny").exists()


@pytest.mark.slow
def test_a_terminal_that_closes_ends_a_study_with_worker_processes_after_a_checkpoint(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any, wait_until: Any
) -> None:
    root = tmp_path / "root"
    argv = tiny.argv(root, "--executor", "processes", views=True)
    process = commands.start("study.run", *argv)
    wait_until(lambda: process.out.count("validated") >= 3)
    os.killpg(process.pid, signal.SIGHUP)  # as the kernel does it: to the workers too
    ended = process.wait()
    assert (ended.status, ended.err.splitlines()[-1]) == (75, "terminated; the same command continues from here")
    state = state_of(root)
    assert (state.ended.reason, sum(len(t.losses) for t in state.trials.values())) == ("terminated", 0)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert "terminated" in {run.data.tags["study.state"] for run in runs}  # the study's run says so, as after SIGTERM


@pytest.mark.slow
def test_a_second_coordinator_is_refused_by_the_name_of_the_first_which_goes_on_unharmed(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any, wait_until: Any, check: Check
) -> None:
    root = tmp_path / "root"
    first = commands.start("study.run", *tiny.argv(root))
    wait_until(lambda: "validated" in first.out)
    second = commands.run("study.run", *tiny.argv(root))
    assert first.poll() is None, "the first was done before the second was refused: nothing was tested"
    assert (second.status, second.out) == (2, "")
    assert len(second.err.splitlines()) == 1
    assert f"process {first.pid} on {os.uname().nodename}" in second.err
    assert (first.wait().status, first.err) == (0, "")
    check(root)
    assert state_of(root).session.epoch == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["proposed", "validated"])
def test_an_owner_that_was_stopped_and_taken_over_does_no_harm_when_it_wakes(
    moment: str, tiny: Any, commands: Any, tmp_path: Path, wait_until: Any, check: Check, unhurried: str, state_of: Any
) -> None:
    root = tmp_path / "root"
    first = commands.start("study.run", *tiny.argv(root))
    wait_until(lambda: first.out.count(moment) >= 3)
    first.kill(signal.SIGSTOP)
    refused = commands.run("study.run", *tiny.argv(root))
    assert refused.status == 2 and f"process {first.pid} on" in refused.err and "--take-over" in refused.err
    second = commands.start("study.run", *tiny.argv(root, "--take-over"), first=unhurried)
    wait_until(lambda: "validated" in second.out)
    first.kill(signal.SIGCONT)  # both are awake, and one of them is the owner
    ended = first.wait()
    assert ended.status == 75
    assert len(ended.err.splitlines()) == 1
    assert f"study 'tiny' was taken over by process {second.pid} on" in ended.err
    assert (second.wait().status, second.err) == (0, "")
    assert [s.epoch for s in state_of(root).sessions] == [1, 2]
    check(root)


BEFORE_A_CHECKPOINT = """
import os, signal
import study.executors.trial
save, calls = study.executors.trial.save_checkpoint, []
def stopping(*args):
    calls.append(args)
    if len(calls) == 4:
        print("stopping", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    save(*args)
study.executors.trial.save_checkpoint = stopping
"""


@pytest.mark.slow
def test_an_owner_that_wakes_after_all_is_done_changes_nothing(
    tiny: Any, commands: Any, tmp_path: Path, wait_until: Any, check: Check, tree_of: Any
) -> None:
    root = tmp_path / "root"
    first = commands.start("study.run", *tiny.argv(root, views=True), first=BEFORE_A_CHECKPOINT)
    wait_until(lambda: "stopping" in first.out)
    assert commands.run("study.run", *tiny.argv(root, "--take-over", views=True)).status == 0

    def kept() -> dict[str, bytes]:
        return {name: content for name, content in tree_of(root / "tiny").items() if not name.startswith(".")}

    before = kept()
    first.kill(signal.SIGCONT)
    ended = first.wait()
    assert ended.status == 75
    assert "error: study 'tiny' was taken over" in ended.err.splitlines()[-1]  # its views may have said so before it
    assert kept() == before
    check(root)


def test_after_a_kill_the_next_owner_need_not_wait(
    tiny: Any, commands: Any, tmp_path: Path, wait_until: Any, state_of: Any
) -> None:
    first = commands.start("study.run", *tiny.argv(tmp_path / "root", trials=2))
    wait_until(lambda: "validated" in first.out)
    first.kill()
    first.wait()
    assert commands.run("study.run", *tiny.argv(tmp_path / "root", trials=2)).status == 0
    assert state_of(tmp_path / "root").session.epoch == 2
