"""Read-only memory that all processes of one user on one machine share, and that goes when the last of them goes.

It is a file in a folder that lives in memory, named after what it holds. Who uses it holds a shared lock on it, which
the kernel takes back however a process ends; who fills it holds the exclusive lock, and who gets that at its end is
alone and removes the file. What killed processes left behind, the next one to come uses, or removes.
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
"""Follows the pixels of a file that is filled."""


class SharedPixels:
    """One flat array, filled by the first process that asks for its name; private memory where none can be shared."""

    pixels: NDArray[np.uint8]
    """(size,), read-only."""
    shared: bool

    def __init__(self, name: str, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> None:
        """Waits while another process fills it.

        Args:
            name: says everything about the content: the same name is the same bytes.
            fill: writes the content into an array of that size; what it raises, this raises.
        """
        remove_abandoned()
        try:
            file, path = _attach(name, size, fill)
        except OSError as exc:  # no such folder, or too small: in a container it often is
            logger.info("pixels are not shared between processes: %s", exc)
            self.pixels, self.shared = np.empty(size, np.uint8), False
            fill(self.pixels)
            self.pixels.flags.writeable = False
        else:
            self.pixels, self.shared = _mapped(file, size, mmap.ACCESS_READ), True
            weakref.finalize(self, _leave, file, path)


def shareable_memory() -> int:
    """Bytes that processes could share; 0 where they cannot share any."""
    try:
        return shutil.disk_usage(FOLDER).free
    except OSError:
        return 0


def remove_abandoned() -> None:
    """Removes this user's shared pixels that no living process uses."""
    for path in FOLDER.glob(f"{_prefix()}*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            _leave(file, path)


def _prefix() -> str:
    return f"a2n-study-{os.getuid()}-"


def _attach(name: str, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> tuple[int, Path]:
    """The open file, complete and with a shared lock, and its path."""
    path = FOLDER / (_prefix() + hashlib.sha256(f"{name} {size}".encode()).hexdigest()[:32])
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_uid != os.getuid():
                raise PermissionError(f"{path} is another user's")
            alone = lock(file)
            if alone == "unsupported":
                path.unlink(missing_ok=True)
                raise OSError(errno.ENOLCK, "the folder has no locks", str(path))
            if alone == "ours" and _is_at(file, path) and not _is_complete(file, size):
                _fill(file, path, size, fill)
            lock(file, shared=True, wait=True)  # if another process fills it, until that is done
            if _is_at(file, path) and _is_complete(file, size):
                return file, path
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # removed meanwhile, or its filler died: once more


def _fill(file: int, path: Path, size: int, fill: Callable[[NDArray[np.uint8]], None]) -> None:
    try:
        os.ftruncate(file, 0)
        os.posix_fallocate(file, 0, size + len(_COMPLETE))  # now, or a write to the map would end the process
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
    """Whether the path still leads to this file, and not to a newer one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))  # noqa: PTH116
    return False


def _leave(file: int, path: Path) -> None:
    """Closes the file, and removes it if no other process has it."""
    try:
        if lock(file) == "ours" and _is_at(file, path):
            path.unlink()
        unlock(file)  # the memory map keeps the file open beyond the next line
    finally:
        os.close(file)
