"""The folder `owners` with one file per owner that a study has had, named by the owner's epoch.

Creating the file exclusively is the claim: if several processes on any hosts try, only one gets the epoch. The file is
also the fence: an owner whose epoch is not the highest has been replaced. The file of an owner that recorded something
stays, so that a host with an outdated listing cannot claim the same epoch again. The time of the file is the lease.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sr_core.errors import SuiteError
from sr_core.process.locks import CANNOT_EXCLUDE, REMEDIES, age, create_exclusively, newest_epoch, unique_name


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner of a study, as it described itself."""

    content: dict[str, Any]
    """Its host, machine, pid and start (since, as Unix time). Empty if this cannot be read."""
    path: Path
    """The file that is its claim."""

    @property
    def left(self) -> bool:
        """True if the owner has released the study by itself."""
        return "ended" in self.content

    def silence(self) -> float:
        """Seconds since its last sign of life, by the clock of the file system."""
        return age(self.path)

    def __str__(self) -> str:
        return claim_in_words(self.content)


@dataclass(frozen=True, slots=True)
class Claims:
    """The owners of one study."""

    folder: Path

    def newest(self) -> int:
        """The epoch of the current or last owner; 0 if there was none."""
        return newest_epoch(self.folder)

    def owner(self, epoch: int) -> Owner | None:
        """The owner with this epoch; None if there was none."""
        path = self._path(epoch)
        try:
            return Owner(content_of(path), path)
        except FileNotFoundError:
            return None

    def claim(self, epoch: int, content: dict[str, Any]) -> bool:
        """Try to become the owner with this epoch; returns False if another process has it.

        Raises:
            SuiteError: this file system cannot exclude two owners.
        """
        self.folder.mkdir(exist_ok=True)
        path = self._path(epoch)
        try:
            created = create_exclusively(path, json.dumps(content).encode())
        except OSError as exc:
            if exc.errno not in CANNOT_EXCLUDE:
                raise
            raise SuiteError(
                f"{self.folder}: this file system can neither lock a file nor create one exclusively "
                f"({exc.strerror}), so two processes could own the study at once; {REMEDIES}"
            ) from exc
        if created and content_of(path) != content:
            raise SuiteError(
                f"{path}: two processes created this file, so this file system does not create files exclusively and "
                f"both could own the study; {REMEDIES}"
            )
        return created

    def leave(self, epoch: int, content: dict[str, Any]) -> None:
        """Record that this owner has ended, so that others do not have to wait."""
        path = self._path(epoch)
        temporary = unique_name(path)
        temporary.write_text(json.dumps({**content, "ended": time.time()}))
        temporary.replace(path)

    def forget(self, epoch: int) -> None:
        """Remove the claim of an owner that recorded nothing."""
        self._path(epoch).unlink(missing_ok=True)
        with suppress(OSError):  # there are other claims
            self.folder.rmdir()

    def renew(self, epoch: int) -> None:
        """Renew the lease."""
        os.utime(self._path(epoch))

    def _path(self, epoch: int) -> Path:
        return self.folder / str(epoch)


class Renewal:
    """A background thread that gives signs of life at regular intervals, until `end` is called.

    Args:
        seconds: time between two signs.
        signs: functions that give a sign of life.
    """

    def __init__(self, seconds: float, *signs: Callable[[], None]) -> None:
        self._seconds = seconds
        self._signs = signs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._thread.join(timeout=1.0)  # no longer than that: an unreachable file system may block the thread

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds):
            for sign in self._signs:
                # OSError: the file system is unreachable for a while. ValueError: the file has been closed.
                with suppress(OSError, ValueError):
                    sign()


def content_of(path: Path) -> dict[str, Any]:
    """What an owner wrote about itself into this file; empty if it cannot be read."""
    with path.open() as file:
        return read_content(file)


def read_content(file: IO[str]) -> dict[str, Any]:
    """What an owner wrote about itself into this open file; empty if it cannot be read."""
    file.seek(0)
    try:
        content = json.loads(file.read())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def rewrite(file: IO[str], content: dict[str, Any] | None) -> None:
    """Replace the content of the file, on the disk. None empties the file."""
    file.truncate(0)
    if content is not None:
        file.write(json.dumps(content))
    file.flush()
    os.fsync(file.fileno())


def claim_in_words(content: dict[str, Any]) -> str:
    """The text by which messages name an owner: its process, host and start."""
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since"]))
        return f"process {content['pid']} on {content['host']} since {since}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "another process"
