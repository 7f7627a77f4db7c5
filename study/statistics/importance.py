"""How much of the variance of scores each hyperparameter explains, and whether that is more than noise.

The measures are fANOVA (Hutter, Hoos and Leyton-Brown 2014) and PED-ANOVA (Watanabe et al. 2023), as implemented in
Optuna. Each tree of a random forest is grown on its own bootstrap sample of the trials, so the spread over trees shows
the uncertainty of a small number of trials. docs/concepts/statistics.md reports how often such intervals contain the
truth.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.question.space import Dimension, Space
from study.record.state import StudyState
from study.search.encoding import distribution_of, encode_value

TREES = 64
"""Number of trees in a forest."""
LOW = 0.03
HIGH = 0.97
"""Quantiles over the trees at the ends of an interval. If `calibrated`, nine of ten intervals contain the truth."""
ABOVE_NOISE = 0.95
"""A dimension is resolved if at least this share of the trees gives it more importance than noise."""
FEWEST_TRIALS = 10
"""With fewer finished trials no importance is measured."""
ADAPTIVE = ("tpe", "gp")
"""Samplers that concentrate on regions with high scores, so their trials are not a fair sample of the space."""
CALIBRATED_SAMPLERS = ("random", "qmc")
MIN_CALIBRATED_TRIALS = 50
"""Conditions for which docs/concepts/statistics.md reports how often intervals contain the truth."""


@dataclass(frozen=True, slots=True)
class Importance:
    """The importance of one dimension of the space. The shares of all dimensions sum to 1."""

    label: str
    share: float
    """fANOVA: the dimension's share of the variance of scores that single dimensions explain."""
    low: float
    high: float
    """Interval of the share. `low` is 0 if the dimension is not resolved."""
    resolved: bool
    """True if 19 of 20 trees give the dimension more than the median tree gives a copy with shuffled values."""
    top: float
    """PED-ANOVA: the dimension's share in separating the best tenth of the trials from the others; not calibrated."""


def importances(state: StudyState, experiment: Experiment) -> list[Importance]:
    """The importance of every dimension, the largest first, measured from the finished trials in the space.

    Empty for fewer than FEWEST_TRIALS trials, for fewer than two dimensions, and if all scores are equal.
    """
    assert state.opened is not None
    points, scores = located(state, experiment.space, experiment.base.dotted())
    return measure_importances(points, scores, experiment.space.dimensions, seed_of(state.opened.seed))


def located(state: StudyState, space: Space, base: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[float]]:
    """The points of the space (label -> value) at which a trial or a reference finished, and their scores [dB]."""
    points = []
    scores = []
    for trial in state.trials.values():
        point = space.locate(trial.config.dotted(), base)
        if trial.status == "finished" and not trial.is_replicate and point is not None:
            points.append(point)
            scores.append(trial.score or 0.0)
    return points, scores


def stopped(state: StudyState) -> int:
    """The number of trials that were stopped early. Importances leave them out: they were trained for fewer patches."""
    return sum(t.status in ("pruned", "paused") and not t.is_replicate for t in state.trials.values())


def calibrated(state: StudyState, sampler: str, count: int) -> bool:
    """True if the intervals of such a study are known to contain the truth nine times out of ten.

    The conditions: the sampler is not adaptive, there are enough trials, and none was stopped early or failed.

    Args:
        sampler: name of the sampler.
        count: number of trials that the importances are measured from.
    """
    if sampler not in CALIBRATED_SAMPLERS or count < MIN_CALIBRATED_TRIALS:
        return False
    return all(t.is_replicate or t.status not in ("pruned", "paused", "failed") for t in state.trials.values())


def seed_of(study_seed: int) -> int:
    """The seed of the forests of a study."""
    return child_seed(study_seed, "importance")


def measure_importances(
    points: Sequence[Mapping[str, Any]], scores: Sequence[float], dimensions: Sequence[Dimension], seed: int
) -> list[Importance]:
    """The importance of each dimension, the largest first; empty if the trials do not allow a measurement.

    Args:
        points: points of the space (label -> value).
        scores: objective at each point [dB].
        dimensions: of the space.
        seed: of the forests.
    """
    if len(points) < FEWEST_TRIALS or len(set(scores)) < 2 or len(dimensions) < 2:
        return []
    columns = {d.label: [encode_value(d, point[d.label]) for point in points] for d in dimensions}
    distributions = {d.label: distribution_of(d) for d in dimensions}
    shares = _per_tree(columns, distributions, scores, seed)

    # A second forest sees a shuffled copy of every dimension. What it attributes to the copies is noise.
    shuffler = random.Random(seed)
    copies = {f"shuffled {label}": shuffler.sample(column, len(column)) for label, column in columns.items()}
    copied_distributions = {f"shuffled {label}": distribution for label, distribution in distributions.items()}
    with_copies = _per_tree(columns | copies, distributions | copied_distributions, scores, seed)

    top = get_param_importances(_study(columns, distributions, scores), evaluator=PedAnovaImportanceEvaluator())

    measured = []
    for label in columns:
        noise = np.median(with_copies[f"shuffled {label}"])
        resolved = bool(np.quantile(with_copies[label], 1 - ABOVE_NOISE) > noise)
        low, high = np.quantile(shares[label], (LOW, HIGH))
        importance = Importance(
            label=label,
            share=float(np.mean(shares[label])),
            low=float(low) if resolved else 0.0,
            high=float(high),
            resolved=resolved,
            top=top[label],
        )
        measured.append(importance)
    return sorted(measured, key=lambda importance: -importance.share)


def _per_tree(
    columns: Mapping[str, list[Any]], distributions: Mapping[str, Any], scores: Sequence[float], seed: int
) -> dict[str, list[float]]:
    """The share that each tree gives to each column.

    Each tree is a forest of its own: a forest of one tree also takes a bootstrap sample.
    """
    study = _study(columns, distributions, scores)
    by_column: dict[str, list[float]] = {label: [] for label in columns}
    for tree in range(TREES):
        evaluator = FanovaImportanceEvaluator(n_trees=1, seed=(seed + tree) % 2**32)
        try:
            shares = get_param_importances(study, evaluator=evaluator, params=list(columns))
        except RuntimeError:  # the bootstrap sample holds a single score, so there is no variance to explain
            continue
        for label in columns:
            by_column[label].append(shares[label])
    return by_column


class _Constant:
    """Mixed into a distribution, it makes comparison with itself cheap, and a deep copy the object itself.

    For each tree, Optuna compares the distributions of every trial with those of the first trial. Comparing them value
    by value takes a fifth of the time of all importances.
    """

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> "_Constant":
        return self


class _Float(_Constant, FloatDistribution):
    pass


class _Int(_Constant, IntDistribution):
    pass


class _Categorical(_Constant, CategoricalDistribution):
    pass


def _constant(distribution: BaseDistribution) -> BaseDistribution:
    """The same distribution, as an object that all trials can share."""
    match distribution:
        case FloatDistribution():
            return _Float(distribution.low, distribution.high, log=distribution.log)
        case IntDistribution():
            return _Int(distribution.low, distribution.high, log=distribution.log)
        case CategoricalDistribution():
            return _Categorical(distribution.choices)
    return distribution


def _study(columns: Mapping[str, list[Any]], distributions: Mapping[str, Any], scores: Sequence[float]) -> optuna.Study:
    """An Optuna study in memory with one finished trial for each score."""
    study = optuna.create_study(direction="maximize")
    constant = {label: _constant(distribution) for label, distribution in distributions.items()}

    trials = []
    for i, score in enumerate(scores):
        params = {label: column[i] for label, column in columns.items()}
        trials.append(create_trial(value=score, params=params, distributions=dict(constant)))
    study.add_trials(trials)
    return study


def importance_sentences(measured: Sequence[Importance], sampler: str, left_out: int = 0) -> list[str]:
    """The importances in words, with the conditions under which they hold; empty without importances.

    Args:
        measured: importances, the largest first.
        sampler: name of the study's sampler.
        left_out: number of trials that were `stopped` early.
    """
    if not measured:
        return []

    conditions = []
    if sampler in ADAPTIVE:
        conditions.append("conditional on where the sampler looked")
    if left_out:
        conditions.append(f"{left_out} stopped {'trials' if left_out > 1 else 'trial'} left out")
    title = f"importance ({'; '.join(conditions)})" if conditions else "importance"

    resolved = []
    unresolved = []
    for one in measured:
        if one.resolved:
            resolved.append(f"{one.label} {_percent(one.share)} ({_percent(one.low)}–{_percent(one.high)})")
        else:
            unresolved.append(one.label)

    if not resolved:
        return [f"{title}: no hyperparameter is resolved from noise"]
    lines = [f"{title}: {', '.join(resolved)}"]
    if unresolved:
        lines.append(f"not resolved from noise: {', '.join(unresolved)}")
    return lines


def _percent(share: float) -> str:
    """The share in whole per cent; a small positive share reads <1%, not 0%."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
