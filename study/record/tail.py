"""A journal that grows, read and folded bit by bit."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from study.record.events import Event, UnknownFormatError
from study.record.journal import JournalError, UnknownJournalError, decode, opened
from study.record.state import StudyState, fold

BATCH = 500
"""Events handed over at once, at most."""


KEPT = 4 * BATCH
"""Of the events that were read last, how many stay in memory for the other views of the journal."""


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
