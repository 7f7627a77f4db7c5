"""Large files that appear under their name only when complete. HDF5 does not crash if the disk is full."""

import io
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sr_core.process.durable import host_name, name_digest, sync_folder, temporary_name
from sr_core.process.locks import lock
from sr_core.process.output import keep_mode


class PartialFile(io.FileIO):
    """An unbuffered file that hides its first write error until `check` is called.

    HDF5 (seen with 2.0) crashes the process at exit after a failed write, because it cannot write its cache. This file
    therefore hides the failure from HDF5. Later writes are dropped, and unwritten bytes read as 0.
    """

    error: OSError | None = None

    def check(self) -> None:
        """Raise the first write error, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        done = 0
        while done < size and self.error is None:  # a write may take only a part of the bytes
            try:
                done += super().write(view[done:]) or 0
            except OSError as exc:
                self.error = exc
        return size

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            count = super().readinto(view[done:])
            if not count:
                break
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
    """A file to write, which gets its name when the block ends without an error and is deleted otherwise.

    Until then it has a hidden name in the same folder. Unfinished files of killed processes are removed first. A file
    that replaces another one gets its mode and, if possible, its owner. The file is on the disk when the block ends.

    Raises:
        OSError: the file cannot be written. A write error in the block is raised by `check` or at the end of the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = temporary_name(path, "partial")
    try:
        with PartialFile(unfinished, "x+") as file:
            with suppress(OSError):  # the lock only protects the file from `_remove_abandoned`
                lock(file.fileno())
            try:
                yield file
            finally:
                file.check()
            if path.is_file():
                with suppress(PermissionError):
                    keep_mode(path.stat(), unfinished, path)
            os.fsync(file.fileno())
            unfinished.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _remove_abandoned(path: Path) -> None:
    """Remove unfinished copies of a file whose writers, on this host, are dead."""
    if os.name != "posix":  # on Windows os.kill(pid, 0) ends the process
        return
    host = re.escape(host_name())
    earlier = rf"{re.escape(f'.{path.name}.{platform.node()}.')}(\d+)"  # the names of versions before 0.2
    ours = re.compile(rf"(?:\.{name_digest(path)}\.{host}-(\d+)-[0-9a-f]+|{earlier})\.partial")
    for unfinished in path.parent.iterdir():
        name = ours.fullmatch(unfinished.name)
        if name and not _is_alive(int(name[1] or name[2])) and not _is_locked(unfinished):
            unfinished.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # a live process of another user
    return True


def _is_locked(unfinished: Path) -> bool:
    """True if another process writes the file, for example one in a container that has the same host name."""
    try:
        with unfinished.open("rb") as file:
            return lock(file.fileno()) == "theirs"
    except FileNotFoundError:
        return False
    except OSError:
        return True
