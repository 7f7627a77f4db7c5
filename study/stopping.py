"""Ending a session from outside: by Ctrl-C, SIGTERM or a time limit."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal


class Terminated(BaseException):
    """SIGTERM while nothing was running that a checkpoint could keep."""


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


@contextmanager
def signals(stop: StopSignal) -> Iterator[None]:
    """While trials run, SIGTERM and a first Ctrl-C end the session at the next event, a second Ctrl-C at once.

    Raises:
        KeyboardInterrupt, Terminated: in the block, where there is nothing to wait for.
    """

    def interrupted(number: int, frame: object) -> None:
        if stop.reason == "interrupted" or not stop.searching:
            raise KeyboardInterrupt
        stop.reason = "interrupted"
        print("stopping after a checkpoint; Ctrl-C again to stop at once", file=sys.stderr)

    def terminated(number: int, frame: object) -> None:
        if not stop.searching:
            raise Terminated
        stop.reason = "terminated"

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, interrupted),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminated),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
