"""The live view shows a running study full-screen, drawn by a thread, and restores the terminal afterwards.

The study's loop only hands over events and states, which takes microseconds. States are immutable, so the thread can
draw the latest one at any time. The view uses the terminal's alternate screen, so that resizing leaves no fragments.
Text printed meanwhile appears as messages, and is printed to the normal screen at the end. If drawing fails, the view
restores the terminal and continues with plain lines.
"""

import atexit
import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live

from sr_core.process.stopping import StopSignal
from study.record.events import Event, Failed, TrialEvent, Warned, WorkerLost
from study.record.state import StudyState
from study.screen.background_importance import BackgroundImportance
from study.screen.live_table import ScreenState, stamped
from study.screen.terminal import PlainView, View, describe_event, is_screen
from study.statistics.pace import Lap, follow

_REDRAW_SECONDS = 0.5
_REST_FACTOR = 20.0
"""The thread rests this many times as long as it draws, so that a large study's view uses at most 5% of a core."""
_MAX_MESSAGES = 1_000
"""Number of messages kept for the end. The journal records all events of the study."""
_STOP_REASONS = {
    "interrupted": "Ctrl-C again to stop at once",
    "terminated": "SIGTERM",
    "timeout": "time limit reached",
}


class TrackedView(Protocol):
    """A tracker that writes a view of the study, such as MLflow's or Optuna's (study.tracking.follower)."""

    @property
    def view(self) -> str:
        """The name of the view."""

    @property
    def failing(self) -> bool:
        """True while the view cannot be written."""


def make_view(
    out: Console,
    asked: int,
    *,
    slots: int,
    stop: StopSignal,
    views: Sequence[TrackedView] = (),
    importance: Callable[[], BackgroundImportance] | None = None,
) -> View:
    """Return a live view if the output is a terminal, otherwise a view that prints plain lines.

    Args:
        asked: number of trials that the user asked for.
    """
    if not is_screen(out):
        return PlainView(out, asked)
    return LiveView(out, asked, slots=slots, stop=stop, views=views, importance=importance() if importance else None)


class LiveView:
    """Shows a study full-screen on a terminal, from its creation until it is closed."""

    def __init__(
        self,
        out: Console,
        asked: int,
        *,
        slots: int,
        stop: StopSignal,
        views: Sequence[TrackedView] = (),
        importance: BackgroundImportance | None = None,
    ) -> None:
        self._out = out
        self._asked = asked
        self._slots = slots
        self._stop = stop
        self._views = views
        self._importance = importance

        self._state = StudyState()
        self._laps: Mapping[int, Lap] = {}
        self._last_heard: Mapping[int, float] = {}
        self._doing = ""
        self._messages: deque[tuple[float, str, TextIO]] = deque(maxlen=_MAX_MESSAGES)

        self._live = Live(console=out, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._streams = sys.stdout, sys.stderr
        out.file = out.file  # keep the real stream: the replacement below would capture the view's own drawing
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="live-view", daemon=True)
        self._drawing = threading.Lock()
        self._stopped = False
        self._plain: PlainView | None = None
        """Takes over if the screen cannot be drawn."""

        self._previous_handler = signal.getsignal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        atexit.register(self._restore)  # in case a signal interrupts the end of the session
        self._live.start()
        sys.stdout, sys.stderr = (_Caught(stream, self._messages) for stream in self._streams)
        self._thread.start()

    def observe(self, event: Event, state: StudyState) -> None:
        if self._plain is not None:
            with suppress(OSError):  # the terminal may be gone
                self._plain.observe(event, state)
            return
        if isinstance(event, Failed | Warned | WorkerLost):
            self._messages.append((event.time, describe_event(event, state), self._streams[0]))
        self._laps = follow(self._laps, event)
        if isinstance(event, TrialEvent):
            last_heard = {number: self._last_heard.get(number, event.time) for number in self._laps}
            if event.trial in self._laps:
                last_heard[event.trial] = time.time()
            self._last_heard = last_heard
        self._state = state

    def doing(self, what: str) -> None:
        """Show what the study does from now on instead of training."""
        self._doing = what
        if self._plain is not None:
            with suppress(OSError):
                self._plain.doing(what)

    def close(self) -> None:
        """Restore the terminal, and print the messages that arrived meanwhile."""
        if self._closing.is_set():
            return
        self._closing.set()
        sys.stdout, sys.stderr = self._streams
        self._thread.join(timeout=5.0)
        if self._importance is not None:
            self._importance.close()
        signal.signal(signal.SIGTSTP, self._previous_handler)
        self._leave()

    def _leave(self) -> None:
        """Restore the terminal and print the messages that were not yet printed."""
        sys.stdout, sys.stderr = self._streams
        if self._live.is_started:
            self._live.stop()
            self._restore()
            atexit.unregister(self._restore)
        while self._messages:
            moment, text, stream = self._messages.popleft()
            print(stamped(moment, text), file=stream)

    def _restore(self) -> None:
        self._out.set_alt_screen(False)
        self._out.show_cursor(True)

    def _suspend(self, number: int, frame: object) -> None:
        """Handle Ctrl-Z: restore the shell's screen, stop the process, and show the view again when it continues.

        No other code of the main thread may hold the lock `_drawing`, or this handler would wait for it forever.
        """
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a second Ctrl-Z in this handler would wait for the same lock
        with self._drawing:
            self._stopped = True
            if self._plain is None:
                self._restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        with self._drawing:
            if self._plain is None:
                self._out.set_alt_screen(True)
                self._out.show_cursor(False)
            self._stopped = False
        signal.signal(signal.SIGTSTP, self._suspend)

    def _draw(self) -> None:
        try:
            self._draw_until_closed()
        except Exception as exc:  # any error: a broken view must not hide what the study reports
            self._give_up(f"{type(exc).__name__}: {exc}")

    def _give_up(self, why: str) -> None:
        """Restore the terminal and continue with plain lines."""
        text = f"the live view failed ({' '.join(why.split())}); continuing with plain lines"
        self._messages.append((time.time(), text, self._streams[1]))
        with self._drawing:
            with suppress(OSError, ValueError):  # the terminal may be gone
                self._leave()
            self._plain = PlainView(self._out, self._asked, self._state.counted)

    def _draw_until_closed(self) -> None:
        rest = 0.0
        while not self._closing.wait(rest):
            if self._state.opened is None:
                rest = _REDRAW_SECONDS
                continue
            begun = time.perf_counter()
            content = self._content()
            with self._drawing:
                if not self._stopped:
                    self._live.update(content, refresh=True)
            rest = max(_REDRAW_SECONDS, _REST_FACTOR * (time.perf_counter() - begun))

    def _content(self) -> ScreenState:
        state = self._state
        stop = self._stop
        now = time.time()
        doing = self._doing
        if stop.reason is not None and not doing:
            doing = f"stopping after a checkpoint ({_STOP_REASONS[stop.reason]})"
        failing = [view.view for view in self._views if view.failing]

        return ScreenState(
            state=state,
            asked=self._asked,
            slots=self._slots,
            laps=self._laps,
            last_heard=self._last_heard,
            doing=doing,
            deadline=None if stop.deadline is None else now + stop.deadline - time.monotonic(),
            importance=() if doing else self._importances(state),
            problems=[f"{name}: cannot be written at the moment, retrying" for name in failing],
            messages=[stamped(moment, text) for moment, text, _ in self._messages.copy()],
            now=now,
        )

    def _importances(self, state: StudyState) -> Sequence[str]:
        """Return the importances in words. If they fail, the view continues without them."""
        if self._importance is None:
            return ()
        try:
            return self._importance.sentences(state)
        except Exception as exc:
            why = " ".join(f"{type(exc).__name__}: {exc}".split())
            self._messages.append((time.time(), f"importances are no longer shown ({why})", self._streams[1]))
            failed = self._importance
            self._importance = None
            failed.close()
            return ()


class _Caught(io.TextIOBase):
    """Replaces a standard stream while the live view is shown, and turns each whole line into a message."""

    def __init__(self, stream: TextIO, messages: deque[tuple[float, str, TextIO]]) -> None:
        self._stream = stream
        self._messages = messages
        self._incomplete_line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        *lines, self._incomplete_line = (self._incomplete_line + text).split("\n")
        self._messages.extend((time.time(), line, self._stream) for line in lines if line.strip())
        return len(text)

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True
