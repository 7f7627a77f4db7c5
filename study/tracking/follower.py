"""A thread that keeps one view up to date during the training. Errors of the tracker never reach the study."""

import logging
import threading
import time
import traceback
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.redaction import redact
from study.record.events import Event, Ticked
from study.record.standing import Standing, standing_of
from study.record.state import StudyState
from study.record.tail import BATCH, Reading
from study.tracking.follow import Sink, keeping

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""How long new events may wait without a call of `poke`."""
MIN_REST_SECONDS = 2.0
"""Shortest time between two hand-overs. One hand-over of many events costs less than many of one event."""
MAX_REST_SECONDS = 10.0
"""Longest time between two hand-overs."""
REST_FACTOR = 20.0
"""A rest is this many times the hand-over before it, so that a slow view takes at most 5 % of a core."""
MAX_BACKOFF_SECONDS = 60.0
"""Longest time between two attempts to reach a tracker that is down."""
DRAIN_BACKOFF_SECONDS = 2.0
"""The same while a call of `drain` waits."""


class Follower(threading.Thread):
    """Follows a journal for one sink, whose store it creates first. The journal need not exist yet.

    Args:
        reading: the journal's reading, if followers for other sinks share it.
    """

    def __init__(self, journal: Path, sink: Sink, reading: Reading | None = None) -> None:
        super().__init__(name=f"follow-{sink.name}", daemon=True)
        self._journal = journal
        self._reading = reading
        self._sink = sink
        self._prepared = threading.Event()
        self._signal = threading.Condition()
        self._news = False
        self._idle = False
        self._stopping = False
        self._drains_requested = 0
        self._drains_done = 0
        """The last requested drain after which everything was handed over."""
        self._offset = 0
        self._failures = 0
        self._error = ""
        before = standing_of(journal, sink.name)
        self._events = before.events if before else 0
        self._busy = 0.0
        self._cpu = 0.0
        self._waited = 0.0

    @property
    def view(self) -> str:
        """The view's name for people."""
        return self._sink.name

    @property
    def standing(self) -> Standing:
        """How many events the view holds, and what writing it has cost."""
        return Standing(
            time=time.time(),
            events=self._events,
            busy_seconds=self._busy,
            cpu_seconds=self._cpu,
            waited_seconds=self._waited,
            error=self._error,
        )

    def wait_prepared(self, timeout: float) -> bool:
        """Waits until the view's store was created, or failed to be. Returns False after `timeout` seconds."""
        return self._prepared.wait(timeout)

    def observe(self, event: Event, state: StudyState) -> None:
        """Called by the study's loop after each event. Ticks are ignored, because the journal does not hold them."""
        if not isinstance(event, Ticked):
            self.poke()

    def poke(self) -> None:
        """Says that the journal has new events. The call is cheap, and the events are handed over within seconds."""
        began = time.perf_counter()
        self._news = True
        if self._idle:  # a busy thread looks at `_news` before it rests, so it seldom has to be woken
            with self._signal:
                self._signal.notify_all()
        self._waited += time.perf_counter() - began  # the study's loop waits for a view here only

    def drain(self, timeout: float) -> bool:
        """Waits until the view holds all that the journal holds now. Returns False after `timeout` seconds."""
        with self._signal:
            self._drains_requested += 1
            this_drain = self._drains_requested
            self._signal.notify_all()
            return self._signal.wait_for(lambda: self._drains_done >= this_drain, timeout)

    @property
    def failing(self) -> bool:
        """True if the last attempt to reach the tracker failed."""
        return self._failures > 0

    def lag(self) -> int:
        """Returns how many events of the journal the view is not known to hold."""
        try:
            with self._journal.open("rb") as file:
                file.seek(self._offset)
                return sum(line.endswith(b"\n") for line in file)
        except FileNotFoundError:
            return 0

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the thread, even if events are left to hand over. Waits at most `timeout` seconds."""
        with self._signal:
            self._stopping = True
            self._signal.notify_all()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        with keeping(self._journal, self._sink, self._reading) as keeper:
            while not self._stopping:
                began = time.perf_counter()
                cpu_began = time.thread_time()
                with self._signal:
                    drains_before = self._drains_requested
                    self._news = False
                count = 0
                try:
                    if not self._prepared.is_set():
                        self._sink.prepare()
                    began = time.perf_counter()  # creating the store is not part of recording
                    cpu_began = time.thread_time()
                    count = keeper.advance()
                except Exception as exc:  # a tracker, its driver and its network may raise anything
                    self._report_failure(exc)
                    idle = False
                    rest = min(2.0 ** (self._failures - 1), MAX_BACKOFF_SECONDS)
                else:
                    self._report_success()
                    self._offset = keeper.offset
                    self._events = keeper.count
                    idle = count == 0
                    rest = POLL_SECONDS if idle else self._rest(count, time.perf_counter() - began)

                self._prepared.set()
                self._busy += time.perf_counter() - began
                self._cpu += time.thread_time() - cpu_began
                if count or self._failures:
                    self._save()
                self._wait(drains_before, rest, idle)
            self._save()

    def _save(self) -> None:
        if self._journal.exists():  # without a journal there is no study yet, and perhaps there never will be
            self.standing.save(self._journal, self._sink.name, self._sink.where)

    def _rest(self, count: int, seconds: float) -> float:
        """Returns how many seconds to let events gather after a hand-over that took `seconds`; 0 during a backlog."""
        if count == BATCH:
            return 0.0
        return min(max(REST_FACTOR * seconds, MIN_REST_SECONDS), MAX_REST_SECONDS)

    def _wait(self, drains_before: int, seconds: float, idle: bool) -> None:
        """Waits at most `seconds` for the next thing to do. New events end the wait only if the thread is idle.

        Args:
            drains_before: how many drains were requested before the last hand-over.
        """
        with self._signal:
            if idle and self._drains_done < drains_before:
                self._drains_done = drains_before
                self._signal.notify_all()
            elif self._drains_done < drains_before:
                seconds = min(seconds, DRAIN_BACKOFF_SECONDS) if self._failures else 0.0
            self._idle = idle
            self._signal.wait_for(
                lambda: self._stopping or self._drains_requested > drains_before or (idle and self._news), seconds
            )
            self._idle = False

    def _report_failure(self, exc: Exception) -> None:
        """Warns of a failure if the attempt before it succeeded."""
        reason = str(exc).partition("\n")[0][:300]
        if not isinstance(exc, SuiteError):  # may be our own mistake; a whole traceback could contain passwords
            place = traceback.extract_tb(exc.__traceback__)[-1]
            reason = f"{type(exc).__name__}: {reason}, {place.filename}:{place.lineno}"
        self._error = redact(reason)
        if not self._failures:
            message = "%s: cannot write (%s); retrying, and the journal keeps everything meanwhile"
            logger.warning(message, self._sink.name, self._error)
        self._failures += 1

    def _report_success(self) -> None:
        if self._failures:
            logger.warning("%s: writing again after %d failed attempts", self._sink.name, self._failures)
        self._failures = 0
        self._error = ""
