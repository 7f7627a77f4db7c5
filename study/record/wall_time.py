"""The wall time of a session by activity: measured around the trials, and read from the journal for each trial."""

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
    """Measures what the process does around its trials."""

    begun: float
    """time.perf_counter() when the command began."""
    counted: dict[str, float] = field(default_factory=dict)
    """Seconds measured so far, by activity."""

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Add the time of the block to an activity."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begun)

    def add(self, part: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere to an activity."""
        self.counted[part] = self.counted.get(part, 0.0) + seconds

    def started(self) -> None:
        """Count all time so far as start-up."""
        self.counted["start-up"] = time.perf_counter() - self.begun

    def breakdown(self, state: StudyState, slots: int = 1) -> dict[str, float]:
        """Seconds by activity, averaged over the slots. Their sum is the wall time until now."""
        wall = time.perf_counter() - self.begun
        parts = dict.fromkeys(_PARTS, 0.0) | self.counted
        if "start-up" not in self.counted:  # there was nothing left to train
            return parts | {"start-up": wall - sum(self.counted.values())}
        epoch = state.session.epoch if state.session else 0
        for trial in state.trials.values():
            for part, seconds in trial_seconds(trial, epoch).items():
                parts[part] = parts.get(part, 0.0) + seconds / slots
        return parts | {"idle": wall - sum(parts.values())}


def trial_seconds(trial: TrialState, epoch: int | None = None) -> Mapping[str, float]:
    """The wall time of a trial in seconds, by activity.

    Args:
        epoch: only count the starts of this session; by default all of them.
    """
    total = Counter[str]()
    ends = [*(start.time for start in trial.starts[1:]), math.inf]
    for start, end in zip(trial.starts, ends, strict=True):
        if epoch not in (None, start.epoch):
            continue
        if end == math.inf and isinstance(trial.end, Finished):
            total.update(trial.end.seconds)
            continue
        counted = [point.seconds for point in trial.curve if start.time <= point.time < end]
        if counted:
            total.update(counted[-1])
    return total


def table(breakdown: Mapping[str, float]) -> list[str]:
    """The breakdown as lines of text, with the sum first."""
    wall = sum(breakdown.values())
    lines = [f"wall time {wall:.1f} s"]
    for part, seconds in breakdown.items():
        meaning = f"  ({_MEANING[part]})" if part in _MEANING else ""
        lines.append(f"  {_PARTS.get(part, part):<15}{seconds / wall:>6.1%} {seconds:>8.1f} s{meaning}")
    return lines
