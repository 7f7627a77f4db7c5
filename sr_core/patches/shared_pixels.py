"""Read-only memory that all processes of one user on one machine share. It is freed when the last of them ends.

The memory is a file in a folder in memory. Its name identifies its content. A process that uses the file has a shared
lock on it, which the kernel releases when the process ends for any reason. The process that fills the file has the
exclusive lock. A process that gets the exclusive lock at its end is the last user and removes the file. If killed
processes left a file, the next process uses or removes it.
"""

import errno
import hashlib
import logging
import mmap
import os
import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_core.process.locks import lock, unlock

logger = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")
_COMPLETE = b"complete"
"""The mark after the pixels of a complete file."""


class SharedPixels:
    """One flat array, filled by the first process that requests its name. It is private if memory cannot be shared."""

    pixels: NDArray[np.uint8]
    """(size,), read-only."""
    shared: bool
    """False if the memory is private to this process."""

    def __init__(self, name: str, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> None:
        """Attach to the memory, or fill it. Waits while another process fills it.

        Args:
            name: identifies the content. Equal names must mean equal bytes.
            size: in bytes.
            fill: writes the content into an array of that size. Its exceptions are passed on.
        """
        remove_abandoned()
        try:
            file, path = _attach(name, size, fill)
        except OSError as exc:  # the folder is missing or too small, as in many containers
            logger.info("pixels are not shared between processes: %s", exc)
            self.pixels = np.empty(size, np.uint8)
            self.shared = False
            fill(self.pixels)
            self.pixels.flags.writeable = False
        else:
            self.pixels = _mapped(file, size, mmap.ACCESS_READ)
            self.shared = True
            weakref.finalize(self, _leave, file, path)


def shareable_memory() -> int:
    """The number of bytes that processes can share; 0 if they cannot share memory."""
    try:
        return shutil.disk_usage(FOLDER).free
    except OSError:
        return 0


def remove_abandoned() -> None:
    """Remove this user's shared pixels that no running process uses."""
    for path in FOLDER.glob(f"{_prefix()}*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            _leave(file, path)


def _prefix() -> str:
    return f"a2n-study-{os.getuid()}-"


def _attach(name: str, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> tuple[int, Path]:
    """The descriptor of the complete file, with a shared lock, and the path of the file."""
    path = FOLDER / (_prefix() + hashlib.sha256(f"{name} {size}".encode()).hexdigest()[:32])
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_uid != os.getuid():
                raise PermissionError(f"{path} belongs to another user")
            owner = lock(file)
            if owner == "unsupported":
                path.unlink(missing_ok=True)
                raise OSError(errno.ENOLCK, "the folder has no locks", str(path))
            if owner == "ours" and _is_at(file, path) and not _is_complete(file, size):
                _fill(file, path, size, fill)
            lock(file, shared=True, wait=True)  # waits while another process fills the file
            if _is_at(file, path) and _is_complete(file, size):
                return file, path
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the file was removed meanwhile, or the process that filled it died: try again


def _fill(file: int, path: Path, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> None:
    try:
        os.ftruncate(file, 0)
        os.posix_fallocate(
            file, 0, size + len(_COMPLETE)
        )  # otherwise, a full folder would end the process at a write to the map
        fill(_mapped(file, size, mmap.ACCESS_WRITE))
        os.pwrite(file, _COMPLETE, size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _mapped(file: int, size: int, access: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(file, size + len(_COMPLETE), access=access), np.uint8)[:size]


def _is_complete(file: int, size: int) -> bool:
    return os.fstat(file).st_size == size + len(_COMPLETE) and os.pread(file, len(_COMPLETE), size) == _COMPLETE


def _is_at(file: int, path: Path) -> bool:
    """True if the path still leads to this file and not to a newer one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))  # noqa: PTH116
    return False


def _leave(file: int, path: Path) -> None:
    """Close the file, and remove it if no other process uses it."""
    try:
        if lock(file) == "ours" and _is_at(file, path):
            path.unlink()
        unlock(file)  # the memory map keeps the file open after the next line
    finally:
        os.close(file)
