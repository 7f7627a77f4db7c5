"""How much of the spread of scores each hyperparameter explains, and whether that is more than noise.

fANOVA (Hutter, Hoos and Leyton-Brown 2014) and PED-ANOVA (Watanabe et al. 2023) as Optuna has them. Every tree of a
random forest is grown on its own bootstrap sample of the trials, so the spread over trees is the uncertainty that so
few trials leave; docs/STATISTICS.md says how often such intervals hold the truth.
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
LOW, HIGH = 0.03, 0.97
"""Quantiles over the trees that end an interval: chosen so that nine of ten hold the truth where `calibrated`."""
ABOVE_NOISE = 0.95
"""Share of the trees that have to find more than noise in a dimension for it to be resolved."""
FEWEST_TRIALS = 10
ADAPTIVE = ("tpe", "gp")
"""Samplers that look where scores are high, so that what they saw is no fair sample of the space."""
_CALIBRATED, _CALIBRATED_TRIALS = ("random", "qmc"), 50
"""What docs/STATISTICS.md measured how often intervals hold the truth for."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Of one dimension of the space; shares of all dimensions sum to 1."""

    label: str
    share: float
    """fANOVA: of the variance of scores that single dimensions explain."""
    low: float
    high: float
    """Interval of that share; low is 0 where it is not resolved."""
    resolved: bool
    """Whether 19 of 20 trees give it more than the median tree gives a copy of it with shuffled values."""
    top: float
    """PED-ANOVA: share in telling the best tenth of the trials from the others; not calibrated."""


def importances(state: StudyState, experiment: Experiment) -> list[Importance]:
    """Of every dimension, the largest first, from the finished trials in the space; empty for fewer than ten."""
    assert state.opened is not None
    points, scores = located(state, experiment.space, experiment.base.dotted())
    return measure_importances(points, scores, experiment.space.dimensions, seed_of(state.opened.seed))


def located(state: StudyState, space: Space, base: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[float]]:
    """Points of the space (label -> value) at which a trial finished, references among them, and their scores [dB]."""
    points, scores = [], []
    for trial in state.trials.values():
        point = space.locate(trial.config.dotted(), base)
        if trial.status == "finished" and not trial.is_replicate and point is not None:
            points.append(point)
            scores.append(trial.score or 0.0)
    return points, scores


def stopped(state: StudyState) -> int:
    """How many trials were stopped early. They are left out: their scores are of fewer patches."""
    return sum(t.status in ("pruned", "paused") and not t.is_replicate for t in state.trials.values())


def calibrated(state: StudyState, sampler: str, count: int) -> bool:
    """Whether it was measured how often intervals of such a study hold the truth: nine times of ten.

    A sampler that is not adaptive, and no trial missing for its score: none stopped early, none failed.

    Args:
        count: of the trials that importances are measured from.
    """
    whole = all(t.status not in ("pruned", "paused", "failed") or t.is_replicate for t in state.trials.values())
    return sampler in _CALIBRATED and count >= _CALIBRATED_TRIALS and whole


def seed_of(study_seed: int) -> int:
    """The seed of a study's forests."""
    return child_seed(study_seed, "importance")


def measure_importances(
    points: Sequence[Mapping[str, Any]], scores: Sequence[float], dimensions: Sequence[Dimension], seed: int
) -> list[Importance]:
    """Importances from points of a space (label -> value) and their scores; empty where nothing can be said."""
    if len(points) < FEWEST_TRIALS or len(set(scores)) < 2 or len(dimensions) < 2:
        return []
    columns = {d.label: [encode_value(d, point[d.label]) for point in points] for d in dimensions}
    distributions = {d.label: distribution_of(d) for d in dimensions}
    shares = _per_tree(columns, distributions, scores, seed)
    shuffler = random.Random(seed)
    copies = {f"shuffled {label}": shuffler.sample(column, len(column)) for label, column in columns.items()}
    beside = _per_tree(
        columns | copies, distributions | {f"shuffled {k}": d for k, d in distributions.items()}, scores, seed
    )
    top = get_param_importances(_study(columns, distributions, scores), evaluator=PedAnovaImportanceEvaluator())
    found = []
    for d in dimensions:
        noise = np.median(beside[f"shuffled {d.label}"])
        resolved = bool(np.quantile(beside[d.label], 1 - ABOVE_NOISE) > noise)
        low, high = np.quantile(shares[d.label], (LOW, HIGH))
        share = float(np.mean(shares[d.label]))
        found.append(Importance(d.label, share, float(low) if resolved else 0.0, float(high), resolved, top[d.label]))
    return sorted(found, key=lambda one: -one.share)


def _per_tree(
    columns: Mapping[str, list[Any]], distributions: Mapping[str, Any], scores: Sequence[float], seed: int
) -> dict[str, list[float]]:
    """The shares that each of a forest's trees finds, by column. A forest of one tree has a bootstrap sample, too."""
    study = _study(columns, distributions, scores)
    found: dict[str, list[float]] = {label: [] for label in columns}
    for tree in range(TREES):
        evaluator = FanovaImportanceEvaluator(n_trees=1, seed=(seed + tree) % 2**32)
        try:
            shares = get_param_importances(study, evaluator=evaluator, params=list(columns))
        except RuntimeError:  # a sample of one score many times has no variance to explain
            continue
        for label in columns:
            found[label].append(shares[label])
    return found


class _Constant:
    """Mixed into a distribution: it equals itself without a comparison, and all trials of a study hold the same one.

    For each tree Optuna compares the distributions of every trial with those of the first; choice by choice that takes
    a fifth of the time of all importances.
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
    """The same distribution, as one object for all trials."""
    match distribution:
        case FloatDistribution():
            return _Float(distribution.low, distribution.high, log=distribution.log)
        case IntDistribution():
            return _Int(distribution.low, distribution.high, log=distribution.log)
        case CategoricalDistribution():
            return _Categorical(distribution.choices)
    return distribution


def _study(columns: Mapping[str, list[Any]], distributions: Mapping[str, Any], scores: Sequence[float]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    constant = {label: _constant(distribution) for label, distribution in distributions.items()}
    study.add_trials(
        [
            create_trial(
                value=score, params={k: column[i] for k, column in columns.items()}, distributions=dict(constant)
            )
            for i, score in enumerate(scores)
        ]
    )
    return study


def importance_sentences(found: Sequence[Importance], sampler: str, left_out: int = 0) -> list[str]:
    """Importances in words, the conditions first.

    Args:
        left_out: how many trials were `stopped` early.
    """
    if not found:
        return []
    conditions = ["conditional on where the sampler looked"] if sampler in ADAPTIVE else []
    if left_out:
        conditions.append(f"{left_out} stopped {'trials' if left_out > 1 else 'trial'} left out")
    where = f" ({'; '.join(conditions)})" if conditions else ""
    told = [
        f"{one.label} {_percent(one.share)} ({_percent(one.low)}–{_percent(one.high)})" for one in found if one.resolved
    ]
    rest = [one.label for one in found if not one.resolved]
    lines = [f"importance{where}: {', '.join(told) or 'of no hyperparameter resolved from noise'}"]
    if told and rest:
        lines.append(f"not resolved from noise: {', '.join(rest)}")
    return lines


def _percent(share: float) -> str:
    """Whole per cents; what is little but no noise is not told as nothing."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
