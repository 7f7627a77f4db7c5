"""One slot: this process."""

from collections.abc import Generator

from study.events import TrialEvent
from study.trial import Bench, Command, TrialTask, run_trial


class InlineExecutor:
    """Runs one trial at a time in the caller's thread, a step for each event that is asked for."""

    def __init__(self, bench: Bench) -> None:
        bench.runtime.apply()
        self._bench = bench
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
        self._running = run_trial(task, self._bench)
        self._command = None  # a generator's first send takes nothing

    def next_event(self) -> TrialEvent | None:
        if self._running is None:
            return None
        try:
            if self._command is None:
                event = next(self._running)
            else:
                event = self._running.send(self._command)
        except StopIteration:
            self._running = None
            return None
        self._command = Command.GO_ON
        return event

    def suspend(self, trial: int) -> None:
        if self._command is not None:
            self._command = Command.SUSPEND

    def end(self, trial: int) -> None:
        self.close()

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None
