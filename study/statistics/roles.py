"""What scientific and nuisance ranges add to the answer: each scientific choice at its best, optima at an edge."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.question.experiment import Experiment
from study.question.space import Choice, Dimension, Float, Grid, Int
from study.record.state import StudyState, TrialState

EDGE_SHARE = 0.02
"""A value is at the edge of an interval if its distance from an end is at most this share of the length."""
MAX_UNTRIED_ARMS = 1_000
"""With more arms than this, only those that were tried are listed."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One scientific choice, with the result of searching its nuisance values."""

    choice: Mapping[str, Any]
    """Values of the scientific ranges, by dotted name."""
    best: TrialState | None
    """The best finished trial of the arm; its nuisance values are the best found for this choice."""
    trials: int
    """Number of counted trials: the arm's nuisance budget."""
    patches: int
    """Patches that all trials of the arm were trained for."""


def arms(state: StudyState, experiment: Experiment) -> list[Arm]:
    """Every combination of the scientific choices, the best first; empty for an experiment without such choices.

    With more than MAX_UNTRIED_ARMS combinations, only those that were tried.
    """
    choices = [d for d in experiment.space.dimensions if d.role == "scientific" and d.listed is not None]
    if not choices:
        return []
    searched = [t for t in state.ranking() if t.proposed.role == "search"]
    if math.prod(len(d.values) for d in choices) <= MAX_UNTRIED_ARMS:
        combinations = list(itertools.product(*(d.values for d in choices)))
    else:
        tried = (tuple(d.value_in(t.config.dotted()) for d in choices) for t in searched)
        combinations = list(dict.fromkeys(tried))

    every_arm = []
    for values in combinations:
        choice: dict[str, Any] = {}
        for dimension, value in zip(choices, values, strict=True):
            choice |= dimension.settings(value)
        trials = [t for t in searched if choice.items() <= dict(t.proposed.values).items()]
        best = next((t for t in trials if t.status == "finished"), None)
        every_arm.append(Arm(choice, best, len(trials), sum(t.patches for t in trials)))
    return sorted(every_arm, key=_best_score, reverse=True)


def _best_score(arm: Arm) -> float:
    if arm.best is None or not arm.best.score:
        return -math.inf
    return arm.best.score


def at_an_edge(state: StudyState, experiment: Experiment) -> list[tuple[Dimension, Any]]:
    """The dimensions in which the winner's value is at an end of the range, with that value.

    Dimensions without an order have no ends.
    """
    best = state.best()
    if best is None:
        return []
    config = best.config.dotted()
    at_edge = []
    for dimension in experiment.space.dimensions:
        value = dimension.value_in(config)
        if value is not None and _is_end(dimension, value):
            at_edge.append((dimension, value))
    return at_edge


def _is_end(dimension: Dimension, value: Any) -> bool:
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            start, end, place = (math.log(number) if log else number for number in (low, high, value))
            return bool(min(place - start, end - place) <= EDGE_SHARE * (end - start))
        case Grid():
            return value in (dimension.range.values[0], dimension.range.values[-1])
        case Choice():
            return False


def arm_sentences(state: StudyState, experiment: Experiment) -> list[str]:
    """A line for each arm with its result and budget, followed by warnings."""
    every_arm = arms(state, experiment)
    lines = [_arm_sentence(arm) for arm in every_arm]

    budgets = [arm.trials for arm in every_arm]
    if budgets and max(budgets) - min(budgets) > 1:
        lines.append("warning: the arms had unequal nuisance budgets, which favours the arm with more trials")
    for dimension, value in at_an_edge(state, experiment):
        low = dimension.samples[0]
        high = dimension.samples[-1]
        lines.append(
            f"warning: the best {dimension.label}, {value:g}, is at an end of its range, {low:g} to {high:g}; "
            "better values may lie outside"
        )
    return lines


def _arm_sentence(arm: Arm) -> str:
    choice = ", ".join(f"{name} {value}" for name, value in arm.choice.items())
    cost = f"{arm.trials} trials, {arm.patches:,} patches"
    if arm.best is None or arm.best.score is None:
        return f"{choice}: no trial finished ({cost})"
    nuisance = ", ".join(
        f"{name} {value}" for name, value in arm.best.proposed.values.items() if name not in arm.choice
    )
    return f"{choice}: best {arm.best.score:.3f} dB, trial {arm.best.number} ({nuisance}; {cost})"
