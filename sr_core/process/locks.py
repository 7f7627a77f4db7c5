"""Locks between processes, and what stands in for them on file systems that have none.

Lustre without its `flock` option, some NFS and some FUSE mounts refuse `flock`. Every caller of `lock` therefore gets
one of three answers, and has a rule for the third. Every file system can create a file exclusively and tell its own
time: claims and leases rest on these two.
"""

import errno
import fcntl
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from sr_core.process.durable import sync_folder

Lock = Literal["ours", "theirs", "unsupported"]
"""Whose a lock is after asking for it; the file system may have none."""

_NO_SUCH_OPERATION = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LOCKS = _NO_SUCH_OPERATION | {errno.ENOLCK}
_NO_HARD_LINKS = _NO_SUCH_OPERATION | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EINVAL}
CANNOT_EXCLUDE = _NO_SUCH_OPERATION | {errno.EPERM, errno.EINVAL}
"""Errors of creating a file if the file system cannot do so exclusively."""
REMEDIES = (
    "choose a folder on a local disk, or mount the file system with locks "
    "(Lustre: option flock or localflock; NFS: without nolock, with a running lock service)"
)
"""What a user can do on a file system that cannot keep processes apart."""


def lock(file: int | IO[str], *, shared: bool = False, wait: bool = False) -> Lock:
    """Take the lock of an open file; the kernel gives it back when the file is closed, however the process ends.

    Args:
        shared: with others who share it.
        wait: until it is ours, if another process has it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "theirs"
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return "unsupported"
        raise
    return "ours"


def unlock(file: int | IO[str]) -> None:
    """Give a lock back before the file is closed."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def has_effect(path: Path) -> bool:
    """Whether the lock that this process holds on the file keeps out a second one: some mounts only say yes."""
    try:
        with path.open("r") as second:
            return lock(second, shared=True) == "theirs"
    except OSError:
        return False


def unique_name(path: Path) -> Path:
    """A hidden name in the same folder that no other process uses, also not one with this number on another host."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:40]
    return path.with_name(f".{path.name}-{host}-{os.getpid()}-{secrets.token_hex(4)}")


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create the file unless there is one; True for one process alone, however many try from however many hosts.

    The name appears together with the content where the file system has hard links, else before it. When this returns
    True both are on the disk.

    Raises:
        OSError: the file cannot be written, or the file system cannot create a file exclusively.
    """
    aside = unique_name(path)
    try:
        write_new(aside, content)
        created = _linked(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()
    if created is None:
        try:
            write_new(path, content)
        except FileExistsError:
            return False
        created = True
    if created:
        try:
            sync_folder(path.parent)
        except OSError:  # a full disk: a file that may not last is none
            path.unlink(missing_ok=True)
            raise
    return created


def _linked(aside: Path, path: Path) -> bool | None:
    """Whether the file got its second name from this call; None where the file system has no hard links."""
    try:
        os.link(aside, path)
    except FileExistsError:
        # NFS: the answer to a first attempt that succeeded may be lost, and the client asks again.
        return _same_file(aside, path)
    except OSError as exc:
        if exc.errno in _NO_HARD_LINKS:
            return None
        raise
    return True


def _same_file(one: Path, other: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(one.stat(), other.stat())
    return False


def write_new(path: Path, content: bytes) -> None:
    """Write a new file; it is on the disk when this returns. Raises FileExistsError if there is one."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # a full disk
        with suppress(OSError):
            path.unlink()
        raise


def age(path: Path) -> float:
    """Seconds since the file was written or touched, by the clock of its file system.

    This machine's clock may be minutes off. A file that is created next to it for a moment tells the server's time.
    """
    with path.open("rb") as file:  # opened, for an NFS client then asks the server
        then = os.fstat(file.fileno()).st_mtime
    return _now(path) - then


def _now(path: Path) -> float:
    """The present time of the file system that the path is on; this machine's if nothing can be written there."""
    probe = unique_name(path)
    try:
        opened = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except OSError:
        return time.time()
    try:
        return os.fstat(opened).st_mtime
    finally:
        os.close(opened)
        with suppress(OSError):
            probe.unlink()


def newest_epoch(folder: Path) -> int:
    """The highest of the numbers that files in the folder are named by; 0 if there is none, or no folder.

    The folder is touched first: a client of a network file system then learns of names that other hosts made.
    """
    try:
        with suppress(OSError):  # read-only
            os.utime(folder)
        names = os.listdir(folder)  # noqa: PTH208  # half the time of Path.iterdir, before every line of a journal
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)
