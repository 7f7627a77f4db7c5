"""The next configuration: a pure function of study seed, trial number and history (promise 2).

For each proposal, Optuna's samplers get a new seed and a new study in memory, built from the state. A proposal
therefore does not depend on which process made the proposals before it.
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
import scipy  # loads its modules when they are first used
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

MAX_ATTEMPTS = 20
"""After this number of repeated proposals, the nearest untried configuration is taken."""
MAX_GP_TRIALS = 100
"""The GP is fitted to at most this number of trials. Its time grows with their cube: 0.4 s for 100, 8 s for 1,000."""
MAX_GP_CONFIGURATIONS = 20_000
"""Up to this number of configurations in the space, the GP rates every untried one."""
SOBOL_BLOCK_POINTS = 256
MAX_SOBOL_BLOCKS = 64
"""A Sobol' sequence is read in blocks of SOBOL_BLOCK_POINTS; in a finite space at most this number of blocks."""


def propose(state: StudyState, experiment: Experiment, number: int) -> CellPoint | None:
    """The point of the space that search trial `number` tries; None if every point has been tried.

    If the sampler proposes a configuration that has been tried, it is asked again with another seed. After MAX_ATTEMPTS
    repeats, the untried configuration that differs from the proposal in the fewest dimensions is taken.
    """
    if experiment.sampler == "replay":
        assert experiment.replay is not None
        return course_of(experiment.replay).point(number, experiment.space, experiment.base)
    assert state.opened is not None
    study_seed = state.opened.seed
    space = experiment.space
    history = _history(state, experiment)
    tried = {_key(space, point) for _, point in history}
    arm = _arm(space, state, number, tried)
    if arm is None:
        return None

    free = tuple(d for d in space.dimensions if d.label not in arm)
    if experiment.sampler in ("qmc", "grid"):
        return _first_untried(space, arm, free, tried, experiment.sampler, child_seed(study_seed, "sequence"))

    history_of_arm = [(trial, point) for trial, point in history if arm.items() <= point.items()]
    untried = _untried(space, arm, tried) if experiment.sampler == "gp" else []
    sampler = _StudyForSampler(free, experiment, history_of_arm, untried)
    for attempt in range(MAX_ATTEMPTS):
        point = arm | sampler.ask(child_seed(study_seed, "proposal", number, attempt))
        if _key(space, point) not in tried:
            return point
    if space.size is None:  # among real numbers a repeat is accidental, and no list of untried points exists
        return point
    return _nearest_untried(space, arm, point, tried, child_seed(study_seed, "proposal", number, "nearest"))


def _first_untried(
    space: Space, arm: CellPoint, free: tuple[Dimension, ...], tried: set[Key], name: str, seed: int
) -> CellPoint:
    """The first untried point of a sequence that the seed determines.

    `qmc` reads a scrambled Sobol' sequence (Owen 1998) in blocks. `grid` takes every cell, in an order that makes any
    part of it a fair sample. In a finite space the Sobol' sequence may repeat cells for a long time; then `qmc`, too,
    takes the next cell of the grid.
    """
    if name == "qmc":
        for point in _sobol(space, arm, free, seed):
            if _key(space, point) not in tried:
                return point
    return next(cell for cell in Cells(space, arm).in_order(seed) if _key(space, cell) not in tried)


def _sobol(space: Space, arm: CellPoint, free: tuple[Dimension, ...], seed: int) -> Iterator[CellPoint]:
    """Points of a Sobol' sequence: endless for a space of real numbers, MAX_SOBOL_BLOCKS blocks for a finite space."""
    if not free:
        return
    sequence = scipy.stats.qmc.Sobol(len(free), scramble=True, rng=np.random.default_rng(seed))
    for _ in range(MAX_SOBOL_BLOCKS) if space.size is not None else itertools.count():
        for fractions in sequence.random(SOBOL_BLOCK_POINTS):
            yield arm | {d.label: _at(d, u) for d, u in zip(free, fractions.tolist(), strict=True)}


def _at(dimension: Dimension, u: float) -> Any:
    """The value at a fraction `u` of a dimension's range, 0 <= u < 1. Equal fractions cover equal parts."""
    match dimension.range:
        case Float(low, high, log):
            start, end = (math.log(low), math.log(high)) if log else (low, high)
            place = start + u * (end - start)
            return min(high, max(low, math.exp(place) if log else place))
        case Int(low, high, log):
            if log:
                start = math.log(low - 0.5)
                end = math.log(high + 0.5)
                return min(high, max(low, round(math.exp(start + u * (end - start)))))
            return low + int(u * (high - low + 1))
        case Choice() | Grid():
            return dimension.range.values[int(u * len(dimension.range.values))]


def _history(state: StudyState, experiment: Experiment) -> list[tuple[Trial, CellPoint]]:
    """Every trial whose configuration lies in the space, with its point.

    References are included if they lie in the space. Replicates are not: they repeat other trials.
    """
    base = experiment.base.dotted()
    history = []
    for trial in state.trials.values():
        if trial.is_replicate:
            continue
        point = experiment.space.locate(_dotted(trial, base), base)
        if point is not None:
            history.append((trial, point))
    return history


def _dotted(trial: Trial, base: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's configuration by dotted name. A search trial differs from the base only in the swept values."""
    if trial.proposed.role == "search":
        return {**base, **trial.proposed.values}
    return trial.config.dotted()


def _arm(space: Space, state: StudyState, number: int, tried: set[Key]) -> CellPoint | None:
    """The scientific choices of this trial; None if every configuration has been tried.

    The arms take turns. An arm without untried configurations is skipped.
    """
    choices = [d for d in space.dimensions if d.role == "scientific" and d.listed is not None]
    sizes = [len(d.values) for d in choices]
    count = math.prod(sizes)

    def arm(place: int) -> CellPoint:
        return {d.label: d.values[i] for d, i in zip(choices, digits(place, sizes), strict=True)}

    references = sum(t.is_reference for t in state.trials.values())
    turn = (number - references) % count
    if space.size is None:
        return arm(turn)

    places = [space.dimensions.index(d) for d in choices]
    tried_by_arm = Counter(tuple(key[i] for i in places) for key in tried)
    size_of_arm = space.size // count
    for later in range(count):
        candidate = arm((turn + later) % count)
        if tried_by_arm[tuple(candidate.values())] < size_of_arm:
            return candidate
    return None


def _key(space: Space, point: Mapping[str, Any]) -> Key:
    return tuple(point[d.label] for d in space.dimensions)


class _StudyForSampler:
    """The history as a study for Optuna's samplers. It is built once and can be asked several times.

    Args:
        free: the dimensions to propose values for.
        history: the trials of the arm, with their points.
        untried: the untried points of the arm if these are few enough to list, else empty.
    """

    def __init__(
        self,
        free: tuple[Dimension, ...],
        experiment: Experiment,
        history: Sequence[tuple[Trial, CellPoint]],
        untried: Sequence[CellPoint],
    ) -> None:
        self._free = free
        self._experiment = experiment
        self._tried: list[dict[str, Any]] = []
        if experiment.space.size is not None:
            self._tried = [encode_point(free, point) for _, point in history]
        self._untried = [encode_point(free, point) for point in untried]
        self._distributions = {d.label: distribution_of(d) for d in free}
        self._study = optuna.create_study(direction="maximize")

        completed = ("finished", "pruned", "paused") if experiment.sampler == "gp" else ("finished",)
        learned = history if experiment.sampler != "random" else []
        if experiment.sampler == "gp":
            learned = _most_informative(learned, completed)
        trials = [_frozen(trial, point, free, self._distributions, completed) for trial, point in learned]
        self._study.add_trials(trials)
        self._has_trials = any(trial.state is not TrialState.FAIL for trial in trials)

    def ask(self, seed: int) -> CellPoint:
        """One suggestion. It does not influence later ones, because samplers ignore failed trials."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._sampler(seed % 2**32)  # NumPy's RandomState takes 32 bits
        suggestion = self._study.ask(self._distributions)
        self._study.tell(suggestion, state=TrialState.FAIL)
        return {d.label: decode_value(d, suggestion.params[d.label]) for d in self._free}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        match self._experiment.sampler:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "gp":
                return optuna_private.Gp(seed, self._untried)
            case _:
                return optuna_private.Tpe(seed, self._distributions if self._has_trials else {}, self._tried)


def _most_informative(
    history: Sequence[tuple[Trial, CellPoint]], completed: Sequence[str]
) -> list[tuple[Trial, CellPoint]]:
    """The part of a long history that a GP is fitted to: at most MAX_GP_TRIALS trials with a score.

    One half are the best trials, which show where the optimum is. The other half are spread evenly over the rest, which
    shows what is worse. Trials that are still running all stay.
    """
    scored = [i for i, (trial, _) in enumerate(history) if trial.status in completed and trial.score is not None]
    if len(scored) <= MAX_GP_TRIALS:
        return list(history)

    best = sorted(scored, key=lambda i: -(history[i][0].score or 0.0))[: MAX_GP_TRIALS // 2]
    rest = sorted(set(scored) - set(best))
    count = MAX_GP_TRIALS - len(best)
    spread = [rest[i * len(rest) // count] for i in range(count)]
    dropped = set(scored) - {*best, *spread}
    return [entry for i, entry in enumerate(history) if i not in dropped]


def _frozen(
    trial: Trial,
    point: CellPoint,
    free: tuple[Dimension, ...],
    distributions: dict[str, BaseDistribution],
    completed: Sequence[str],
) -> FrozenTrial:
    """A trial as an Optuna trial.

    Args:
        completed: statuses that Optuna sees as complete, with the last score as value. Optuna's GP ignores pruned
            trials and would propose them again. The score at the rung where they ended is lower than their final score
            would have been, so the GP learns to avoid them.
    """
    states = {"pruned": TrialState.PRUNED, "paused": TrialState.PRUNED, "failed": TrialState.FAIL}
    is_complete = trial.status in completed
    return create_trial(
        state=TrialState.COMPLETE if is_complete else states.get(trial.status, TrialState.RUNNING),
        value=trial.score if is_complete else None,
        params=encode_point(free, point),
        distributions=distributions,
        intermediate_values={p.patches: p.scores[OBJECTIVE] for p in trial.curve},
    )


def _untried(space: Space, arm: CellPoint, tried: set[Key]) -> list[CellPoint]:
    """The untried configurations of an arm; empty if the space has more than MAX_GP_CONFIGURATIONS."""
    if space.size is None or space.size > MAX_GP_CONFIGURATIONS:
        return []
    return Cells(space, arm).untried(tried)


def _nearest_untried(space: Space, arm: CellPoint, point: CellPoint, tried: set[Key], seed: int) -> CellPoint:
    """The untried configuration of an arm that differs from `point` in the fewest dimensions; the seed breaks ties."""
    cells = Cells(space, arm)
    if cells.size > MAX_LISTED:
        return next(cell for cell in cells.nearest_first(point, seed) if _key(space, cell) not in tried)
    untried = cells.untried(tried)
    random.Random(seed).shuffle(untried)
    return min(untried, key=lambda cell: sum(cell[label] != point[label] for label in point))
