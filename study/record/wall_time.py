"""Where the wall time of a session went: counted at the places, of every trial from what the journal says."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from study.record.events import Finished
from study.record.state import StudyState, TrialState

_PARTS = {
    "steps": "training steps",
    "validations": "validations",
    "start-up": "start-up",
    "recording": "recording",
    "conclusion": "conclusion",
    "idle": "idle",
}
_MEANING = {
    "start-up": "imports, images, first weights",
    "recording": "journal, checkpoints, views at the end",
    "conclusion": "the winner on whole images, results",
    "idle": "no trial in a slot: proposals among them",
}


@dataclass(slots=True)
class WallTime:
    """Counts what the process does around its trials."""

    begun: float
    """time.perf_counter() when the command began."""
    counted: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Counts the block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begun)

    def add(self, part: str, seconds: float) -> None:
        """Counts what was measured elsewhere."""
        self.counted[part] = self.counted.get(part, 0.0) + seconds

    def started(self) -> None:
        """Everything so far was the start."""
        self.counted["start-up"] = time.perf_counter() - self.begun

    def breakdown(self, state: StudyState, slots: int = 1) -> dict[str, float]:
        """Seconds by what they went into, in the mean over the slots; they add up to the wall time until now."""
        wall = time.perf_counter() - self.begun
        found = dict.fromkeys(_PARTS, 0.0) | self.counted
        if "start-up" not in self.counted:  # nothing was left to train
            return found | {"start-up": wall - sum(self.counted.values())}
        for trial in state.trials.values():
            for part, seconds in trial_seconds(trial, state.session.epoch if state.session else 0).items():
                found[part] = found.get(part, 0.0) + seconds / slots
        return found | {"idle": wall - sum(found.values())}


def trial_seconds(trial: TrialState, epoch: int | None = None) -> Mapping[str, float]:
    """What a trial has counted by what it went into, each time that it was started.

    Args:
        epoch: of the session whose starts are meant; by default all of them.
    """
    found = Counter[str]()
    ends = [*(start.time for start in trial.starts[1:]), math.inf]
    for start, end in zip(trial.starts, ends, strict=True):
        if epoch not in (None, start.epoch):
            continue
        if end == math.inf and isinstance(trial.end, Finished):
            told = [trial.end.seconds]
        else:
            told = [point.seconds for point in trial.curve if start.time <= point.time < end]
        found.update(told[-1] if told else {})
    return found


def table(breakdown: Mapping[str, float]) -> list[str]:
    """The breakdown line by line, with its sum."""
    wall = sum(breakdown.values())
    lines = [f"wall time {wall:.1f} s"]
    for part, seconds in breakdown.items():
        meaning = f"  ({_MEANING[part]})" if part in _MEANING else ""
        lines.append(f"  {_PARTS.get(part, part):<15}{seconds / wall:>6.1%} {seconds:>8.1f} s{meaning}")
    return lines
