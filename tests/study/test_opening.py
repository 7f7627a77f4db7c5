"""What a study's settings are resolved for."""

from typing import Any

import pytest

from sr_core.training.runtime import Runtime, resolve
from study import opening
from study.config import TrialConfig
from study.experiment import Experiment
from study.placement import Placement
from study.space import Choice, Float, Grid, Together

PAIRS = Together("train.batch_size", "train.learning_rate")


@pytest.mark.parametrize(
    ("nuisance", "compilations"),
    [
        ({"model.temperature": Float(0.1, 100.0, log=True), "train.loss": Choice("l1", "l2")}, 1),
        ({"model.input_range": Choice(1, 255)}, 2),
        ({PAIRS: [(8, 1e-3), (16, 1e-3), (16, 2e-3)]}, 2),
        ({PAIRS: [(8, 1e-3), (16, 1e-3)], "model.input_range": Choice(1, 255), "model.reduction": Grid(2, 4, 8)}, 12),
    ],
)
def test_what_each_value_makes_the_compiler_do_again_is_counted(
    monkeypatch: pytest.MonkeyPatch, nuisance: dict[Any, Any], compilations: int
) -> None:
    asked: dict[str, Any] = {}

    def choose(*_: object, **options: Any) -> Runtime:
        asked.update(options)
        return resolve(threads=1)

    monkeypatch.setattr(opening, "choose", choose)
    experiment = Experiment(question="Which learns fastest?", base=TrialConfig(seed=7), nuisance=nuisance, rungs=(960,))
    opening.resolve_runtime(experiment, trials=3, placement=Placement())
    assert asked["shapes"] == compilations
    assert asked["patches"] == 3 * experiment.base.train.budget_patches
    opening.resolve_runtime(experiment, trials=3, placement=Placement(slots=2, executor="processes"))
    assert asked["shapes"] == 2 * compilations, "two processes that train at once compile beside each other"
