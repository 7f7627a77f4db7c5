"""A large file that appears under its name only when it is complete, and that HDF5 survives writing on a full disk."""

import io
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sr_core.durable import sync_folder


class PartialFile(io.FileIO):
    """An unbuffered file that keeps its first write error to itself until `check` is asked.

    HDF5 (seen with 2.0) crashes the process at exit if a write has failed, as it cannot get rid of what it has cached.
    Here it never learns of the failure: later writes are dropped, and what was never written reads as 0.
    """

    error: OSError | None = None

    def check(self) -> None:
        """Raises the first write error, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        size, done = len(view), 0
        while done < size and self.error is None:  # the system may take less than it is given
            try:
                done += super().write(view[done:]) or 0
            except OSError as exc:
                self.error = exc
        return size

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (count := super().readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as exc:
            self.error = self.error or exc
            return self.tell() if size is None else size


@contextmanager
def whole_file(path: Path) -> Iterator[PartialFile]:
    """A file to write; it is on the disk under its name when the block ends, and absent if anything goes wrong.

    Until then it lies beside its place. What killed processes left there is removed first.

    Raises:
        OSError: the file cannot be written; a write error in the block comes out of `check`, at the latest at its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    beside = path.with_name(f"{partial_prefix(path)}{os.getpid()}.partial")
    try:
        with PartialFile(beside, "w+") as file:
            try:
                yield file
            finally:
                file.check()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink()


def partial_prefix(path: Path) -> str:
    """How the names of this host's unfinished copies of a file begin; the writer's process id follows."""
    return f".{path.name}.{platform.node()}."


def _remove_abandoned(path: Path) -> None:
    """Removes this host's unfinished copies of a file whose writers are dead."""
    if os.name != "posix":  # elsewhere os.kill(pid, 0) is no harmless question
        return
    prefix = partial_prefix(path)
    for beside in path.parent.iterdir():
        owner = beside.name.removeprefix(prefix).removesuffix(".partial")
        if beside.name == f"{prefix}{owner}.partial" and owner.isdecimal():
            try:
                os.kill(int(owner), 0)
            except ProcessLookupError:
                beside.unlink(missing_ok=True)
            except PermissionError:
                pass  # alive, another user's
