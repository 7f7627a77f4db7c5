"""Learning curves as a few characters each, all on one scale, so that the eye may compare them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.record.events import Validated
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.statistics.pace import budget_of

MAX_CELLS = 12
_BLOCKS = "▁▂▃▄▅▆▇█"
_TO_COME = "·"
_LOWEST = 0.1
"""Share of all validations that may lie below the scale: the first ones of each trial, which would flatten the rest."""


@dataclass(frozen=True, slots=True)
class SparklineScale:
    """What the lowest and the highest block stand for, in dB."""

    low: float
    high: float

    def block(self, psnr: float) -> str:
        """The character of a PSNR in dB; below the scale it is the lowest."""
        share = (psnr - self.low) / (self.high - self.low) if self.high > self.low else 1.0
        return _BLOCKS[min(len(_BLOCKS) - 1, max(0, int(share * len(_BLOCKS))))]


def scale_of(state: StudyState) -> SparklineScale | None:
    """One scale for every trial of the study: up to the best validation there was; None before the first."""
    scores = np.array([p.scores[OBJECTIVE] for t in state.trials.values() for p in t.curve])
    if not scores.size:
        return None
    lowest = int(_LOWEST * (scores.size - 1))
    return SparklineScale(float(np.partition(scores, lowest)[lowest]), float(scores.max()))


def cells_of(state: StudyState) -> int:
    """How many characters a whole curve of this study has."""
    assert state.opened is not None
    base = state.opened.question["base"]
    return min(MAX_CELLS, max(1, int(base["train.budget_patches"]) // int(base["evaluation.every_patches"])))


def sparkline(trial: TrialState, scale: SparklineScale | None, cells: int) -> str:
    """The trial's curve over its budget, `cells` characters: a dot where it has not come yet, if it still may.

    Where there are more validations than characters, the last one of each part is shown.
    """
    parts: list[Validated | None] = [None] * cells
    budget = budget_of(trial)
    for point in trial.curve:
        parts[min(cells - 1, max(0, -(-point.patches * cells // budget) - 1))] = point
    if scale is None:
        return _TO_COME * cells
    known = max((i for i, point in enumerate(parts) if point is not None), default=-1)
    filled = _filled(parts[: known + 1], scale)
    return filled + (" " if trial.ended else _TO_COME) * (cells - len(filled))


def _filled(parts: Sequence[Validated | None], scale: SparklineScale) -> str:
    """A part without a validation of its own repeats the one after it: validations may be rarer than characters."""
    text, after = "", ""
    for point in reversed(parts):
        after = scale.block(point.scores[OBJECTIVE]) if point is not None else after
        text = after + text
    return text
