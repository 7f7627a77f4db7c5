"""The live view: a screen of its own while a study runs, drawn by a thread; the terminal is left as it was found.

The study's loop only hands over what happened, in microseconds: states are immutable, so the thread draws from the
last one whenever it likes. The screen is the terminal's alternate one, so that a resize leaves no fragments and nothing
has to be erased; what others print meanwhile is shown as messages and printed for good at the end. Where it cannot be
drawn the screen is given back, and plain lines follow.
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
"""A rest is this many times the drawing before it, so that a large study's view takes 5 % of a core and no more."""
_MESSAGES = 1_000
"""That are kept; the journal has all that is the study's."""
_STOPPING = {"interrupted": "Ctrl-C again to stop at once", "terminated": "SIGTERM", "timeout": "the time is up"}


class TrackedView(Protocol):
    """Who keeps a view of the study up to date (study.tracking.follower)."""

    @property
    def view(self) -> str: ...

    @property
    def failing(self) -> bool: ...


def make_view(
    out: Console,
    asked: int,
    *,
    slots: int,
    stop: StopSignal,
    views: Sequence[TrackedView] = (),
    importance: Callable[[], BackgroundImportance] | None = None,
) -> View:
    """The view that fits where the output goes: a screen, or plain lines."""
    if not is_screen(out):
        return PlainView(out, asked)
    return LiveView(out, asked, slots=slots, stop=stop, views=views, importance=importance() if importance else None)


class LiveView:
    """Shows a study on a terminal, from the first event on until it is closed."""

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
        self._out, self._asked, self._slots, self._stop = out, asked, slots, stop
        self._views, self._importance = views, importance
        self._state = StudyState()
        self._laps: Mapping[int, Lap] = {}
        self._heard: Mapping[int, float] = {}
        self._doing = ""
        self._messages: deque[tuple[float, str, TextIO]] = deque(maxlen=_MESSAGES)
        self._live = Live(console=out, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._streams = sys.stdout, sys.stderr
        out.file = out.file  # the stream of now: what stands in for it below would catch the screen's own drawing
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="live-view", daemon=True)
        self._drawing, self._stopped = threading.Lock(), False
        self._plain: PlainView | None = None
        """Takes over where the screen cannot be drawn."""
        self._before = signal.getsignal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        atexit.register(self._restore)  # also where a signal comes in the middle of the ending
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
            self._heard = {number: self._heard.get(number, event.time) for number in self._laps}
            if event.trial in self._laps:
                self._heard = {**self._heard, event.trial: time.time()}
        self._state = state

    def doing(self, what: str) -> None:
        """What the study does from now on that is no training."""
        self._doing = what
        if self._plain is not None:
            with suppress(OSError):
                self._plain.doing(what)

    def close(self) -> None:
        """Leave the terminal as it was, and print there what was said meanwhile."""
        if self._closing.is_set():
            return
        self._closing.set()
        sys.stdout, sys.stderr = self._streams
        self._thread.join(timeout=5.0)
        if self._importance is not None:
            self._importance.close()
        signal.signal(signal.SIGTSTP, self._before)
        self._leave()

    def _leave(self) -> None:
        """The terminal as it was, and on it what was said meanwhile; a second time only what was said since."""
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
        """Ctrl-Z: the shell gets its screen back, and the view its own once the process goes on.

        Nothing else that this thread does may hold the lock, or the handler would wait for itself.
        """
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a second one in here would do just that
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
        except Exception as exc:  # whatever it is, it must not hide what is said from now on
            self._give_up(f"{type(exc).__name__}: {exc}")

    def _give_up(self, why: str) -> None:
        """Go on in plain lines."""
        reason = f"the screen of this study cannot be drawn ({' '.join(why.split())}); plain lines from here on"
        self._messages.append((time.time(), reason, self._streams[1]))
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
            shown = self._shown()
            with self._drawing:
                if not self._stopped:
                    self._live.update(shown, refresh=True)
            rest = max(_REDRAW_SECONDS, _REST_FACTOR * (time.perf_counter() - begun))

    def _shown(self) -> ScreenState:
        state, now, stop = self._state, time.time(), self._stop
        doing = self._doing
        if stop.reason is not None and not doing:
            doing = f"stopping after a checkpoint ({_STOPPING[stop.reason]})"
        return ScreenState(
            state=state,
            asked=self._asked,
            slots=self._slots,
            laps=self._laps,
            heard=self._heard,
            doing=doing,
            deadline=None if stop.deadline is None else now + stop.deadline - time.monotonic(),
            importance=() if doing else self._importances(state),
            troubles=[f"{view.view}: cannot be written just now, trying again" for view in self._views if view.failing],
            messages=[stamped(moment, text) for moment, text, _ in self._messages.copy()],
            now=now,
        )

    def _importances(self, state: StudyState) -> Sequence[str]:
        """In words; where they fail they are shown no more, and all else is."""
        if self._importance is None:
            return ()
        try:
            return self._importance.sentences(state)
        except Exception as exc:
            why = " ".join(f"{type(exc).__name__}: {exc}".split())
            self._messages.append((time.time(), f"importances are shown no more ({why})", self._streams[1]))
            beside, self._importance = self._importance, None
            beside.close()
            return ()


class _Caught(io.TextIOBase):
    """Stands in for a stream while the screen is the view's: whole lines become messages."""

    def __init__(self, stream: TextIO, messages: deque[tuple[float, str, TextIO]]) -> None:
        self._stream, self._messages, self._begun = stream, messages, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        self._messages.extend((time.time(), line, self._stream) for line in lines if line.strip())
        return len(text)

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True
