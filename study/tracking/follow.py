"""Keeping views of the journal up to date.

MLflow and Optuna's database are views (contract 3). A view remembers how many of the journal's events it holds;
whoever keeps it reads on from there and hands over the rest. So a tracker that is slow or down delays nothing and
costs no memory, and a view that was deleted is rebuilt by reading from the start.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from sr_core.process.locks import lock
from study.question.config import short_digest
from study.record.events import Event, StudyOpened, UnknownFormatError, to_json
from study.record.folder import JOURNALS, StudyFolder
from study.record.journal import JournalError, UnknownJournalError, decode, opened
from study.record.ownership import is_at
from study.record.standing import Standing
from study.record.state import StudyState, fold
from study.tracking.databases import ViewError

BATCH = 500
"""Events handed over at once, at most."""
KEPT = 4 * BATCH
"""Of the events that were read last, how many stay in memory for the other views of the journal."""


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


def study_id(opened: StudyOpened) -> str:
    """Tells a study from another one of the same name, wherever its folder is carried."""
    return short_digest(to_json(opened))


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


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two lines of a journal, and what the study has come to there."""

    count: int = 0
    """Events before it."""
    offset: int = 0
    """Bytes before it."""
    state: StudyState = field(default_factory=StudyState)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that were read one after the other."""

    first: int
    """Sequence number of the first of them."""
    events: Sequence[Event]
    offsets: Sequence[int]
    """Bytes of the journal up to the end of each."""
    end: Position
    """After the last of them."""

    def rest(self, position: Position, most: int) -> "Batch":
        """What is not read yet at a position in it, at most so many events."""
        skipped = position.count - self.first
        if skipped == 0 and len(self.events) <= most:
            return self
        events = self.events[skipped : skipped + most]
        offsets = self.offsets[skipped : skipped + most]
        end = self.end  # the same object, so that whoever gets there shares its state
        if position.count + len(events) < end.count:
            end = Position(position.count + len(events), offsets[-1], fold(events, position.state))
        return Batch(position.count, events, offsets, end)


class Reading:
    """What all views of a journal read: each event is decoded and folded once, whichever view comes to it first.

    The last events stay in memory, and a view whose next event is among them shares them and their state with the
    others. One that is farther behind, because its tracker is slow or down, reads by itself until it has caught up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = deque[Batch]()
        self._lock = threading.Lock()
        self._unpacked: bytes | None = None

    def after(self, position: Position, most: int) -> tuple[list[Event], Position]:
        """The next events, at most so many, none at the end or at a torn tail; and the position after them.

        Raises:
            JournalError: a line before the last is damaged, out of sequence, or of another format.
        """
        events: list[Event] = []
        with self._lock:
            for batch in self._next(position, most):
                events += batch.events
                position = batch.end
        return events, position

    def last_before(self, count: int) -> Position:
        """The last position known, of those that have at most so many events before them."""
        with self._lock:
            ends = (batch.end for batch in reversed(self._kept) if batch.end.count <= count)
            return next(ends, Position())

    def _next(self, position: Position, most: int) -> Iterator[Batch]:
        """The next events, at most so many: from the file up to the kept ones, those, then from the file again."""
        first = self._kept[0].first if self._kept else position.count
        while position.count < first and most:
            asked = min(most, first - position.count)
            batch = self._read(position, asked)
            if batch is None:
                return
            yield batch
            position, most = batch.end, most - len(batch.events)
        for kept in self._kept if position.count < self._end else ():
            if kept.first <= position.count < kept.end.count and most:
                batch = kept.rest(position, most)
                yield batch
                position, most = batch.end, most - len(batch.events)
        if most:
            batch = self._read(position, most)
            if batch is not None:
                self._keep(batch)
                yield batch

    @property
    def _end(self) -> int:
        """Events before the end of what is kept."""
        return self._kept[-1].end.count if self._kept else 0

    def _keep(self, batch: Batch) -> None:
        if self._end != batch.first:
            self._kept.clear()
        self._kept.append(batch)
        while self._end - self._kept[0].end.count >= KEPT:
            self._kept.popleft()

    def _read(self, position: Position, most: int) -> Batch | None:
        """The next events of the file; None at its end or at a torn tail."""
        path = self._path
        if not path.exists():
            return None
        events: list[Event] = []
        offsets: list[int] = []
        count, offset = position.count, position.offset
        with self._opened() as file:
            file.seek(offset)
            # A line without its end is torn, or being written this moment.
            while len(events) < most and (line := file.readline()).endswith(b"\n"):
                try:
                    seq, event = decode(line)
                except UnknownFormatError as exc:
                    raise UnknownJournalError(f"{self._path}: {exc}") from exc
                except ValueError as exc:
                    if file.readline():
                        raise JournalError(f"{path}: line {count + 1} {exc}; restore the file from a copy") from exc
                    break
                if seq != count:
                    raise JournalError(f"{path}: expected event {count}, got {seq}; restore it from a copy")
                count += 1
                offset += len(line)
                events.append(event)
                offsets.append(offset)
        if not events:
            return None
        return Batch(position.count, events, offsets, Position(count, offset, fold(events, position.state)))

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The journal; a published one is unpacked once, not up to where each reading begins."""
        if self._path.suffix != ".gz":
            with opened(self._path) as file:
                yield file
            return
        if self._unpacked is None:
            with opened(self._path) as file:
                self._unpacked = file.read()
        yield BytesIO(self._unpacked)


class Tail:
    """Reads a journal bit by bit while it is being written, and folds as it goes.

    Args:
        reading: shared with others who read the journal.
    """

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        self._reading = reading or Reading(path)
        self._position = Position()

    @property
    def state(self) -> StudyState:
        """The fold of all that was read."""
        return self._position.state

    @property
    def count(self) -> int:
        """Events read."""
        return self._position.count

    @property
    def offset(self) -> int:
        """Bytes read."""
        return self._position.offset

    def read(self, most: int) -> list[Event]:
        """The next events, none at the end or at a torn tail. Raises JournalError as `Reading.after` does."""
        events, self._position = self._reading.after(self._position, most)
        return events

    def skip_to(self, count: int) -> None:
        """Go on from that event, or from the end of the journal if it has fewer. Raises JournalError as `read` does."""
        known = self._reading.last_before(count)
        if known.count > self.count:
            self._position = known
        while self.count < count and self.read(min(BATCH, count - self.count)):
            pass


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
