"""Cores and memory that this process may use: the machine's, or what a container or batch job leaves of them.

A control group limits the processes in it and in the groups below it. So the limits of a process are those of its own
group and of every group above that it can see. Version 2 has one tree of groups, version 1 one for each resource, and a
machine may have both.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> int:
    """CPU cores that this process may use, at least 1; a quota of one and a half counts as 2.

    Args:
        root: of the file system that says what the groups allow; another one than / is for tests.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_cpu_quota(group) for group in _groups(root, "cpu")]
    return max(1, min([usable, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process could take without making the machine swap, or its container or job end it.

    File contents that the kernel keeps in spare memory, and can drop at once, count as available.

    Args:
        root: as of `cores`.
    """
    left = [_free_memory(root)]
    for group in _groups(root, "memory"):
        rest = _memory_left(group)
        if rest is not None:
            left.append(rest)
    return max(0, min(left))


def has_amx(root: Path = _ROOT) -> bool:
    """Whether the CPU multiplies matrices of bf16 in units of its own (Intel's AMX).

    Args:
        root: as of `cores`.
    """
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return flags is not None and {"amx_tile", "amx_bf16"} <= set(flags[1].split())


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group, as a folder of the file system."""

    version: int
    folder: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    """A tree of groups that is visible, or a part of one."""

    version: int
    top: str
    """The group at the mount point, as a path in the tree."""
    point: Path


def _free_memory(root: Path) -> int:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if match:
        return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # nothing better is known


def _memory_left(group: _Group) -> int | None:
    """What the group leaves to its processes; None if it limits nothing."""
    statistics: dict[str, str] = {}
    for line in _text(group.folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        statistics[name] = value
    if group.version == 2:
        limits = [_number(group.folder / name) for name in ("memory.max", "memory.high")]
        used = _number(group.folder / "memory.current")
        droppable = statistics.get("inactive_file", "")
    else:
        above = statistics.get("hierarchical_memory_limit", "")  # a container does not see the groups above its own
        limits = [_number(group.folder / "memory.limit_in_bytes"), _whole(above)]
        used = _number(group.folder / "memory.usage_in_bytes")
        droppable = statistics.get("total_inactive_file", "")
    set_limits = [limit for limit in limits if limit is not None]
    if not set_limits:
        return None
    return min(set_limits) - max(0, (used or 0) - (_whole(droppable) or 0))


def _cpu_quota(group: _Group) -> float | None:
    """Cores whose time the group may use; None for any number."""
    if group.version == 2:
        quota_text, _, period_text = _text(group.folder / "cpu.max").strip().partition(" ")
        quota, period = _whole(quota_text), _whole(period_text)
    else:
        quota = _number(group.folder / "cpu.cfs_quota_us")
        period = _number(group.folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """The process's own group of each tree that has this controller, and the groups above it, as far as visible."""
    paths = _own_paths(root, controller)
    mounts = list(_mounts(root, controller))
    for version, path in paths.items():
        candidates = [mount for mount in mounts if mount.version == version]
        for mount in [m for m in candidates if _below(path, m.top) is not None] or candidates[:1]:
            inner = _below(path, mount.top) or ""
            for folder in (inner, *_parents(inner)):
                yield _Group(version, mount.point / folder)


def _own_paths(root: Path, controller: str) -> dict[int, str]:
    """This process's group in each tree that has the controller, by version."""
    lines = _text(root / "proc/self/cgroup").splitlines()
    if not lines:
        return {1: "/", 2: "/"}
    paths: dict[int, str] = {}
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    return paths


def _mounts(root: Path, controller: str) -> Iterator[_Mount]:
    lines = _text(root / "proc/self/mountinfo").splitlines()
    if not lines:  # then where every distribution has them
        yield _Mount(2, "/", root / "sys/fs/cgroup")
        yield _Mount(1, "/", root / "sys/fs/cgroup" / controller)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        point = root / _unescaped(fields[4]).lstrip("/")
        if kind[0] == "cgroup2":
            yield _Mount(2, _unescaped(fields[3]), point)
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield _Mount(1, _unescaped(fields[3]), point)


def _below(path: str, top: str) -> str | None:
    """The group's path relative to the one at a mount point; None if it is not below that, as far as can be seen.

    A process that was put into a container from outside reads a path with "..", or one of the machine outside.
    """
    if ".." in path.split("/") or ".." in top.split("/"):
        return None
    inner, outer = path.strip("/"), top.strip("/")
    if not outer:
        return inner
    if inner == outer or inner.startswith(f"{outer}/"):
        return inner[len(outer) :].strip("/")
    return None


def _parents(inner: str) -> Iterator[str]:
    while inner:
        inner = inner.rpartition("/")[0]
        yield inner


def _unescaped(text: str) -> str:
    """A path as mountinfo writes it, which has octal numbers in place of spaces."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _text(path: Path) -> str:
    """A file's content; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    return _whole(_text(path))


def _whole(text: str) -> int | None:
    """The number; None for another word, such as "max", and below 0, which in version 1 stands for no limit."""
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdecimal() else None
