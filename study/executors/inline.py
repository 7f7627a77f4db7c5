"""An executor with one slot, a thread of this process."""

from collections.abc import Generator

from sr_core.training.own_thread import OwnThread
from study.executors.trial import Command, TrialContext, TrialTask, run_trial
from study.record.events import TrialEvent


class InlineExecutor:
    """Runs one trial at a time, and advances it to its next event on each call of `next_event`.

    The trial runs in a thread of its own, because the caller's thread does not flush subnormal numbers to zero.
    """

    def __init__(self, context: TrialContext) -> None:
        self._thread = OwnThread(context.runtime.apply)
        self._context = context
        self._running: Generator[TrialEvent, Command, None] | None = None
        self._trial = -1
        self._command: Command | None = None

    def free_slots(self) -> list[int]:
        return [] if self._running else [0]

    def running(self) -> list[int]:
        return [self._trial] if self._running else []

    def start(self, task: TrialTask) -> None:
        assert self._running is None
        self._trial = task.number
        self._running = run_trial(task, self._context)
        self._command = None  # a generator's first send takes nothing

    def next_event(self) -> TrialEvent | None:
        if self._running is None:
            return None
        event = self._thread(self._advance, self._running)
        if event is None:
            self._running = None
        self._command = Command.CONTINUE
        return event

    def _advance(self, trial: Generator[TrialEvent, Command, None]) -> TrialEvent | None:
        """Return the trial's next event, or None after its last one."""
        try:
            return next(trial) if self._command is None else trial.send(self._command)
        except StopIteration:
            return None

    def suspend(self, trial: int) -> None:
        if self._command is not None:
            self._command = Command.SUSPEND

    def end(self, trial: int) -> None:
        if self._running is not None and not self._thread.ended:  # an interruption ends both
            self._thread(self._running.close)
        self._running = None

    def close(self) -> None:
        self.end(self._trial)
        self._thread.close()
