"""The next configuration: a pure function of study seed, trial number and history (contract 2).

Optuna's samplers see a study in memory that is built anew from the state for each proposal and are seeded anew, so
a proposal does not depend on which process asked before.
"""

import itertools
import random
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sr_core.seed import child_seed
from study.experiment import Experiment
from study.space import Choice, Dimension, Float, Grid, Int, Space
from study.state import OBJECTIVE, StudyState
from study.state import TrialState as Trial

Point = dict[str, Any]
"""Dimension label -> value."""

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study in memory

_RETRIES = 20
_STARTUP_TRIALS = 10


def propose(state: StudyState, experiment: Experiment, number: int) -> Point | None:
    """The point of the space that search trial `number` shall try; None when every one has been tried.

    A proposal that repeats a known configuration is asked again with a seed of its own, then replaced by the unseen
    configuration that differs from it in the fewest dimensions.
    """
    assert state.opened is not None
    space = experiment.space
    history = _history(state, experiment)
    known = {_key(space, point) for _, point in history}
    arm = _arm(space, state, number, known)
    if arm is None:
        return None
    within = [(trial, point) for trial, point in history if arm.items() <= point.items()]
    free = tuple(d for d in space.dimensions if d.label not in arm)
    for attempt in range(_RETRIES):
        seed = child_seed(state.opened.seed, "proposal", number, attempt)
        point = arm | _ask(free, experiment, within, seed)
        if _key(space, point) not in known:
            return point
    if space.size is None:  # among real numbers a repeat is an accident, and there is no list to choose from
        return point
    return _nearest_unseen(space, arm, point, known, child_seed(state.opened.seed, "proposal", number, "nearest"))


def _history(state: StudyState, experiment: Experiment) -> list[tuple[Trial, Point]]:
    """Every trial that stands in the space, references among them where they do, with its point."""
    base = experiment.base.dotted()
    trials = (t for t in state.trials.values() if not t.is_replicate)  # those are no configurations of their own
    located = ((t, experiment.space.locate(t.config.dotted(), base)) for t in trials)
    return [(trial, point) for trial, point in located if point is not None]


def _arm(space: Space, state: StudyState, number: int, known: set[Any]) -> Point | None:
    """The scientific choices of this trial: arms take turns, those with nothing left untried are passed over."""
    choices = [d for d in space.dimensions if d.role == "scientific" and d.listed is not None]
    arms = [
        {d.label: value for d, value in zip(choices, values, strict=True)}
        for values in itertools.product(*(d.listed or () for d in choices))
    ]
    first = sum(t.is_reference for t in state.trials.values())
    turn = (number - first) % len(arms)
    if space.size is None:
        return arms[turn]
    per_arm = space.size // len(arms)
    for arm in arms[turn:] + arms[:turn]:
        places = [space.dimensions.index(d) for d in choices]
        tried = sum(all(key[i] == arm[d.label] for i, d in zip(places, choices, strict=True)) for key in known)
        if tried < per_arm:
            return arm
    return None


def _key(space: Space, point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(point[d.label] for d in space.dimensions)


def _ask(
    free: tuple[Dimension, ...], experiment: Experiment, history: Iterable[tuple[Trial, Point]], seed: int
) -> Point:
    """One suggestion of Optuna's sampler for the dimensions that are free."""
    distributions = {d.label: _distribution(d) for d in free}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize", sampler=_sampler(experiment, seed))
    study.add_trials([_frozen(trial, point, free, distributions) for trial, point in history])
    asked = study.ask(distributions)
    return {d.label: _decode(d, asked.params[d.label]) for d in free}


def _sampler(experiment: Experiment, seed: int) -> optuna.samplers.BaseSampler:
    seed32 = seed % 2**32  # what NumPy's RandomState takes
    if experiment.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed32)
    return optuna.samplers.TPESampler(
        seed=seed32, n_startup_trials=_STARTUP_TRIALS, multivariate=True, constant_liar=True
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    """A Grid is searched by index, so that neighbours count as near; a Choice by index without an order."""
    match dimension.range:
        case Float(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Int(low, high, log):
            return IntDistribution(low, high, log=log)
        case Grid():
            return IntDistribution(0, len(dimension.range.values) - 1)
        case Choice():
            return CategoricalDistribution(list(range(len(dimension.range.values))))


def _encode(dimension: Dimension, value: Any) -> Any:
    return value if dimension.listed is None else dimension.listed.index(value)


def _decode(dimension: Dimension, encoded: Any) -> Any:
    return encoded if dimension.listed is None else dimension.listed[encoded]


def _frozen(
    trial: Trial, point: Point, free: tuple[Dimension, ...], distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    status = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    return create_trial(
        state=status.get(trial.status, TrialState.RUNNING),
        value=trial.score if trial.status == "finished" else None,
        params={d.label: _encode(d, point[d.label]) for d in free},
        distributions=distributions,
        intermediate_values={p.patches: p.scores[OBJECTIVE] for p in trial.curve},
    )


def _nearest_unseen(space: Space, arm: Point, point: Point, known: set[Any], seed: int) -> Point:
    """The untried configuration of this arm that differs from `point` in the fewest dimensions; ties by seed."""
    unseen = [cell for cell in space.cells() if arm.items() <= cell.items() and _key(space, cell) not in known]
    random.Random(seed).shuffle(unseen)
    return min(unseen, key=lambda cell: sum(cell[label] != point[label] for label in point))
