"""One owner per study: a lock on one machine, a lease between machines, and a fence behind a take-over (contract 4).

On one machine the kernel's lock alone decides, so that a restart after a kill is immediate. Machines that share a file
system, and perhaps not its locks, look at the lock file's time: its owner renews it, and is gone if it no longer does.
Whoever takes over puts a new lock file and a copy of the journal in the place of the old ones: an owner that was only
stopped wakes with files that nobody reads, and finds that out before it writes.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sr_core.durable import write_durably
from sr_core.errors import SuiteError, TakenOverError

RENEW_SECONDS, STALE_SECONDS = 10.0, 60.0
"""How often an owner renews its lease, and after how long without that it is taken for gone by other machines."""
_LOOK_SECONDS = 0.5
"""Far longer than another process holds the lock only to see whether there is an owner."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """What its owner holds of a study."""

    path: Path
    """Of the lock file."""
    what: str
    """What is owned, in words."""
    file: IO[str]

    @property
    def lasts(self) -> bool:
        """Whether nobody has taken it over; where the lock file is gone nobody has, the whole folder may be."""
        return is_at(self.file, self.path) or not self.path.exists()

    def check(self) -> None:
        """Raises TakenOverError, which names the present owner, if that is another one by now."""
        if not self.lasts:
            other = owner(self.path) or "another process"
            raise TakenOverError(f"{self.what} was taken over by {other}; this process has stopped, nothing is lost")


@contextmanager
def owned(path: Path, what: str, journal: Path, *, take_over: bool = False) -> Iterator[Ownership]:
    """Own a study while the block runs; the kernel gives it back however this process ends.

    Args:
        path: of the lock file.
        what: names the study in messages.
        journal: is fenced from an owner who may live on.
        take_over: take it even from a live owner.
    Raises:
        SuiteError: a live process owns it; names it.
    """
    with ExitStack() as stack:
        file: IO[str] = stack.enter_context(path.open("a+"))
        gained = _gain(file, path)
        before = _content(file)
        elsewhere = before.get("machine") not in (None, machine())
        if not gained and not take_over:
            raise SuiteError(f"{what} is being run by {_words(before)}; wait for it, or take it over: --take-over")
        if gained and elsewhere and not take_over and (age := _age(path)) < STALE_SECONDS:
            raise SuiteError(
                f"{what} is being run by {_words(before)}, whose last sign of life was {age:.0f} s ago; wait for it, "
                f"or until it has given none for {STALE_SECONDS:.0f} s, or take it over: --take-over"
            )
        fence = elsewhere or not gained  # otherwise the kernel knows that the one before is dead
        if fence:
            file = stack.enter_context(_replace(path))
        file.truncate(0)
        since = {"host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "since": time.time()}
        file.write(json.dumps(since))
        file.flush()
        if fence:
            _fence(journal)
        ended = threading.Event()
        threading.Thread(target=_renew, args=(file.fileno(), ended), name="lease", daemon=True).start()
        held = Ownership(path, what, file)
        try:
            yield held
        except Exception:
            if path.exists():  # where a study comes to nothing its lock goes first
                held.check()  # whatever else went wrong: a new owner takes away what the former one leans on
            raise
        finally:
            ended.set()
            file.truncate(0)  # left by itself: whoever comes next, from whatever machine, need not wait


def owner(path: Path) -> str | None:
    """The live process that holds the lock file, in words; None if there is none."""
    content = _holder(path)
    return None if content is None else _words(content)


def has_begun(path: Path, host: str, pid: int, moment: float) -> bool:
    """Whether a session that such a process began at that moment [Unix s] is the one of the lock file's live owner."""
    content = _holder(path) or {}
    since = content.get("since")
    return (content.get("host"), content.get("pid")) == (host, pid) and isinstance(since, float) and since <= moment


def _holder(path: Path) -> dict[str, Any] | None:
    """What the live process that holds the lock file said of itself; None if there is none."""
    try:
        with path.open("r") as file:
            held = not _take(file, fcntl.LOCK_SH)
            content = _content(file)
    except OSError:
        return None
    elsewhere = content.get("machine") not in (None, machine())
    if held or (elsewhere and time.time() - path.stat().st_mtime < STALE_SECONDS):
        return content
    return None


def machine() -> str:
    """The same for all processes that share a kernel, and so its locks; another one after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _gain(file: IO[str], path: Path) -> bool:
    """Whether the lock is ours, after a moment's patience with those who only look."""
    until = time.monotonic() + _LOOK_SECONDS
    while not (_take(file, fcntl.LOCK_EX) and is_at(file, path)):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS / 20)
    return True


@contextmanager
def _replace(path: Path) -> Iterator[IO[str]]:
    """A lock file of our own in the place of one that another process holds, and so are those of the views."""
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    with aside.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        aside.replace(path)
        for view in path.parent.glob(".*.lock"):
            view.unlink()
        yield file


def _fence(journal: Path) -> None:
    """Put a copy in the journal's place: what its former owner may yet write goes where nobody reads."""
    if journal.exists():
        write_durably(journal, journal.read_bytes())


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        with suppress(OSError):  # a file system that is away for a while
            os.utime(descriptor)


def _age(path: Path) -> float:
    """Seconds since the lease was renewed, both times by the clock of the file system."""
    probe = path.with_name(f".probe-{os.getpid()}")
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return now - path.stat().st_mtime


def _take(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[str], path: Path) -> bool:
    """Whether that is the file's name: it is removed where a study comes to nothing, and replaced by a take-over."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _content(file: IO[str]) -> dict[str, Any]:
    """What the owner said of itself; nothing if it cannot be read."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _words(content: dict[str, Any]) -> str:
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["since"]))
        return f"process {content['pid']} on {content['host']} since {since}"
    except (KeyError, TypeError):
        return "another process"
