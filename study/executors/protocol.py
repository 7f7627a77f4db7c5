"""The interface of every executor: the coordinator starts, suspends or ends trials and receives events."""

from typing import Protocol

from study.executors.trial import TrialTask
from study.record.events import TrialEvent


class Executor(Protocol):
    """Runs trials in numbered slots."""

    def free_slots(self) -> list[int]:
        """Return the numbers of the slots without a trial."""

    def running(self) -> list[int]:
        """Return the numbers of the trials that hold a slot."""

    def start(self, task: TrialTask) -> None:
        """Start a trial on the slot that its task names. The slot must be free."""

    def next_event(self) -> TrialEvent | None:
        """Return the next event of any trial; None if the coordinator may have other work, such as a free slot.

        After every event but a tick, the trial waits until the next call. A decision made before that call therefore
        applies before the trial trains further.
        """

    def suspend(self, trial: int) -> None:
        """Make the trial write a checkpoint and leave its slot. It can be resumed later."""

    def end(self, trial: int) -> None:
        """Take the trial off its slot at once, without a checkpoint."""

    def close(self) -> None:
        """End all workers and release their resources."""
