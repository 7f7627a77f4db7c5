"""The cores and memory that this process may use, with the limits of containers and batch jobs.

A control group limits the processes in it and in the groups below it. The limits of a process are therefore those of
its own group and of every visible group above. Version 2 has one tree of groups, version 1 has one tree for each
resource, and a machine may have both.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> int:
    """The number of CPU cores that this process may use, at least 1. Fractional quotas are rounded up.

    Args:
        root: root of the file system that describes the groups. Tests give another one than /.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_cpu_quota(group) for group in _groups(root, "cpu")]
    return max(1, min([usable, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def available_memory(root: Path = _ROOT) -> int:
    """The memory in bytes that this process can take without swapping and without being ended by its container or job.

    The kernel's cache of file contents counts as available, because the kernel can drop it at once.

    Args:
        root: see `cores`.
    """
    limits = [_free_memory(root)]
    for group in _groups(root, "memory"):
        remaining = _memory_left(group)
        if remaining is not None:
            limits.append(remaining)
    return max(0, min(limits))


def has_amx(root: Path = _ROOT) -> bool:
    """True if the CPU has special units for bf16 matrix products (Intel AMX).

    Args:
        root: see `cores`.
    """
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return flags is not None and {"amx_tile", "amx_bf16"} <= set(flags[1].split())


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group, given as a folder of the file system."""

    version: int
    folder: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    """A visible tree of groups, or a visible part of one."""

    version: int
    top: str
    """The group at the mount point, as a path in the tree."""
    point: Path


def _free_memory(root: Path) -> int:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if match:
        return int(match[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # the best available estimate


def _memory_left(group: _Group) -> int | None:
    """The memory in bytes that the group has left for its processes; None if it has no limit."""
    statistics: dict[str, str] = {}
    for line in _text(group.folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        statistics[name] = value
    if group.version == 2:
        limits = [_number(group.folder / name) for name in ("memory.max", "memory.high")]
        used = _number(group.folder / "memory.current")
        droppable = statistics.get("inactive_file", "")
    else:
        above = statistics.get("hierarchical_memory_limit", "")  # a container cannot see the groups above its own
        limits = [_number(group.folder / "memory.limit_in_bytes"), _whole(above)]
        used = _number(group.folder / "memory.usage_in_bytes")
        droppable = statistics.get("total_inactive_file", "")
    set_limits = [limit for limit in limits if limit is not None]
    if not set_limits:
        return None
    return min(set_limits) - max(0, (used or 0) - (_whole(droppable) or 0))


def _cpu_quota(group: _Group) -> float | None:
    """The number of cores whose time the group may use; None if it has no limit."""
    if group.version == 2:
        quota_text, _, period_text = _text(group.folder / "cpu.max").strip().partition(" ")
        quota = _whole(quota_text)
        period = _whole(period_text)
    else:
        quota = _number(group.folder / "cpu.cfs_quota_us")
        period = _number(group.folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """Yield the process's own group in each tree that has this controller, and the visible groups above it."""
    paths = _own_paths(root, controller)
    mounts = list(_mounts(root, controller))
    for version, path in paths.items():
        candidates = [mount for mount in mounts if mount.version == version]
        for mount in [m for m in candidates if _below(path, m.top) is not None] or candidates[:1]:
            inner = _below(path, mount.top) or ""
            for folder in (inner, *_parents(inner)):
                yield _Group(version, mount.point / folder)


def _own_paths(root: Path, controller: str) -> dict[int, str]:
    """The path of this process's group in each tree that has the controller, by version."""
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
    if not lines:  # use the places that are common to all distributions
        yield _Mount(2, "/", root / "sys/fs/cgroup")
        yield _Mount(1, "/", root / "sys/fs/cgroup" / controller)
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        kind = after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        point = root / _unescaped(fields[4]).lstrip("/")
        if kind[0] == "cgroup2":
            yield _Mount(2, _unescaped(fields[3]), point)
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield _Mount(1, _unescaped(fields[3]), point)


def _below(path: str, top: str) -> str | None:
    """The group's path relative to the group at a mount point; None if it is not visibly below that.

    A process that was moved into a container from outside reads a path with "..", or a path of the machine outside.
    """
    if ".." in path.split("/") or ".." in top.split("/"):
        return None
    inner = path.strip("/")
    outer = top.strip("/")
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
    """The path that mountinfo writes with octal escapes for spaces."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _text(path: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    return _whole(_text(path))


def _whole(text: str) -> int | None:
    """The number in the text; None for a word such as "max", and for a negative number, which means "no limit"."""
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdecimal() else None
