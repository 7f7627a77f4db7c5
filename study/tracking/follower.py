"""A thread that keeps one view up to date beside the training; whatever its tracker does, nothing is raised there."""

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
"""How long news may wait when nobody pokes."""
MIN_REST_SECONDS, MAX_REST_SECONDS = 2.0, 10.0
"""Seconds between two hand-overs: events gather meanwhile, and one hand-over of many costs less than many of one."""
REST_FACTOR = 20.0
"""A rest is this many times the hand-over before it, so that a slow view takes 5 % of a core and no more."""
MAX_BACKOFF_SECONDS, DRAIN_BACKOFF_SECONDS = 60.0, 2.0
"""Seconds between two attempts to reach a tracker that is down, at most: usually, and while somebody waits for it."""


class Follower(threading.Thread):
    """Follows a journal, which need not be there yet, for one sink, whose store it creates first.

    Args:
        reading: of the journal, shared with the followers for other sinks.
    """

    def __init__(self, journal: Path, sink: Sink, reading: Reading | None = None) -> None:
        super().__init__(name=f"follow-{sink.name}", daemon=True)
        self._journal = journal
        self._reading = reading
        self._sink = sink
        self._prepared = threading.Event()
        self._signal = threading.Condition()
        self._news = self._idle = self._stopping = False
        self._asked = self._answered = 0
        """Drains begun, and the last of them that found everything handed over."""
        self._offset = 0
        self._failures = 0
        self._error = ""
        before = standing_of(journal, sink.name)
        self._events = before.events if before else 0
        self._busy = self._cpu = self._waited = 0.0

    @property
    def view(self) -> str:
        """What people call it."""
        return self._sink.name

    @property
    def standing(self) -> Standing:
        """How far the view is, and what it has cost."""
        return Standing(
            time=time.time(),
            events=self._events,
            busy_seconds=self._busy,
            cpu_seconds=self._cpu,
            waited_seconds=self._waited,
            error=self._error,
        )

    def wait_prepared(self, timeout: float) -> bool:
        """Wait until the view's store was made, or could not be; False if it took longer than that many seconds."""
        return self._prepared.wait(timeout)

    def observe(self, event: Event, state: StudyState) -> None:
        """Of the study's loop: there is news, unless it is a tick, for those are not in the journal."""
        if not isinstance(event, Ticked):
            self.poke()

    def poke(self) -> None:
        """Say that the journal has news. Cheap; they are handed over within seconds."""
        began = time.perf_counter()
        self._news = True
        if self._idle:  # else it looks at the news before it is; so most of the time nobody has to be woken
            with self._signal:
                self._signal.notify_all()
        self._waited += time.perf_counter() - began  # all that the study's loop ever waits for a view

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
        with keeping(self._journal, self._sink, self._reading) as keeper:
            while not self._stopping:
                began, cpu = time.perf_counter(), time.thread_time()
                with self._signal:
                    seen, self._news = self._asked, False
                count = 0
                try:
                    if not self._prepared.is_set():
                        self._sink.prepare()
                    began, cpu = time.perf_counter(), time.thread_time()  # making the store is no part of recording
                    count = keeper.advance()
                except Exception as exc:  # whatever a tracker, its driver or its network raises is not the study's
                    self._report_failure(exc)
                    rest, idle = min(2.0 ** (self._failures - 1), MAX_BACKOFF_SECONDS), False
                else:
                    self._report_success()
                    self._offset, self._events = keeper.offset, keeper.count
                    idle = count == 0
                    rest = POLL_SECONDS if idle else self._rest(count, time.perf_counter() - began)
                self._prepared.set()
                self._busy += time.perf_counter() - began
                self._cpu += time.thread_time() - cpu
                if count or self._failures:
                    self._save()
                self._wait(seen, rest, idle)
            self._save()

    def _save(self) -> None:
        if self._journal.exists():  # else there is no study yet, and perhaps there never will be
            self.standing.save(self._journal, self._sink.name, self._sink.where)

    def _rest(self, count: int, took: float) -> float:
        """Seconds to let events gather after a hand-over; none while there is a backlog."""
        return 0.0 if count == BATCH else min(max(REST_FACTOR * took, MIN_REST_SECONDS), MAX_REST_SECONDS)

    def _wait(self, seen: int, seconds: float, idle: bool) -> None:
        """Wait for the next thing to do: a drain or the end at any time, news only when idle."""
        with self._signal:
            if idle and self._answered < seen:
                self._answered = seen
                self._signal.notify_all()
            elif self._answered < seen:
                seconds = min(seconds, DRAIN_BACKOFF_SECONDS) if self._failures else 0.0
            self._idle = idle
            self._signal.wait_for(lambda: self._stopping or self._asked > seen or (idle and self._news), seconds)
            self._idle = False

    def _report_failure(self, exc: Exception) -> None:
        """Warn of the first of a row of failures."""
        what = str(exc).partition("\n")[0][:300]
        if not isinstance(exc, SuiteError):  # perhaps our mistake; a whole traceback might tell passwords
            place = traceback.extract_tb(exc.__traceback__)[-1]
            what = f"{type(exc).__name__}: {what}, {place.filename}:{place.lineno}"
        self._error = redact(what)
        if not self._failures:
            message = "%s: cannot write (%s); the journal keeps all of it, trying again"
            logger.warning(message, self._sink.name, self._error)
        self._failures += 1

    def _report_success(self) -> None:
        if self._failures:
            logger.warning("%s: writing again, after %d failed attempts", self._sink.name, self._failures)
        self._failures, self._error = 0, ""
