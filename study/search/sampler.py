"""The next configuration: a pure function of study seed, trial number and history (contract 2).

Optuna's samplers see a study in memory that is built anew from the state for each proposal and are seeded anew, so
a proposal does not depend on which process asked before.
"""

import itertools
import math
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import scipy  # its modules are loaded when they are first used
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.question.space import Choice, Dimension, Float, Grid, Int, Space
from study.record.course import course_of
from study.record.state import OBJECTIVE, StudyState
from study.record.state import TrialState as Trial
from study.search import optuna_private
from study.search.cells import MAX_LISTED, CellPoint, Cells, Key, digits
from study.search.encoding import decode_value, distribution_of, encode_point

_RETRIES = 20
_GP_LEARNS_FROM = 100
"""Trials that the GP is fitted to: its time grows with their cube, 0.2 s for 50, 0.4 s for 100, 8 s for 1,000."""
_SHORT = 20_000
"""Configurations of which the GP can look at all."""
_BLOCK, _BLOCKS = 256, 64
"""Points of a sequence looked at together, and how often."""


def propose(state: StudyState, experiment: Experiment, number: int) -> CellPoint | None:
    """The point of the space that search trial `number` shall try; None when every one has been tried.

    A proposal that repeats a known configuration is asked again with a seed of its own, then replaced by the unseen
    configuration that differs from it in the fewest dimensions.
    """
    if experiment.sampler == "replay":
        assert experiment.replay is not None
        return course_of(experiment.replay).point(number, experiment.space, experiment.base)
    assert state.opened is not None
    space = experiment.space
    history = _history(state, experiment)
    known = {_key(space, point) for _, point in history}
    arm = _arm(space, state, number, known)
    if arm is None:
        return None
    within = [(trial, point) for trial, point in history if arm.items() <= point.items()]
    free = tuple(d for d in space.dimensions if d.label not in arm)
    if experiment.sampler in ("qmc", "grid"):
        return _first_unseen(space, arm, free, known, experiment.sampler, child_seed(state.opened.seed, "sequence"))
    sampled = _Sampled(free, experiment, within, _untried(space, arm, known) if experiment.sampler == "gp" else [])
    for attempt in range(_RETRIES):
        point = arm | sampled.ask(child_seed(state.opened.seed, "proposal", number, attempt))
        if _key(space, point) not in known:
            return point
    if space.size is None:  # among real numbers a repeat is an accident, and there is no list to choose from
        return point
    return _nearest_unseen(space, arm, point, known, child_seed(state.opened.seed, "proposal", number, "nearest"))


def _first_unseen(
    space: Space, arm: CellPoint, free: tuple[Dimension, ...], known: set[Key], name: str, seed: int
) -> CellPoint:
    """The first point of a sequence fixed by the seed that is not known.

    qmc: a scrambled Sobol' sequence (Owen 1998), read in blocks. grid: every cell, in an order that makes any part of
    it a fair sample. Where the space is a list, each of the sequence's blocks brings new cells; should none for long,
    a cell of the list does.
    """
    if name == "qmc":
        for point in _sobol(space, arm, free, seed):
            if _key(space, point) not in known:
                return point
    return next(cell for cell in Cells(space, arm).in_order(seed) if _key(space, cell) not in known)


def _sobol(space: Space, arm: CellPoint, free: tuple[Dimension, ...], seed: int) -> Iterator[CellPoint]:
    """Points of a Sobol' sequence; without an end among real numbers, where no list could take its place."""
    if not free:
        return
    sequence = scipy.stats.qmc.Sobol(len(free), scramble=True, rng=np.random.default_rng(seed))
    for _ in range(_BLOCKS) if space.size is not None else itertools.count():
        for place in sequence.random(_BLOCK):
            yield arm | {d.label: _at(d, u) for d, u in zip(free, place.tolist(), strict=True)}


def _at(dimension: Dimension, u: float) -> Any:
    """The value at a fraction 0 <= u < 1 of a dimension's range, equal parts for equal shares."""
    match dimension.range:
        case Float(low, high, log):
            a, b = (math.log(low), math.log(high)) if log else (low, high)
            found = a + u * (b - a)
            return min(high, max(low, math.exp(found) if log else found))
        case Int(low, high, log):
            if log:
                a, b = math.log(low - 0.5), math.log(high + 0.5)
                return min(high, max(low, round(math.exp(a + u * (b - a)))))
            return low + int(u * (high - low + 1))
        case Choice() | Grid():
            return dimension.range.values[int(u * len(dimension.range.values))]


def _history(state: StudyState, experiment: Experiment) -> list[tuple[Trial, CellPoint]]:
    """Every trial that stands in the space, references among them where they do, with its point."""
    base = experiment.base.dotted()
    trials = (t for t in state.trials.values() if not t.is_replicate)  # those are no configurations of their own
    located = ((t, experiment.space.locate(_dotted(t, base), base)) for t in trials)
    return [(trial, point) for trial, point in located if point is not None]


def _dotted(trial: Trial, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's config; that of a search trial is the base but for what was swept."""
    return {**base, **trial.proposed.values} if trial.proposed.role == "search" else trial.config.dotted()


def _arm(space: Space, state: StudyState, number: int, known: set[Key]) -> CellPoint | None:
    """The scientific choices of this trial: arms take turns, those with nothing left untried are passed over."""
    choices = [d for d in space.dimensions if d.role == "scientific" and d.listed is not None]
    sizes = [len(d.values) for d in choices]
    count = math.prod(sizes)

    def arm(place: int) -> CellPoint:
        return {d.label: d.values[i] for d, i in zip(choices, digits(place, sizes), strict=True)}

    first = sum(t.is_reference for t in state.trials.values())
    turn = (number - first) % count
    if space.size is None:
        return arm(turn)
    places = [space.dimensions.index(d) for d in choices]
    tried = Counter(tuple(key[i] for i in places) for key in known)
    per_arm = space.size // count
    turns = (arm((turn + later) % count) for later in range(count))
    return next((found for found in turns if tried[tuple(found.values())] < per_arm), None)


def _key(space: Space, point: Mapping[str, Any]) -> Key:
    return tuple(point[d.label] for d in space.dimensions)


class _Sampled:
    """The history as Optuna's samplers see it, built once however often they are asked.

    Args:
        free: the dimensions that are asked for.
        untried: what is left of them, where that is a short list.
    """

    def __init__(
        self,
        free: tuple[Dimension, ...],
        experiment: Experiment,
        history: Sequence[tuple[Trial, CellPoint]],
        untried: Sequence[CellPoint],
    ) -> None:
        self._free, self._experiment = free, experiment
        self._tried = [encode_point(free, point) for _, point in history] if experiment.space.size is not None else []
        self._untried = [encode_point(free, point) for point in untried]
        self._distributions = {d.label: distribution_of(d) for d in free}
        self._study = optuna.create_study(direction="maximize")
        learns = ("finished", "pruned", "paused") if experiment.sampler == "gp" else ("finished",)
        learned = history if experiment.sampler != "random" else []
        if experiment.sampler == "gp":
            learned = _telling(learned, learns)
        trials = [_frozen(trial, point, free, self._distributions, learns) for trial, point in learned]
        self._study.add_trials(trials)
        self._known = any(trial.state is not TrialState.FAIL for trial in trials)

    def ask(self, seed: int) -> CellPoint:
        """One suggestion; it leaves no trace that another would see, for samplers pass over failed trials."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._sampler(seed % 2**32)  # what NumPy's RandomState takes
        asked = self._study.ask(self._distributions)
        self._study.tell(asked, state=TrialState.FAIL)
        return {d.label: decode_value(d, asked.params[d.label]) for d in self._free}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        match self._experiment.sampler:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "gp":
                return optuna_private.Gp(seed, self._untried)
            case _:
                return optuna_private.Tpe(seed, self._distributions if self._known else {}, self._tried)


def _telling(history: Sequence[tuple[Trial, CellPoint]], learns: Sequence[str]) -> list[tuple[Trial, CellPoint]]:
    """What a GP is told of a long history: its best half, and from the rest as many, evenly over the numbers.

    The best say where the optimum is, the others keep it away from what is known to be worse. Trials under way stay.
    """
    scored = [i for i, (trial, _) in enumerate(history) if trial.status in learns and trial.score is not None]
    if len(scored) <= _GP_LEARNS_FROM:
        return list(history)
    best = sorted(scored, key=lambda i: -(history[i][0].score or 0.0))[: _GP_LEARNS_FROM // 2]
    rest = sorted(set(scored) - set(best))
    more = _GP_LEARNS_FROM - len(best)
    dropped = set(scored) - {*best, *(rest[i * len(rest) // more] for i in range(more))}
    return [both for i, both in enumerate(history) if i not in dropped]


def _frozen(
    trial: Trial,
    point: CellPoint,
    free: tuple[Dimension, ...],
    distributions: dict[str, BaseDistribution],
    complete: Sequence[str],
) -> FrozenTrial:
    """A trial as Optuna sees it.

    Args:
        complete: statuses shown as completed with their last score. Optuna's GP knows no pruned trials and would
            propose them again; with the score of the rung where they ended, less than they would have come to, it
            learns to stay away.
    """
    status = {"pruned": TrialState.PRUNED, "paused": TrialState.PRUNED, "failed": TrialState.FAIL}
    return create_trial(
        state=TrialState.COMPLETE if trial.status in complete else status.get(trial.status, TrialState.RUNNING),
        value=trial.score if trial.status in complete else None,
        params=encode_point(free, point),
        distributions=distributions,
        intermediate_values={p.patches: p.scores[OBJECTIVE] for p in trial.curve},
    )


def _untried(space: Space, arm: CellPoint, known: set[Key]) -> list[CellPoint]:
    """What this arm has left, where the space is a list short enough to look at all of it."""
    if space.size is None or space.size > _SHORT:
        return []
    return Cells(space, arm).unseen(known)


def _nearest_unseen(space: Space, arm: CellPoint, point: CellPoint, known: set[Key], seed: int) -> CellPoint:
    """The untried configuration of this arm that differs from `point` in the fewest dimensions; ties by seed."""
    cells = Cells(space, arm)
    if cells.size > MAX_LISTED:
        return next(cell for cell in cells.nearest_first(point, seed) if _key(space, cell) not in known)
    unseen = cells.unseen(known)
    random.Random(seed).shuffle(unseen)
    return min(unseen, key=lambda cell: sum(cell[label] != point[label] for label in point))
