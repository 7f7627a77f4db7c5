"""Files that a user names: links are written through, pipes and devices are written to, and modes are kept."""

import errno
import os
import re
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.durable import sync_folder, temporary_name

_CANNOT_REPLACE = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS})
"""Why a file that can be written may not be replaced: its folder is read-only, or it is a mount point."""

_MOST_DESCRIPTORS = 2**31 - 1
"""No open file has a larger number, and the system takes none."""


def write_output(path: Path, content: bytes) -> None:
    """Put `content` where a user wants it, durably if a regular file is there or comes there.

    - A regular file is replaced as a whole and keeps its mode, owner and extended attributes. If that is not possible
      (a hard link, another owner, a read-only folder), it is overwritten in place.
    - A link stays and its target is written, also if the target does not exist yet.
    - A FIFO, a device or one of this process's open files (/dev/stdout, /dev/fd/N) is written to.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        _write_all(descriptor, content)
        return
    there = _stat(path)
    if there is not None and not stat.S_ISREG(there.st_mode):
        _write_in_place(path, content)
        return
    target = Path(os.path.realpath(path))
    if there is None:
        _replace(target, content, None)
        return
    if there.st_nlink > 1 or not os.access(target, os.W_OK):  # in the latter case it raises what the system says
        _write_in_place(target, content)
        return
    try:
        _replace(target, content, there)
    except OSError as exc:
        if exc.errno not in _CANNOT_REPLACE:
            raise
        _write_in_place(target, content)


def check_output(path: Path, flag: str) -> None:
    """Raise SuiteError if a file that a user named cannot be written, as far as that shows without writing it.

    Args:
        flag: what the user typed before the path, e.g. "--csv".
    """
    descriptor = _own_descriptor(path)
    try:
        if descriptor is not None:
            os.fstat(descriptor)
            return
        there = _stat(path)
    except OSError as exc:
        raise SuiteError(cannot_write(flag, path, exc)) from exc
    target = Path(os.path.realpath(path))
    if path.is_dir() or not target.parent.is_dir():
        raise SuiteError(f"{flag} {path}: expected a file in a folder that exists")
    place = target.parent if there is None else path
    if not os.access(place, os.W_OK):
        what = f"the folder {target.parent}" if there is None else "the file that is there"
        raise SuiteError(f"{flag} {path}: {what} is read-only; choose another place")


def make_output_folder(path: Path) -> None:
    """Make a folder that a user named, also at the end of a link. Raises OSError if that fails or it is read-only."""
    target = Path(os.path.realpath(path))
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def cannot_write(flag: str, path: Path, exc: OSError) -> str:
    """Why an output cannot be written and what to do, as one line."""
    if exc.errno == errno.ENAMETOOLONG:
        remedy = "this file system takes no name of that length; choose a shorter one"
    elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room"
    else:
        remedy = "choose another place"
    return f"{flag} {path}: cannot be written ({exc.strerror or exc}); {remedy}".lstrip()


def keep_mode(there: os.stat_result, temporary: Path, target: Path) -> None:
    """Give a file that is about to replace another one the owner, mode and extended attributes of that one.

    Raises:
        PermissionError: it cannot have the same owner.
    """
    now = temporary.stat()
    if (now.st_uid, now.st_gid) != (there.st_uid, there.st_gid):
        os.chown(temporary, there.st_uid, there.st_gid)
    shutil.copystat(target, temporary)
    os.utime(temporary)


def _stat(path: Path) -> os.stat_result | None:
    """What is at the end of a path's links; None if nothing is."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _own_descriptor(path: Path) -> int | None:
    """The number of the open file of this process that a path such as /dev/stdout or /dev/fd/3 stands for."""
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if path.name.isdecimal() and re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd", folder):
            return min(int(path.name), _MOST_DESCRIPTORS)
        if not os.path.islink(path):  # noqa: PTH114 - Path's own raises for a name that is too long
            return None
        path = Path(folder) / path.readlink()
    return None


def _write_all(descriptor: int, content: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):  # what was printed before comes before
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    left = memoryview(content)
    while left:  # a pipe takes less than it is given
        left = left[os.write(descriptor, left) :]


def _write_in_place(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        with suppress(OSError):  # a FIFO has no disk
            os.fsync(file.fileno())


def _replace(target: Path, content: bytes, there: os.stat_result | None) -> None:
    """Write a file durably; if one is there, the new one has its mode and owner."""
    temporary = temporary_name(target)
    mode = 0o666 if there is None else stat.S_IMODE(there.st_mode) & 0o666
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
            if there is not None:
                keep_mode(there, temporary, target)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)
