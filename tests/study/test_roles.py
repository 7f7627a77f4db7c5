"""Arms at their own best nuisance values, and optima at the edge of their range."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.question.space import Choice, Float, Grid, Int
from study.statistics.roles import arm_sentences, arms, at_an_edge

LOSSES = replace(
    EXPERIMENT,
    scientific={"train.loss": Choice("l1", "l2")},
    nuisance={"model.temperature": Grid(0.1, 1.0, 10.0), "model.reduction": Grid(2, 4, 8)},
)


def tell(study: Any, loss: str, temperature: float, score: float, how: str = "finished") -> int:
    values = {"train.loss": loss, "model.temperature": temperature, "model.reduction": 4}
    number: int = study.try_out(values, score, how)
    return number


def test_every_arm_stands_at_its_own_best_nuisance_values(history: Callable[..., Any]) -> None:
    study = history(LOSSES)
    tell(study, "l1", 0.1, 30.0)
    best_l2 = tell(study, "l2", 1.0, 31.0)
    best_l1 = tell(study, "l1", 10.0, 30.5)
    tell(study, "l2", 0.1, 32.0, "pruned")
    every_arm = arms(study.state, LOSSES)
    assert [(arm.choice["train.loss"], arm.best and arm.best.number) for arm in every_arm] == [
        ("l2", best_l2),
        ("l1", best_l1),
    ]
    assert [(arm.trials, arm.patches) for arm in every_arm] == [(2, 1_920 + 960), (2, 2 * 1_920)]
    assert arm_sentences(study.state, LOSSES) == [
        "train.loss l2: best 31.000 dB, trial 1 (model.temperature 1.0, model.reduction 4; 2 trials, 2,880 patches)",
        "train.loss l1: best 30.500 dB, trial 2 (model.temperature 10.0, model.reduction 4; 2 trials, 3,840 patches)",
    ]


def test_unequal_budgets_and_arms_without_a_result_are_said(history: Callable[..., Any]) -> None:
    study = history(LOSSES)
    for temperature in (0.1, 1.0):
        tell(study, "l1", temperature, 30.0 + temperature)
    text = arm_sentences(study.state, LOSSES)
    assert "train.loss l2: no trial finished (0 trials, 0 patches)" in text
    assert any("unequal nuisance budgets" in line for line in text)


def test_an_experiment_without_a_scientific_choice_has_no_arms(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    study.try_out({"model.temperature": 3.0}, 30.0)
    assert arms(study.state, EXPERIMENT) == []


@pytest.mark.parametrize(
    ("kind", "value", "edge"),
    [
        (Grid(0.1, 1.0, 10.0), 0.1, True),
        (Grid(0.1, 1.0, 10.0), 1.0, False),
        (Float(0.1, 100.0, log=True), 99.0, True),
        (Float(0.1, 100.0, log=True), 0.12, False),
        (Float(0.1, 100.0), 1.2, True),
        (Choice(0.1, 1.0), 0.1, False),
    ],
    ids=str,
)
def test_a_winner_at_the_end_of_a_range_is_warned_of(
    history: Callable[..., Any], kind: Any, value: float, edge: bool
) -> None:
    experiment = replace(EXPERIMENT, nuisance={"model.temperature": kind, "model.n_blocks": Int(1, 50)})
    study = history(experiment)
    study.try_out({"model.temperature": value, "model.n_blocks": 25}, 30.0)
    at_edge = at_an_edge(study.state, experiment)
    assert [d.label for d, _ in at_edge] == (["model.temperature"] if edge else [])
    text = arm_sentences(study.state, experiment)
    assert [line.startswith("warning: the best model.temperature, ") for line in text] == [True] * edge
