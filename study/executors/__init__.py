"""Where trials run. A slot is told to start, to go on or to suspend; everything else it says is an event."""

from typing import Protocol

from study.events import TrialEvent
from study.trial import TrialTask


class Executor(Protocol):
    """What the coordinator asks of the place where trials run."""

    def free_slots(self) -> list[int]:
        """Numbers of the slots without a trial."""

    def running(self) -> list[int]:
        """Numbers of the trials that hold a slot."""

    def start(self, task: TrialTask) -> None:
        """Run the task on its slot; the slot must be free."""

    def next_event(self) -> TrialEvent | None:
        """The next thing that happened, or None where a slot came free instead.

        The trial that told it waits until it is asked for its next event, so what is decided meanwhile holds.
        """

    def suspend(self, trial: int) -> None:
        """Have the trial write a checkpoint and leave its slot, to be continued."""

    def end(self, trial: int) -> None:
        """Take the trial off its slot as it stands."""

    def close(self) -> None:
        """Give everything back."""
