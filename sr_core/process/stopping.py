"""Ending a session from outside: by Ctrl-C, SIGTERM, a terminal that is closed (SIGHUP), or a time limit."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


class Terminated(BaseException):
    """SIGTERM or SIGHUP while nothing was running that a checkpoint could keep."""


@dataclass(slots=True)
class StopSignal:
    """Set from outside, by a signal handler or a clock, to end the session at the next event."""

    reason: Literal["interrupted", "terminated", "timeout"] | None = None
    deadline: float | None = None
    """On the monotonic clock, in seconds."""

    searching: bool = False
    """Whether trials run: then a signal waits for a checkpoint, before it ends the process at once."""

    def given(self) -> bool:
        if self.reason is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = "timeout"
        return self.reason is not None

    def check(self) -> None:
        """Raises StoppedError if a signal asks the session to end; the end of its time does not count here."""
        if self.reason in ("interrupted", "terminated"):
            raise StoppedError


class StoppedError(Exception):
    """A signal asked for the end of the session during work that can be continued later."""


@contextmanager
def signals(stop: StopSignal) -> Iterator[None]:
    """While trials run, SIGTERM, SIGHUP and a first Ctrl-C end the session at the next event, a second Ctrl-C at once.

    SIGHUP comes when an ssh connection drops or a terminal is closed. If it was ignored, as by nohup, it stays ignored.

    Raises:
        KeyboardInterrupt, Terminated: in the block, where there is nothing to wait for.
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
            return  # a terminal that closes sends SIGHUP twice: the shell does and the kernel does
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
