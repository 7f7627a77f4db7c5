"""What a study's settings are resolved for."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sr_core.training import choice
from sr_core.training.runtime import Runtime, resolve
from study.executors import opening as executors
from study.executors.placement import Placement
from study.executors.runtime import resolve_runtime
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Choice, Float, Grid, Together

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

    monkeypatch.setattr(choice, "choose", choose)
    experiment = Experiment(question="Which learns fastest?", base=TrialConfig(seed=7), nuisance=nuisance, rungs=(960,))
    resolve_runtime(experiment, trials=3, placement=Placement())
    assert asked["shapes"] == compilations
    assert asked["patches"] == 3 * experiment.base.train.budget_patches
    resolve_runtime(experiment, trials=3, placement=Placement(slots=2, executor="processes"))
    assert asked["shapes"] == 2 * compilations, "two processes that train at once compile at the same time"


def test_the_speed_is_measured_with_the_training_pixels_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def choose(*_: object, **options: Any) -> Runtime:
        asked.update(options)
        return resolve(threads=1)

    monkeypatch.setattr(choice, "choose", choose)
    monkeypatch.setattr(executors, "pixel_bytes", lambda store, scale: 1_000 * scale)
    experiment = Experiment(question="?", base=TrialConfig(seed=7), rungs=(960,))
    placement = Placement(executor="processes", slots=4, gpus=("0", "0", "1", "1"))
    executors.runtime_for(experiment, 3, placement, store=object())  # type: ignore[arg-type]
    assert (asked["pixels"], asked["trainings_per_device"]) == (2_000, 2)


@pytest.mark.parametrize(("gpus", "share"), [(("0", "1"), 1.0), (("0", "0", "0"), 0.25)])
def test_trials_that_share_a_gpu_may_each_take_their_part_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, gpus: tuple[str, ...], share: float
) -> None:
    gpu = replace(resolve(threads=1), device="cuda")
    made: list[Any] = []
    monkeypatch.setattr(Runtime, "here", lambda self: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 << 30, 72 << 30))
    monkeypatch.setattr(executors, "choose_patch_source", lambda *_, **__: "device")
    monkeypatch.setattr(executors, "ProcessPool", made.append)
    store: Any = SimpleNamespace(path=Path("store.h5"))
    placement = Placement(executor="processes", slots=len(gpus), gpus=gpus)
    executors.open_executor(placement, store, gpu, 2, 50.0)
    assert made[0].gpu_share == pytest.approx(share), "of nine tenths of what is free"
