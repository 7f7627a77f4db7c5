"""Draws learning curves as a few characters each, all on one scale, so that they can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.record.events import Validated
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.statistics.pace import budget_of

MAX_CELLS = 12
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOT_YET_TRAINED = "·"
_SHARE_BELOW_SCALE = 0.1
"""Share of all validations that may lie below the scale. The first scores of each trial would flatten the curves."""


@dataclass(frozen=True, slots=True)
class SparklineScale:
    """The scores that the lowest and the highest block stand for, in dB."""

    low: float
    high: float

    def block(self, psnr: float) -> str:
        """Return the block for a PSNR in dB; below the scale it is the lowest block."""
        share = (psnr - self.low) / (self.high - self.low) if self.high > self.low else 1.0
        return _BLOCKS[min(len(_BLOCKS) - 1, max(0, int(share * len(_BLOCKS))))]


def scale_of(state: StudyState) -> SparklineScale | None:
    """Return the scale for all trials of a study, up to the best validation; None before the first validation."""
    scores = np.array([p.scores[OBJECTIVE] for t in state.trials.values() for p in t.curve])
    if not scores.size:
        return None
    lowest = int(_SHARE_BELOW_SCALE * (scores.size - 1))
    return SparklineScale(float(np.partition(scores, lowest)[lowest]), float(scores.max()))


def cells_of(state: StudyState) -> int:
    """Return the number of characters of a full curve of this study."""
    assert state.opened is not None
    base = state.opened.question["base"]
    return min(MAX_CELLS, max(1, int(base["train.budget_patches"]) // int(base["evaluation.every_patches"])))


def sparkline(trial: TrialState, scale: SparklineScale | None, cells: int) -> str:
    """Return a trial's curve over its budget in `cells` characters, with dots for the part still to be trained.

    If there are more validations than characters, each character shows the last validation of its part.
    """
    parts: list[Validated | None] = [None] * cells
    budget = budget_of(trial)
    for point in trial.curve:
        parts[min(cells - 1, max(0, -(-point.patches * cells // budget) - 1))] = point
    if scale is None:
        return _NOT_YET_TRAINED * cells

    last = max((i for i, point in enumerate(parts) if point is not None), default=-1)
    filled = _filled(parts[: last + 1], scale)
    filler = " " if trial.ended else _NOT_YET_TRAINED
    return filled.ljust(cells, filler)


def _filled(parts: Sequence[Validated | None], scale: SparklineScale) -> str:
    """Return a block for each part. A part without a validation repeats the block of the next one."""
    text = ""
    block = ""
    for point in reversed(parts):
        if point is not None:
            block = scale.block(point.scores[OBJECTIVE])
        text = block + text
    return text
