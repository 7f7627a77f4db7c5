"""Output files that a user names. Links are followed, pipes and devices are supported, and file modes are kept."""

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
"""Errors for a file that is writable but cannot be replaced: its folder is read-only, or it is a mount point."""

_MAX_DESCRIPTOR = 2**31 - 1
"""The largest number that the system accepts for an open file."""


def write_output(path: Path, content: bytes) -> None:
    """Write `content` to a path that a user named; a regular file is written durably.

    - A regular file is replaced atomically and keeps its mode, owner and extended attributes. If that is not possible
      (a hard link, another owner, a read-only folder), it is overwritten in place.
    - A link stays, and its target is written, even if the target does not exist yet.
    - A FIFO, a device and one of this process's open files (/dev/stdout, /dev/fd/N) are written to directly.

    Raises:
        OSError: the content cannot be written.
    """
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        _write_all(descriptor, content)
        return
    present = _stat(path)
    if present is not None and not stat.S_ISREG(present.st_mode):
        _write_in_place(path, content)
        return

    target = Path(os.path.realpath(path))
    if present is None:
        _replace(target, content, None)
        return
    if present.st_nlink > 1 or not os.access(target, os.W_OK):  # without permission, this raises the system's error
        _write_in_place(target, content)
        return
    try:
        _replace(target, content, present)
    except OSError as exc:
        if exc.errno not in _CANNOT_REPLACE:
            raise
        _write_in_place(target, content)


def check_output(path: Path, flag: str) -> None:
    """Check, without writing, that a file that a user named can probably be written.

    Args:
        flag: the flag that the user typed before the path, e.g. "--csv".
    Raises:
        SuiteError: the file cannot be written.
    """
    descriptor = _own_descriptor(path)
    try:
        if descriptor is not None:
            os.fstat(descriptor)
            return
        present = _stat(path)
    except OSError as exc:
        raise SuiteError(cannot_write(flag, path, exc)) from exc
    target = Path(os.path.realpath(path))
    if path.is_dir() or not target.parent.is_dir():
        raise SuiteError(f"{flag} {path}: expected a file in a folder that exists")
    place = target.parent if present is None else path
    if not os.access(place, os.W_OK):
        what = f"the folder {target.parent}" if present is None else "the existing file"
        raise SuiteError(f"{flag} {path}: {what} is read-only; choose another place")


def make_output_folder(path: Path) -> None:
    """Make a folder that a user named, or the target of a link with that name.

    Raises:
        OSError: the folder cannot be made or is read-only.
    """
    target = Path(os.path.realpath(path))
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


def cannot_write(flag: str, path: Path, exc: OSError) -> str:
    """One line that says why an output cannot be written and what to do."""
    if exc.errno == errno.ENAMETOOLONG:
        remedy = "the name is too long for this file system; choose a shorter one"
    elif exc.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "make room"
    else:
        remedy = "choose another place"
    return f"{flag} {path}: cannot be written ({exc.strerror or exc}); {remedy}".lstrip()


def keep_mode(present: os.stat_result, temporary: Path, target: Path) -> None:
    """Copy owner, mode and extended attributes from a file to the temporary file that will replace it.

    Args:
        present: the status of `target`, the file that will be replaced.
    Raises:
        PermissionError: the temporary file cannot get the same owner.
    """
    new = temporary.stat()
    if (new.st_uid, new.st_gid) != (present.st_uid, present.st_gid):
        os.chown(temporary, present.st_uid, present.st_gid)
    shutil.copystat(target, temporary)
    os.utime(temporary)


def _stat(path: Path) -> os.stat_result | None:
    """The status of the file that a path leads to; None if there is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a path such as /dev/stdout or /dev/fd/3 stands for; None for other paths."""
    for _ in range(40):  # Linux follows at most 40 links
        folder = os.path.realpath(path.parent)
        if path.name.isdecimal() and re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd", folder):
            return min(int(path.name), _MAX_DESCRIPTOR)
        if not os.path.islink(path):  # noqa: PTH114 - Path's own raises for a name that is too long
            return None
        path = Path(folder) / path.readlink()
    return None


def _write_all(descriptor: int, content: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):  # earlier output must come first
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    left = memoryview(content)
    while left:  # a pipe may take only a part of the bytes
        left = left[os.write(descriptor, left) :]


def _write_in_place(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        with suppress(OSError):  # a FIFO cannot be synced
            os.fsync(file.fileno())


def _replace(target: Path, content: bytes, present: os.stat_result | None) -> None:
    """Write a file durably. A file that replaces a present one gets its mode and owner."""
    temporary = temporary_name(target)
    mode = 0o666 if present is None else stat.S_IMODE(present.st_mode) & 0o666
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(content)
            if present is not None:
                keep_mode(present, temporary, target)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)
