"""Where trials run. A slot is told to start, to go on or to suspend; everything else it says is an event."""

from typing import Protocol

from study.executors.trial import TrialTask
from study.record.events import TrialEvent


class Executor(Protocol):
    """What the coordinator asks of the place where trials run."""

    def free_slots(self) -> list[int]:
        """Numbers of the slots without a trial."""

    def running(self) -> list[int]:
        """Numbers of the trials that hold a slot."""

    def start(self, task: TrialTask) -> None:
        """Run the task on its slot; the slot must be free."""

    def next_event(self) -> TrialEvent | None:
        """The next thing that happened; None where there is something else to do, such as to fill a slot.

        The trial that told a validation or an ending waits until the next event is asked for, so what is decided
        meanwhile holds.
        """

    def suspend(self, trial: int) -> None:
        """Have the trial write a checkpoint and leave its slot, to be continued."""

    def end(self, trial: int) -> None:
        """Take the trial off its slot as it stands."""

    def close(self) -> None:
        """Give everything back."""
