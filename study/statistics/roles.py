"""What the roles of the ranges add to an answer: arms at their own best nuisance values, optima at the edge."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.question.experiment import Experiment
from study.question.space import Choice, Dimension, Float, Grid, Int
from study.record.state import StudyState, TrialState

_EDGE = 0.02
"""A value within this share of an interval's length from its end lies at the edge."""
_ALL_ARMS = 1_000
"""That are told, the untried ones too."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One scientific choice, and what the search of its nuisance values came to."""

    choice: Mapping[str, Any]
    """Dotted names and values of the scientific ranges."""
    best: TrialState | None
    """Its best finished trial: the choice at its own best nuisance values."""
    trials: int
    """Counted ones: the nuisance budget it had."""
    patches: int
    """Trained in all."""


def arms(state: StudyState, experiment: Experiment) -> list[Arm]:
    """Every arm of the scientific choices, the best first; empty for an experiment that has none.

    Of more than 1,000 only those that were tried.
    """
    choices = [d for d in experiment.space.dimensions if d.role == "scientific" and d.listed is not None]
    if not choices:
        return []
    searched = [t for t in state.ranking() if t.proposed.role == "search"]
    if math.prod(len(d.values) for d in choices) <= _ALL_ARMS:
        chosen = list(itertools.product(*(d.values for d in choices)))
    else:
        chosen = list(dict.fromkeys(tuple(d.value_in(t.config.dotted()) for d in choices) for t in searched))
    found = []
    for values in chosen:
        choice = {k: v for d, value in zip(choices, values, strict=True) for k, v in d.settings(value).items()}
        own = [t for t in searched if choice.items() <= dict(t.proposed.values).items()]
        best = next((t for t in own if t.status == "finished"), None)
        found.append(Arm(choice, best, len(own), sum(t.patches for t in own)))
    return sorted(found, key=lambda arm: -((arm.best.score if arm.best else None) or -math.inf))


def at_an_edge(state: StudyState, experiment: Experiment) -> list[tuple[Dimension, Any]]:
    """Dimensions with an order in which the winner stands at an end, with its value there."""
    best = state.best()
    if best is None:
        return []
    config = best.config.dotted()
    placed = [(d, d.value_in(config)) for d in experiment.space.dimensions]
    return [(d, value) for d, value in placed if value is not None and _is_end(d, value)]


def _is_end(dimension: Dimension, value: Any) -> bool:
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            a, b, x = (math.log(v) if log else v for v in (low, high, value))
            return bool(min(x - a, b - x) <= _EDGE * (b - a))
        case Grid():
            return value in (dimension.range.values[0], dimension.range.values[-1])
        case Choice():
            return False


def arm_sentences(state: StudyState, experiment: Experiment) -> list[str]:
    """Arms with their budgets, and warnings, in words."""
    lines = []
    found = arms(state, experiment)
    for arm in found:
        choice = ", ".join(f"{name} {value}" for name, value in arm.choice.items())
        cost = f"{arm.trials} trials, {arm.patches:,} patches"
        if arm.best is None or arm.best.score is None:
            lines.append(f"{choice}: no trial finished ({cost})")
            continue
        nuisance = {k: v for k, v in arm.best.proposed.values.items() if k not in arm.choice}
        own = ", ".join(f"{name} {value}" for name, value in nuisance.items())
        lines.append(f"{choice} at its own best: {arm.best.score:.3f} dB, trial {arm.best.number} ({own}; {cost})")
    if found and max(a.trials for a in found) - min(a.trials for a in found) > 1:
        lines.append("warning: the arms had unequal nuisance budgets, so the one with more trials is favoured")
    for dimension, value in at_an_edge(state, experiment):
        ends = dimension.samples
        lines.append(
            f"warning: the best {dimension.label}, {value:g}, is at an end of its range {ends[0]:g} to {ends[-1]:g}; "
            "better ones may lie outside"
        )
    return lines
