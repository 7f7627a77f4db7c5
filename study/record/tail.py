"""Reads and folds a growing journal step by step."""

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
"""Maximum number of events that a view gets at once."""

KEPT = 4 * BATCH
"""Number of the last events that stay in memory for the other views of the journal."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position between two lines of a journal, with the state of the study there."""

    count: int = 0
    """Number of events before it."""
    offset: int = 0
    """Number of bytes before it."""
    state: StudyState = field(default_factory=StudyState)
    """The fold of the events before it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events of a journal."""

    first: int
    """Sequence number of the first event."""
    events: Sequence[Event]
    offsets: Sequence[int]
    """For each event, the offset in bytes of the end of its line."""
    end: Position
    """The position after the last event."""

    def rest(self, position: Position, most: int) -> "Batch":
        """The events after a position within this batch, at most `most` of them."""
        skipped = position.count - self.first
        if skipped == 0 and len(self.events) <= most:
            return self
        events = self.events[skipped : skipped + most]
        offsets = self.offsets[skipped : skipped + most]
        end = self.end  # the same object, so that all views that get there share its state
        if position.count + len(events) < end.count:
            end = Position(position.count + len(events), offsets[-1], fold(events, position.state))
        return Batch(position.count, events, offsets, end)


class Reading:
    """Reads a journal for all its views, so that each event is decoded and folded only once.

    The last events stay in memory. Views whose next event is among them share these events and their state. A view that
    is farther behind, because its tracker is slow or down, reads the file separately until it has caught up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._recent = deque[Batch]()
        self._lock = threading.Lock()
        self._unpacked: bytes | None = None

    def after(self, position: Position, most: int) -> tuple[list[Event], Position]:
        """The next events after a position, and the position after them.

        Args:
            most: maximum number of events. There are none at the end of the journal or at a torn last line.
        Raises:
            JournalError: a line before the last is damaged, out of sequence, or in another format.
        """
        events: list[Event] = []
        with self._lock:
            for batch in self._next(position, most):
                events += batch.events
                position = batch.end
        return events, position

    def last_before(self, count: int) -> Position:
        """The last position in memory with at most `count` events before it; else the beginning of the journal."""
        with self._lock:
            for batch in reversed(self._recent):
                if batch.end.count <= count:
                    return batch.end
            return Position()

    def _next(self, position: Position, most: int) -> Iterator[Batch]:
        """The next events, at most `most`: first from the file, then those in memory, then from the file again."""
        first = self._recent[0].first if self._recent else position.count
        while position.count < first and most:
            batch = self._read(position, min(most, first - position.count))
            if batch is None:
                return
            yield batch
            position = batch.end
            most -= len(batch.events)

        if position.count < self._end:
            for recent in self._recent:
                if recent.first <= position.count < recent.end.count and most:
                    batch = recent.rest(position, most)
                    yield batch
                    position = batch.end
                    most -= len(batch.events)

        if most:
            batch = self._read(position, most)
            if batch is not None:
                self._keep(batch)
                yield batch

    @property
    def _end(self) -> int:
        """Number of events up to the last one in memory."""
        return self._recent[-1].end.count if self._recent else 0

    def _keep(self, batch: Batch) -> None:
        """Keep a batch in memory and drop the oldest ones."""
        if self._end != batch.first:
            self._recent.clear()
        self._recent.append(batch)
        while self._end - self._recent[0].end.count >= KEPT:
            self._recent.popleft()

    def _read(self, position: Position, most: int) -> Batch | None:
        """The next events from the file; None at its end or at a torn last line."""
        path = self._path
        if not path.exists():
            return None
        events: list[Event] = []
        offsets: list[int] = []
        count = position.count
        offset = position.offset
        with self._opened() as file:
            file.seek(offset)
            while len(events) < most:
                line = file.readline()
                if not line.endswith(b"\n"):
                    break  # the end of the file, or a line that is torn or just being written
                try:
                    seq, event = decode(line)
                except UnknownFormatError as exc:
                    raise UnknownJournalError(f"{self._path}: {exc}") from exc
                except ValueError as exc:
                    if file.readline():
                        raise JournalError(f"{path}: line {count + 1} {exc}; restore the file from a copy") from exc
                    break
                if seq != count:
                    raise JournalError(
                        f"{path}: line {count + 1} has sequence number {seq}, expected {count}; restore the file from "
                        "a copy"
                    )
                count += 1
                offset += len(line)
                events.append(event)
                offsets.append(offset)
        if not events:
            return None
        return Batch(position.count, events, offsets, Position(count, offset, fold(events, position.state)))

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The open journal. A published one is unpacked once and kept in memory."""
        if self._path.suffix != ".gz":
            with opened(self._path) as file:
                yield file
            return
        if self._unpacked is None:
            with opened(self._path) as file:
                self._unpacked = file.read()
        yield BytesIO(self._unpacked)


class Tail:
    """Reads a journal step by step while it is being written, and folds the events.

    Args:
        reading: shared with other views of the same journal.
    """

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        self._reading = reading or Reading(path)
        self._position = Position()

    @property
    def state(self) -> StudyState:
        """The state after the events read so far."""
        return self._position.state

    @property
    def count(self) -> int:
        """Number of events read."""
        return self._position.count

    @property
    def offset(self) -> int:
        """Number of bytes read."""
        return self._position.offset

    def read(self, most: int) -> list[Event]:
        """The next events, at most `most`. There are none at the end of the journal or at a torn last line.

        Raises:
            JournalError: as `Reading.after` does.
        """
        events, self._position = self._reading.after(self._position, most)
        return events

    def skip_to(self, count: int) -> None:
        """Move forward to this number of events, or to the end of the journal if it has fewer.

        Raises:
            JournalError: as `read` does.
        """
        position = self._reading.last_before(count)
        if position.count > self.count:
            self._position = position
        while self.count < count and self.read(min(BATCH, count - self.count)):
            pass
