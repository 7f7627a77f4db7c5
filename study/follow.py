"""Keeping views of the journal up to date: a thread that follows it, and the same in the foreground.

MLflow and Optuna's database are views (contract 3). A view remembers how many of the journal's events it holds;
whoever keeps it reads on from there and hands over the rest. So a tracker that is slow or down delays nothing and
costs no memory, and a view that was deleted is rebuilt by reading from the start.
"""

import fcntl
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from sr_core.errors import SuiteError
from study.config import short_digest
from study.databases import ViewError, redact
from study.events import FORMAT, Event, StudyOpened, to_json
from study.journal import JournalError, decode
from study.state import StudyState

logger = logging.getLogger(__name__)

BATCH = 500
"""Events handed over at once, at most."""
POLL_SECONDS = 5.0
"""How long news may wait when nobody pokes."""
LEAST_REST, MOST_REST = 2.0, 10.0
"""Seconds between two hand-overs: events gather meanwhile, and one hand-over of many costs less than many of one."""
REST_FACTOR = 20.0
"""A rest is this many times the hand-over before it, so that a slow view takes 5 % of a core and no more."""
MOST_BACKOFF, DRAIN_BACKOFF = 60.0, 2.0
"""Seconds between two attempts to reach a tracker that is down, at most: usually, and while somebody waits for it."""


class Sink(Protocol):
    """One view of the journal, in somebody's tool."""

    name: str

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


class Tail:
    """Reads a journal bit by bit while it is being written, and folds as it goes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = StudyState()
        self.count = 0
        """Events read."""
        self.offset = 0
        """Bytes read."""

    def read(self, most: int) -> list[Event]:
        """The next events, none at the end or at a torn tail.

        Raises:
            JournalError: a line before the last is damaged, out of sequence, or of another format.
        """
        found: list[Event] = []
        if not self._path.exists():
            return found
        with self._path.open("rb") as file:
            file.seek(self.offset)
            # A line without its end is torn, or being written this moment.
            while len(found) < most and (line := file.readline()).endswith(b"\n"):
                try:
                    seq, event = decode(line)
                except ValueError as exc:
                    if file.readline():
                        raise JournalError(
                            f"{self._path}: line {self.count + 1} {exc}; restore the file from a copy"
                        ) from exc
                    break
                if seq != self.count:
                    raise JournalError(f"{self._path}: expected event {self.count}, got {seq}; restore it from a copy")
                if isinstance(event, StudyOpened) and event.format != FORMAT:
                    raise JournalError(f"{self._path}: expected journal format {FORMAT}, got {event.format}")
                self.state = self.state.apply(event)
                self.count, self.offset = self.count + 1, self.offset + len(line)
                found.append(event)
        return found


class Keeper:
    """Hands a journal to one sink, batch by batch; no other keeper of the same view runs meanwhile."""

    def __init__(self, journal: Path, sink: Sink) -> None:
        self._journal = journal
        self._sink = sink
        self._tail: Tail | None = None
        self._lock: IO[str] | None = None
        self.offset = 0
        """Bytes of the journal that the view is known to hold."""

    def advance(self) -> int:
        """Hand over the next batch; how many events it had, 0 at the end of the journal.

        After an exception the next call connects anew and goes on from what the view then holds.
        """
        try:
            if self._tail is None and not self._open():
                return 0
            assert self._tail is not None
            events = self._tail.read(BATCH)
            if events:
                self._sink.take(events, self._tail.state, self._tail.count)
            self.offset = self._tail.offset
        except BaseException:
            self.close()
            raise
        return len(events)

    def close(self) -> None:
        """Let go of the view."""
        self._tail = None
        self._sink.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open(self) -> bool:
        """Connect and read up to what the view holds; False where the journal has no event yet."""
        tail = Tail(self._journal)
        if not tail.read(1):
            return False
        assert tail.state.opened is not None
        self._lock = _only_keeper(self._journal.with_name(f".{self._sink.name}.lock"))
        held = self._sink.open(tail.state.opened)
        while tail.count < held and tail.read(min(BATCH, held - tail.count)):
            pass
        # A view that holds more than the journal has saw a tail that a power cut took: everything is shown anew.
        self._tail = tail if tail.count == held else Tail(self._journal)
        return True


def _only_keeper(path: Path) -> IO[str]:
    """A lock that ends with the file or the process."""
    try:
        file = path.open("a")
    except OSError as exc:
        raise ViewError(f"{path}: cannot be written ({exc.strerror}); choose a folder that can") from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise ViewError(f"{path}: another process keeps this view up to date; leave it to that one") from exc
    return file


@contextmanager
def _keeping(journal: Path, sink: Sink) -> Iterator[Keeper]:
    keeper = Keeper(journal, sink)
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
    with _keeping(journal, sink) as keeper:
        while count := keeper.advance():
            total += count
            if report:
                report(total)
    return total


class Follower(threading.Thread):
    """Keeps one view up to date beside the training; whatever its tracker does, nothing is raised there."""

    def __init__(self, journal: Path, sink: Sink) -> None:
        super().__init__(name=f"follow-{sink.name}", daemon=True)
        self._journal = journal
        self._sink = sink
        self._signal = threading.Condition()
        self._news = self._stopping = False
        self._asked = self._answered = 0
        """Drains begun, and the last of them that found everything handed over."""
        self._offset = 0
        self._failures = 0
        self.busy_seconds = 0.0
        """Time spent reading and handing over so far."""

    def poke(self) -> None:
        """Say that the journal has news. Cheap; they are handed over within seconds."""
        with self._signal:
            self._news = True
            self._signal.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until the view holds all that the journal holds now; False if it took longer than that many seconds."""
        with self._signal:
            self._asked += 1
            mine = self._asked
            self._signal.notify_all()
            return self._signal.wait_for(lambda: self._answered >= mine, timeout)

    @property
    def failing(self) -> bool:
        """Whether the last attempt to reach the tracker failed."""
        return self._failures > 0

    def lag(self) -> int:
        """Events that the journal has and the view, as far as known, has not."""
        try:
            with self._journal.open("rb") as file:
                file.seek(self._offset)
                return sum(line.endswith(b"\n") for line in file)
        except FileNotFoundError:
            return 0

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread, whatever is still to be handed over; waits at most that many seconds for it."""
        with self._signal:
            self._stopping = True
            self._signal.notify_all()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        with _keeping(self._journal, self._sink) as keeper:
            while not self._stopping:
                with self._signal:
                    seen, self._news = self._asked, False
                began = time.perf_counter()
                try:
                    count = keeper.advance()
                except Exception as exc:  # whatever a tracker, its driver or its network raises is not the study's
                    self._report_failure(exc)
                    rest, idle = min(2.0 ** (self._failures - 1), MOST_BACKOFF), False
                else:
                    self._report_success()
                    self._offset = keeper.offset
                    idle = count == 0
                    rest = POLL_SECONDS if idle else self._rest(count, time.perf_counter() - began)
                self.busy_seconds += time.perf_counter() - began
                self._wait(seen, rest, idle)

    def _rest(self, count: int, took: float) -> float:
        """Seconds to let events gather after a hand-over; none while there is a backlog."""
        return 0.0 if count == BATCH else min(max(REST_FACTOR * took, LEAST_REST), MOST_REST)

    def _wait(self, seen: int, seconds: float, idle: bool) -> None:
        """Wait for the next thing to do: a drain or the end at any time, news only when idle."""
        with self._signal:
            if idle and self._answered < seen:
                self._answered = seen
                self._signal.notify_all()
            elif self._answered < seen:
                seconds = min(seconds, DRAIN_BACKOFF) if self._failures else 0.0
            self._signal.wait_for(lambda: self._stopping or self._asked > seen or (idle and self._news), seconds)

    def _report_failure(self, exc: Exception) -> None:
        """Warn of the first of a row of failures."""
        if not self._failures:
            what = str(exc).partition("\n")[0][:300]
            if not isinstance(exc, SuiteError):  # perhaps our mistake; a whole traceback might tell passwords
                place = traceback.extract_tb(exc.__traceback__)[-1]
                what = f"{type(exc).__name__}: {what}, {place.filename}:{place.lineno}"
            message = "%s: cannot write (%s); the journal keeps all of it, trying again"
            logger.warning(message, self._sink.name, redact(what))
        self._failures += 1

    def _report_success(self) -> None:
        if self._failures:
            logger.warning("%s: writing again, after %d failed attempts", self._sink.name, self._failures)
        self._failures = 0
