"""Importances and their uncertainty, for functions whose importances are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from scipy.stats import qmc

from experiments.quickstart import EXPERIMENT
from study.question.space import Choice, Dimension, Grid
from study.statistics import importance
from study.statistics.importance import (
    Importance,
    calibrated,
    importance_sentences,
    importances,
    measure_importances,
    stopped,
)

DIMENSIONS = tuple(
    Dimension((name,), kind, "nuisance")
    for name, kind in {
        "train.loss": Choice("l1", "l2", "charbonnier"),
        "data.train_kernel": Choice(*"abcdef"),
        "model.temperature": Grid(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "model.input_range": Choice(1, 255),
        "model.reduction": Grid(2, 4, 8, 10),
    }.items()
)
SIZES = [len(d.listed or ()) for d in DIMENSIONS]


def planted(generator: np.random.Generator, shares: Any) -> Callable[[Any], Any]:
    """A sum of one function for each dimension, each with exactly its share of a variance of 1 over the space."""
    effects = []
    for size, share in zip(SIZES, shares, strict=True):
        effect = generator.normal(size=size)
        effects.append(np.sqrt(share) * (effect - effect.mean()) / effect.std())
    return lambda cells: sum(effect[cells[:, i]] for i, effect in enumerate(effects))


def explore(generator: np.random.Generator, count: int, how: str = "random") -> Any:
    """(count, dimensions) indices into the listed values."""
    if how == "qmc":
        return (qmc.Sobol(len(SIZES), rng=generator).random(count) * SIZES).astype(int)
    return generator.integers(0, SIZES, size=(count, len(SIZES)))


def measured(cells: Any, scores: Any, seed: int = 1) -> dict[str, Importance]:
    points = [{d.label: (d.listed or ())[i] for d, i in zip(DIMENSIONS, cell, strict=True)} for cell in cells]
    return {one.label: one for one in measure_importances(points, scores.tolist(), DIMENSIONS, seed)}


def test_hyperparameters_that_matter_are_resolved_and_others_are_not() -> None:
    generator = np.random.default_rng(1)
    cells = explore(generator, 80)
    results = measured(cells, planted(generator, [0, 0.6, 0.4, 0, 0])(cells) + generator.normal(0, 0.1, 80))
    assert list(results)[:2] == ["data.train_kernel", "model.temperature"]
    assert {label for label, one in results.items() if one.resolved} == {"data.train_kernel", "model.temperature"}
    assert results["train.loss"].low == 0.0
    assert sum(one.share for one in results.values()) == pytest.approx(1)
    assert sum(one.top for one in results.values()) == pytest.approx(1)
    for one in results.values():
        assert one.low <= one.share <= max(one.high, one.share)


def test_noise_alone_resolves_nothing() -> None:
    generator = np.random.default_rng(2)
    results = measured(explore(generator, 40), generator.normal(size=40))
    assert not any(one.resolved for one in results.values())


def test_the_same_seed_gives_the_same_intervals() -> None:
    generator = np.random.default_rng(3)
    cells = explore(generator, 30)
    scores = generator.normal(size=30)
    assert measured(cells, scores) == measured(cells, scores)


def test_optuna_compares_no_distributions_of_trials_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "TREES", 3)
    generator = np.random.default_rng(6)
    cells = explore(generator, 30)
    scores = planted(generator, [0, 0.6, 0.4, 0, 0])(cells)
    compared: list[object] = []
    whole = CategoricalDistribution.__eq__
    monkeypatch.setattr(
        CategoricalDistribution, "__eq__", lambda self, other: compared.append(other) or whole(self, other)
    )
    results = measured(cells, scores)
    assert compared == []
    monkeypatch.setattr(importance, "_constant", lambda distribution: distribution)
    assert measured(cells, scores) == results
    assert len(compared) >= 2 * 3 * 29, "for each tree, each trial"


@pytest.mark.parametrize(("count", "equal"), [(9, False), (20, True)])
def test_few_trials_or_equal_scores_say_nothing(count: int, equal: bool) -> None:
    generator = np.random.default_rng(4)
    scores = np.full(count, 30.0) if equal else generator.normal(size=count)
    assert measured(explore(generator, count), scores) == {}


def test_finished_search_trials_are_what_counts(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for i in range(12):
        values = {"model.temperature": (0.1, 1.0, 100.0)[i % 3], "model.reduction": (2, 8)[i % 2]}
        study.try_out(values, 30 - 2.0 * (i % 3) + 0.01 * (i % 5))
    study.try_out({"model.temperature": 0.3}, 99.0, "pruned")
    results = importances(study.state, EXPERIMENT)
    assert results[0].label == "model.temperature"
    assert results[0].resolved
    alone = study.state
    assert results == importances(alone, replace(EXPERIMENT, scheduler="none"))


def test_words_say_what_is_resolved_what_is_not_and_on_which_condition() -> None:
    results = [
        Importance("model.temperature", 0.61, 0.4, 0.8, True, 0.5),
        Importance("train.loss", 0.39, 0.0, 0.5, False, 0.5),
    ]
    assert importance_sentences(results, "tpe") == [
        "importance (conditional on where the sampler looked): model.temperature 61% (40%–80%)",
        "not resolved from noise: train.loss",
    ]
    little = Importance("train.loss", 0.01, 0.001, 0.5, True, 0.5)
    assert importance_sentences([little], "random") == ["importance: train.loss 1% (<1%–50%)"]
    assert importance_sentences(results[1:], "random") == ["importance: no hyperparameter is resolved from noise"]
    assert importance_sentences([], "tpe") == []
    assert importance_sentences(results, "tpe", 12)[0].startswith(
        "importance (conditional on where the sampler looked; 12 stopped trials left out): model"
    )
    assert importance_sentences(results, "random", 1)[0].startswith("importance (1 stopped trial left out): model")


def test_stopped_trials_are_pruned_and_paused_ones_and_undo_the_calibration(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for i in range(50):
        study.try_out({"model.temperature": 1.0}, 30 + 0.01 * i)
    assert stopped(study.state) == 0
    assert calibrated(study.state, "random", 50) and calibrated(study.state, "qmc", 50)
    assert not calibrated(study.state, "random", 49)
    assert not any(calibrated(study.state, sampler, 50) for sampler in ("tpe", "gp", "grid", "replay"))
    study.try_out({"model.temperature": 0.3}, 20.0, "pruned")
    number = study.propose({"model.temperature": 0.2})
    study.start(number)
    study.validate(number, 20.0)
    study.pause(number)
    assert stopped(study.state) == 2
    assert not calibrated(study.state, "random", 50)


@pytest.mark.long
@pytest.mark.parametrize(("how", "count"), [("random", 50), ("qmc", 64)])
def test_intervals_contain_the_planted_importances(how: str, count: int) -> None:
    generator = np.random.default_rng([5, count])
    covered = []
    false_alarms = []
    resolved = []
    for study in range(60):
        shares = generator.dirichlet(np.full(len(SIZES), 0.7))
        shares[generator.integers(len(SIZES))] = 0
        shares /= shares.sum()
        cells = explore(generator, count, how)
        scores = planted(generator, shares)(cells) + generator.normal(0, 0.3, count)
        results = measured(cells, scores, seed=study)
        for d, share in zip(DIMENSIONS, shares, strict=True):
            one = results[d.label]
            covered.append(one.low <= share <= one.high)
            if share == 0:
                false_alarms.append(one.resolved)
            elif share >= 0.2:
                resolved.append(one.resolved)
    print(f"\n{how}, {count} trials: {np.mean(covered):.1%} of the intervals contain the planted share; resolved: "
          f"{np.mean(false_alarms):.1%} of dimensions without influence, {np.mean(resolved):.1%} of shares of a fifth "
          "or more")  # fmt: skip
    assert 0.85 <= np.mean(covered) <= 0.95
    assert np.mean(false_alarms) <= 0.1
