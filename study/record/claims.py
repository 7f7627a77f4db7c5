"""The folder `owners`: one file for each owner that a study ever had, named by its epoch.

A file is created exclusively, and that is the claim: however many processes try from however many hosts, one of them
has the epoch. It is the fence too: an owner whose epoch is not the highest has been replaced. The file of an owner that
recorded anything stays, so a host that sees an old listing cannot claim its epoch again. The file's time is the lease.
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
    """What an owner said of itself."""

    content: dict[str, Any]
    """Its host, machine, pid, since when (Unix time); empty if that cannot be read."""
    path: Path
    """Of its claim."""

    @property
    def left(self) -> bool:
        """Whether it gave the study back by itself."""
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
        """The epoch of the present or last owner; 0 if there was none."""
        return newest_epoch(self.folder)

    def owner(self, epoch: int) -> Owner | None:
        """The owner with this epoch; None if there was none."""
        path = self._path(epoch)
        try:
            return Owner(content_of(path), path)
        except FileNotFoundError:
            return None

    def claim(self, epoch: int, content: dict[str, Any]) -> bool:
        """Become the owner with this epoch; False if another process did.

        Raises:
            SuiteError: the file system cannot keep two processes apart.
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
        """Let others know that this owner is gone, so that they need not wait."""
        path = self._path(epoch)
        aside = unique_name(path)
        aside.write_text(json.dumps({**content, "ended": time.time()}))
        aside.replace(path)

    def forget(self, epoch: int) -> None:
        """Remove the claim of an owner that recorded nothing."""
        self._path(epoch).unlink(missing_ok=True)
        with suppress(OSError):  # not the only one
            self.folder.rmdir()

    def renew(self, epoch: int) -> None:
        """Give a sign of life."""
        os.utime(self._path(epoch))

    def _path(self, epoch: int) -> Path:
        return self.folder / str(epoch)


class Renewal:
    """Gives signs of life from a thread of its own, one every so many seconds, until it is ended."""

    def __init__(self, seconds: float, *signs: Callable[[], None]) -> None:
        self._seconds = seconds
        self._signs = signs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(timeout=1.0)  # not longer: a file system that is away may hold it

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds):
            for sign in self._signs:
                with suppress(
                    OSError, ValueError
                ):  # a file system that is away for a while; a file that is closed by now
                    sign()


def content_of(path: Path) -> dict[str, Any]:
    """What an owner said of itself in this file; empty if it cannot be read."""
    with path.open() as file:
        return read_content(file)


def read_content(file: IO[str]) -> dict[str, Any]:
    """The same from an open file."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def rewrite(file: IO[str], content: dict[str, Any] | None) -> None:
    """Let the file hold this and no more, on the disk; None empties it."""
    file.truncate(0)
    if content is not None:
        file.write(json.dumps(content))
    file.flush()
    os.fsync(file.fileno())


def claim_in_words(content: dict[str, Any]) -> str:
    """An owner by its process, host and time, as messages name it."""
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since"]))
        return f"process {content['pid']} on {content['host']} since {since}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "another process"
