"""Coordinators on several hosts that want one study at once, in every order that a seed draws: one owner at a time.

The hosts are threads that take turns: one runs until it reaches the file system, then the schedule picks the next. The
file system is a real folder seen as an NFS client sees it: `flock` is the host's own affair, a listing stays as it was
until the host changes the folder, and what was written shows elsewhere once it is synced.
"""

import errno
import fcntl
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from sr_core.errors import SuiteError
from study.record import claims, ownership
from study.record.events import Warned
from study.record.folder import StudyFolder
from study.record.journal import Journal, JournalPosition, read
from study.record.ownership import Ownership

LINES = 4
"""That each owner writes, if it may."""


class Host(threading.Thread):
    """One coordinator on a machine of its own."""

    def __init__(self, name: str, pid: int, body: Callable[["Host"], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.pid = pid
        self.body = body
        self.listings: dict[str, list[str]] = {}
        self.ownership: Ownership | None = None
        self.said = ""
        self.ended = False
        self.fault: BaseException | None = None
        self.turn, self.back = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self.turn.acquire()
        try:
            self.body(self)
        except BaseException as exc:
            self.fault = exc
        self.ended = True
        self.back.release()

    def step(self) -> None:
        """Let it run up to where it next reaches the file system."""
        self.turn.release()
        assert self.back.acquire(timeout=20)

    def pause(self) -> None:
        self.back.release()
        self.turn.acquire()


def present() -> Host | None:
    host = threading.current_thread()
    return host if isinstance(host, Host) else None


@dataclass
class FileSystem:
    """What the hosts share, and what each sees of it."""

    locks: str = "local"
    """local: kept by each host for itself; pretended: every process that asks gets it; none: refused."""
    links: bool = True
    holders: dict[tuple[str, int], int] = field(default_factory=dict)
    unsynced: dict[int, Host] = field(default_factory=dict)
    """Which host has written a file that is not on the server yet, by its inode."""

    def flock(self, file: Any, kind: int) -> None:
        host = present()
        if host is None or self.locks == "pretended":
            return
        if self.locks == "none":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        descriptor = file if isinstance(file, int) else file.fileno()
        key = (host.name, os.fstat(descriptor).st_ino)
        if kind == fcntl.LOCK_UN:
            self.holders.pop(key, None)
        elif self.holders.setdefault(key, descriptor) != descriptor:
            raise BlockingIOError

    def days_pass(self, folder: StudyFolder, seconds: float) -> None:
        """Advance the server's clock, so that every file is older by this much."""
        for path in (*folder.owners.glob("*"), folder.path / "lock"):
            if path.exists():
                moment = path.stat().st_mtime - seconds
                REAL["utime"](path, (moment, moment))


REAL: dict[str, Any] = {name: getattr(os, name) for name in ("listdir", "utime", "link", "open", "fsync", "getpid")}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileSystem]:
    seen = FileSystem()

    def listdir(path: Any) -> list[str]:
        host = present()
        if host is None:
            return REAL["listdir"](path)
        host.pause()
        if str(path) not in host.listings:
            host.listings[str(path)] = REAL["listdir"](path)
        return host.listings[str(path)]

    def utime(path: Any, *rest: Any) -> None:
        if host := present():
            host.listings.pop(str(path), None)
        REAL["utime"](path, *rest)

    def link(one: Any, other: Any) -> None:
        if host := present():
            host.pause()
            host.listings.pop(str(Path(other).parent), None)
            if not seen.links:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        REAL["link"](one, other)

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        host = present()
        if host and flags & os.O_EXCL:
            host.pause()
        descriptor: int = REAL["open"](path, flags, *rest, **named)
        if host and flags & os.O_EXCL:
            host.listings.pop(str(Path(path).parent), None)
            seen.unsynced[os.fstat(descriptor).st_ino] = host
        return descriptor

    def fsync(descriptor: int) -> None:
        if host := present():
            host.pause()
            seen.unsynced.pop(os.fstat(descriptor).st_ino, None)

    read_content = claims.read_content

    def content(file: IO[str]) -> dict[str, Any]:
        writer = seen.unsynced.get(os.fstat(file.fileno()).st_ino)
        return {} if writer not in (None, present()) else read_content(file)

    check_end = Journal._check_end

    def checked(journal: Journal, expected: int) -> None:
        if host := present():
            host.pause()  # between the question whether it is the owner and the line
        check_end(journal, expected)

    monkeypatch.setattr(Journal, "_check_end", checked)
    for name, fake in {"listdir": listdir, "utime": utime, "link": link, "open": opened, "fsync": fsync}.items():
        monkeypatch.setattr(os, name, fake)
    monkeypatch.setattr(os, "getpid", lambda: host.pid if (host := present()) else REAL["getpid"]())
    monkeypatch.setattr("socket.gethostname", lambda: host.name if (host := present()) else "test")
    monkeypatch.setattr(ownership, "machine", lambda: f"boot of {threading.current_thread().name}")
    monkeypatch.setattr(ownership, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fcntl, "flock", seen.flock)
    monkeypatch.setattr(claims, "read_content", content)
    monkeypatch.setattr(ownership, "read_content", content)
    yield seen


class Race:
    """Hosts at one study, and what each was told is in the record."""

    def __init__(self, folder: StudyFolder, seen: FileSystem, draw: random.Random) -> None:
        self.folder, self.seen, self.draw = folder, seen, draw
        self.acknowledged: list[tuple[int, str]] = []
        """(epoch, line) in the order in which `append` returned."""
        self.epochs: list[int] = []
        self.hosts: list[Host] = []

    def host(self, *, take_over: bool = False) -> Host:
        """One more, about to start."""

        def body(host: Host) -> None:
            try:
                with self.folder.owned(take_over=take_over) as held:
                    self.epochs.append(held.epoch)
                    self._write(host, held)
            except SuiteError as exc:
                host.said = str(exc)

        made = Host(f"host-{len(self.hosts)}", 100 + len(self.hosts), body)
        made.start()
        self.hosts.append(made)
        return made

    def _write(self, host: Host, held: Ownership) -> None:
        host.ownership = held
        place = JournalPosition()
        known = len(list(read(self.folder.journal, place))) if self.folder.journal.exists() else 0
        journal = Journal(self.folder.journal, held.check, place)
        try:
            for number in range(LINES):
                line = f"{host.name} line {number} after {known}"
                journal.append(Warned(time=0.0, message=line))
                self.acknowledged.append((held.epoch, line))
                host.pause()
        finally:
            journal.close()

    def run(self, *hosts: Host, steps: int | None = None) -> None:
        """Run the steps in a random order: a given number of them, or all."""
        taken = 0
        while (steps is None or taken < steps) and (able := [host for host in hosts if not host.ended]):
            self.draw.choice(able).step()
            taken += 1

    def check(self) -> None:
        """One owner at a time, and every line that was acknowledged is in the record, in this order."""
        for host in self.hosts:
            assert host.ended
            if host.fault is not None:
                raise host.fault
        assert len(set(self.epochs)) == len(self.epochs), "two owners have the same epoch"
        told = [epoch for epoch, _ in self.acknowledged]
        assert told == sorted(told), "an owner wrote after its successor"
        record = iter([event.message for event in read(self.folder.journal) if isinstance(event, Warned)])
        for _, line in self.acknowledged:
            assert line in record, "an acknowledged line is lost, or in another order"
        for host in self.hosts:
            mine = sum(host.name == line.split()[0] for _, line in self.acknowledged)
            assert (mine == LINES) == (not host.said)
        assert self.acknowledged, f"no host got anywhere: {[host.said for host in self.hosts]}"


def both_start_in_the_same_second(race: Race) -> None:
    race.run(race.host(), race.host())


def one_is_paused_for_70_seconds(race: Race) -> None:
    first = race.host()
    race.run(first, steps=race.draw.randrange(24))
    race.seen.days_pass(race.folder, 70)
    second = race.host()
    race.run(second, steps=race.draw.randrange(24))
    race.run(first, second)


def one_is_taken_over_while_it_appends(race: Race) -> None:
    first = race.host()
    race.run(first, steps=race.draw.randrange(8, 24))
    race.run(first, race.host(take_over=True))


def two_take_over_at_once(race: Race) -> None:
    first = race.host()
    race.run(first, steps=race.draw.randrange(24))
    race.run(first, race.host(take_over=True), race.host(take_over=True))


KINDS = (
    both_start_in_the_same_second,
    one_is_paused_for_70_seconds,
    one_is_taken_over_while_it_appends,
    two_take_over_at_once,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("locks", ["local", "pretended", "none"])
def test_a_study_has_one_owner_at_a_time_and_loses_no_line(
    kind: Callable[[Race], None], locks: str, shared: FileSystem, tmp_path: Path
) -> None:
    refused = 0
    for seed in range(17):
        shared.locks, shared.links = locks, seed % 3 > 0
        shared.holders.clear()
        folder = StudyFolder(tmp_path / str(seed), "small")
        if seed % 2:
            folder.create()
            Journal(folder.journal).close()
        race = Race(folder, shared, random.Random(f"{kind.__name__} {locks} {seed}"))
        kind(race)
        race.check()
        for host in race.hosts:
            refused += bool(host.said)
            named = re.search(r"process 10\d on host-\d since", host.said)
            assert not host.said or named or (not shared.links and "another process" in host.said), host.said
    assert refused > 5, "the hosts did not meet"
