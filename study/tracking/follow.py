"""Keeping views of the journal up to date.

MLflow and Optuna's database are views (contract 3). A view remembers how many of the journal's events it holds;
whoever keeps it reads on from there and hands over the rest. So a tracker that is slow or down delays nothing and
costs no memory, and a view that was deleted is rebuilt by reading from the start.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from sr_core.process.locks import lock
from study.record.events import Event, StudyOpened
from study.record.folder import JOURNALS, StudyFolder
from study.record.journal import study_id
from study.record.ownership import is_at
from study.record.standing import Standing
from study.record.state import StudyState
from study.record.tail import BATCH, Reading, Tail
from study.tracking.databases import ViewError


class Sink(Protocol):
    """One view of the journal, in somebody's tool."""

    name: str
    where: str
    """Which store, for people to read: no password is in it."""

    def prepare(self) -> None:
        """Create the store where it is ours to create: what `open` does first, for whoever wants it done by then."""

    def open(self, opened: StudyOpened) -> int:
        """Connect, and create what is missing; the number of the journal's events that the view already holds.

        May raise whatever a tracker that is down raises (in the foreground, ViewError reads best); it is called
        again later, also after a failed `take`.
        """

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """Show these events. Idempotent: what a kill interrupted comes again.

        Args:
            state: the fold up to and including the last of these events.
            upto: what `open` may return once these events are held; less is safe, and read again.
        """

    def close(self) -> None:
        """Let go of connections."""


def require_own(folder: StudyFolder, opened: StudyOpened, owner: str) -> None:
    """Raises ViewError where a view's runs belong to another folder of the root, of which this one is a copy.

    A folder that was renamed keeps its runs.

    Args:
        owner: the name of the folder from which the view was written.
    """
    if owner == folder.study or Path(owner).name != owner:
        return
    there = folder.root / owner / JOURNALS[0]
    first = Tail(there).read(1) if there.is_file() else []
    if first and isinstance(first[0], StudyOpened) and study_id(first[0]) == study_id(opened):
        raise ViewError(
            f"{folder.path} is a copy of {there.parent}, to which the runs of this study belong; nothing is written to "
            "them: go on with that one, or start a study of another name"
        )


class Keeper:
    """Hands a journal to one sink, batch by batch; no other keeper of the same view runs meanwhile.

    Args:
        reading: of the journal, to share it with the keepers of other views.
    """

    def __init__(self, journal: Path, sink: Sink, reading: Reading | None = None) -> None:
        self._journal = journal
        self._sink = sink
        self._reading = reading or Reading(journal)
        self._tail: Tail | None = None
        self._lock: IO[str] | None = None
        self._lock_path = journal.with_name(f".{sink.name}.lock")
        self.offset = self.count = 0
        """Bytes and events of the journal that the view is known to hold."""

    def advance(self) -> int:
        """Hand over the next batch; how many events it had, 0 at the end of the journal.

        After an exception the next call connects anew and goes on from what the view then holds.
        """
        try:
            if self._lock is not None and not is_at(self._lock, self._lock_path):
                raise ViewError(f"{self._lock_path}: taken over with the study; leave the view to its new owner")
            if self._tail is None and not self._open():
                return 0
            assert self._tail is not None
            events = self._tail.read(BATCH)
            if events:
                self._sink.take(events, self._tail.state, self._tail.count)
            self.offset, self.count = self._tail.offset, self._tail.count
        except BaseException:
            self.close()
            raise
        return len(events)

    def close(self) -> None:
        """Let go of the view."""
        self._tail = None
        try:
            self._sink.close()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _open(self) -> bool:
        """Connect and read up to what the view holds; False where the journal has no event yet."""
        tail = Tail(self._journal, self._reading)
        if not tail.read(1):
            return False
        assert tail.state.opened is not None
        self._lock = _only_keeper(self._lock_path)
        held = self._sink.open(tail.state.opened)
        tail.skip_to(held)
        # A view that holds more than the journal has saw a tail that a power cut took: everything is shown anew.
        self._tail = tail if tail.count == held else Tail(self._journal, self._reading)
        return True


def _only_keeper(path: Path) -> IO[str]:
    """A lock that ends with the file or the process. Without locks the study's own owner keeps the view."""
    try:
        file = path.open("a")
    except OSError as exc:
        raise ViewError(f"{path}: cannot be written ({exc.strerror}); choose a folder that can") from exc
    if lock(file) == "theirs":
        file.close()
        raise ViewError(f"{path}: another process keeps this view up to date; leave it to that one")
    return file


@contextmanager
def keeping(journal: Path, sink: Sink, reading: Reading | None = None) -> Iterator[Keeper]:
    keeper = Keeper(journal, sink, reading)
    try:
        yield keeper
    finally:
        keeper.close()


def sync(journal: Path, sink: Sink, report: Callable[[int], None] | None = None) -> int:
    """Bring a view up to date now; how many events it lacked.

    Args:
        report: told after each batch how many events were handed over so far.
    """
    total = 0
    began, cpu = time.perf_counter(), time.thread_time()
    with keeping(journal, sink) as keeper:
        while count := keeper.advance():
            total += count
            if report:
                report(total)
    Standing(
        time=time.time(),
        events=keeper.count,
        busy_seconds=time.perf_counter() - began,
        cpu_seconds=time.thread_time() - cpu,
    ).save(journal, sink.name, sink.where)
    return total
