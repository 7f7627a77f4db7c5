"""Stopping a session from outside: by Ctrl-C, SIGTERM, a closed terminal (SIGHUP) or a time limit."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


class Terminated(BaseException):
    """SIGTERM or SIGHUP came while no work was running that a checkpoint could save."""


@dataclass(slots=True)
class StopSignal:
    """The request, from a signal handler or a clock, to end the session at the next event."""

    reason: Literal["interrupted", "terminated", "timeout"] | None = None
    deadline: float | None = None
    """The end of the session's time, in seconds on the monotonic clock."""

    searching: bool = False
    """True while trials run. A signal then waits for a checkpoint; otherwise it ends the process at once."""

    def given(self) -> bool:
        """True if the session should end at the next event."""
        if self.reason is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "timeout"
        return self.reason is not None

    def check(self) -> None:
        """Raise StoppedError if a signal asks the session to end. A time limit has no effect here."""
        if self.reason in ("interrupted", "terminated"):
            raise StoppedError


class StoppedError(Exception):
    """A signal stopped the session during work that can be resumed later."""


@contextmanager
def signals(stop: StopSignal) -> Iterator[None]:
    """Handle stop signals in the block.

    While trials run, SIGTERM, SIGHUP and a first Ctrl-C end the session at the next event. A second Ctrl-C ends it at
    once. SIGHUP comes when an ssh connection drops or a terminal is closed. If it is ignored (nohup), it stays ignored.

    Raises:
        KeyboardInterrupt, Terminated: in the block, if no trial runs.
    """

    def interrupted(number: int, frame: object) -> None:
        if stop.reason == "interrupted" or not stop.searching:
            raise KeyboardInterrupt
        stop.reason = "interrupted"
        print("stopping after a checkpoint; Ctrl-C again to stop at once", file=sys.stderr)

    is_ending = False

    def terminated(number: int, frame: object) -> None:
        nonlocal is_ending
        if is_ending:
            return  # when a terminal closes, SIGHUP comes twice: from the shell and from the kernel
        if not stop.searching:
            is_ending = True
            raise Terminated
        stop.reason = "terminated"

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupted),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminated),
    }
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
