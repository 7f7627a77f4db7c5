"""A large file that appears under its name only when it is complete, and that HDF5 survives writing on a full disk."""

import fcntl
import io
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sr_core.process.durable import host_name, name_digest, sync_folder, temporary_name
from sr_core.process.output import keep_mode


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

    Until then it has a hidden name in the same folder. What killed processes left there is removed first. A file that
    is replaced leaves its mode and, if possible, its owner to the new one.

    Raises:
        OSError: the file cannot be written; a write error in the block comes out of `check`, at the latest at its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    unfinished = temporary_name(path, "partial")
    try:
        with PartialFile(unfinished, "x+") as file:
            _try_lock(file.fileno())
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
    """Removes this host's unfinished copies of a file whose writers are dead."""
    if os.name != "posix":  # elsewhere os.kill(pid, 0) is no harmless question
        return
    host = re.escape(host_name())
    earlier = rf"{re.escape(f'.{path.name}.{platform.node()}.')}(\d+)"  # as versions before 0.2 named them
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
        pass  # alive, another user's
    return True


def _is_locked(unfinished: Path) -> bool:
    """Whether a process writes it that cannot be asked for by its id: one in another container of the same name."""
    try:
        with unfinished.open("rb") as file:
            return not _try_lock(file.fileno())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _try_lock(descriptor: int) -> bool:
    """Whether the file is this process's alone now. Where there are no locks it always is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
