"""Locks between processes, and replacements for file systems without locks.

Lustre without its `flock` option, some NFS and some FUSE mounts refuse `flock`. `lock` therefore has three answers, and
every caller has a rule for the third. Every file system can create a file exclusively and report its own time. Claims
and leases rely on these two.
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
"""The owner of a lock after a request for it; "unsupported" if the file system has no locks."""

_NO_SUCH_OPERATION = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LOCKS = _NO_SUCH_OPERATION | {errno.ENOLCK}
_NO_HARD_LINKS = _NO_SUCH_OPERATION | {errno.EPERM, errno.EACCES, errno.EMLINK, errno.EINVAL}
CANNOT_EXCLUDE = _NO_SUCH_OPERATION | {errno.EPERM, errno.EINVAL}
"""Errors that show that the file system cannot create a file exclusively."""
REMEDIES = (
    "choose a folder on a local disk, or mount the file system with locks "
    "(Lustre: option flock or localflock; NFS: without nolock, with a running lock service)"
)
"""The remedy for messages about a file system without locks."""


def lock(file: int | IO[str], *, shared: bool = False, wait: bool = False) -> Lock:
    """Take the lock of an open file. The kernel releases it when the file is closed or the process ends for any reason.

    Args:
        shared: other processes may share the lock.
        wait: wait if another process has the lock.
    Raises:
        OSError: the lock fails for another reason than a missing lock service.
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
    """Release a lock before the file is closed."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def has_effect(path: Path) -> bool:
    """True if the lock that this process holds on the file excludes a second one. Some mounts only pretend to lock."""
    try:
        with path.open("r") as second:
            return lock(second, shared=True) == "theirs"
    except OSError:
        return False


def unique_name(path: Path) -> Path:
    """A hidden name in the same folder that no other process uses, even on another host with the same process id."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:40]
    return path.with_name(f".{path.name}-{host}-{os.getpid()}-{secrets.token_hex(4)}")


def create_exclusively(path: Path, content: bytes) -> bool:
    """Create a file unless it exists. If several processes or hosts try at the same time, only one gets True.

    If the file system has hard links, the name appears together with the content, else before it. When this function
    returns True, both are on the disk.

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
        except OSError:  # a full disk: the file may not survive a power cut
            path.unlink(missing_ok=True)
            raise
    return created


def _linked(aside: Path, path: Path) -> bool | None:
    """True if this call gave the file its second name; None if the file system has no hard links."""
    try:
        os.link(aside, path)
    except FileExistsError:
        # On NFS, the answer to a successful attempt may be lost, and the client then tries again.
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
    """Write a new file. It is on the disk when this returns.

    Raises:
        FileExistsError: the file exists.
        OSError: the file cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # a full disk
        with suppress(OSError):
            path.unlink()
        raise


def age(path: Path) -> float:
    """Seconds since the file was written or touched, by the clock of its file system.

    The clock of this machine may be minutes off. A temporary file in the same folder shows the time of the server.
    """
    with path.open("rb") as file:  # opening it makes an NFS client ask the server
        modified = os.fstat(file.fileno()).st_mtime
    return _now(path) - modified


def _now(path: Path) -> float:
    """The present time of the file system at the path, or of this machine if no file can be created there."""
    probe = unique_name(path)
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except OSError:
        return time.time()
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with suppress(OSError):
            probe.unlink()


def newest_epoch(folder: Path) -> int:
    """The highest number that is the name of a file in the folder; 0 if there is none or no folder.

    The folder is touched first, so that the client of a network file system sees names that other hosts created.
    """
    try:
        with suppress(OSError):  # read-only
            os.utime(folder)
        names = os.listdir(folder)  # noqa: PTH208  # half the time of Path.iterdir, before every line of a journal
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)
