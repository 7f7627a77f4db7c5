"""Where a trial takes up its work: at its checkpoint, or at its beginning if that is of no use."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import TakenOverError
from sr_core.training.checkpoint import save_checkpoint
from sr_core.training.runtime import resolve
from sr_core.training.step import Step, TrainState
from study.executors.trial import Command, TrialContext, TrialTask, _at_beginning, _at_checkpoint, run_trial
from study.question.config import TrialConfig
from study.record.events import Started

CONFIG = TrialConfig(
    model=ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1),
    data=DataConfig(lr_patch_size=8),
    train=TrainConfig(budget_patches=8, batch_size=2),
    evaluation=EvaluationConfig(every_patches=4),
)
RUNTIME = resolve(threads=1)


def task(folder: Path, epoch: int = 1) -> TrialTask:
    return TrialTask(
        number=3, config=CONFIG, config_hash=CONFIG.digest(), folder=folder, epoch=epoch, slot=0, source="here"
    )


def trained(folder: Path, epoch: int) -> TrainState:
    """A run after one step, with its checkpoint in the folder."""
    state = _at_beginning(task(folder, epoch), RUNTIME)
    black = np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 3, 16, 16), np.uint8)
    Step(state, CONFIG.train, RUNTIME, lambda first, n: black)()
    save_checkpoint(task(folder).checkpoint, state, task(folder, epoch).mark)
    return state


def test_a_trial_goes_on_at_its_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, epoch=1)
    resumed = _at_checkpoint(task(tmp_path, 2), RUNTIME)
    assert resumed is not None
    assert resumed.patches == 2


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert _at_checkpoint(task(tmp_path), RUNTIME) is None


def test_a_damaged_checkpoint_costs_its_patches_not_the_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(tmp_path, epoch=1)
    content = bytearray(task(tmp_path).checkpoint.read_bytes())
    content[-5] ^= 1
    task(tmp_path).checkpoint.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert _at_checkpoint(task(tmp_path), RUNTIME) is None
    assert "trial 3 starts over" in caplog.text


def test_a_checkpoint_of_a_later_owner_is_left_to_it(tmp_path: Path) -> None:
    trained(tmp_path, epoch=2)
    with pytest.raises(TakenOverError, match="owner 2"):
        _at_checkpoint(task(tmp_path, 1), RUNTIME)


def test_a_trial_that_is_told_to_leave_as_it_begins_does_not_wait_for_its_first_step(tmp_path: Path) -> None:
    def batch(first: int, count: int) -> None:
        raise AssertionError("a step, which may have to compile the network first")

    patches = SimpleNamespace(batch=batch)
    context = SimpleNamespace(runtime=RUNTIME, patches=lambda config: patches, scorer=lambda config: None)
    trial = run_trial(task(tmp_path), cast(TrialContext, context))
    assert isinstance(next(trial), Started)
    with pytest.raises(StopIteration):
        trial.send(Command.SUSPEND)
    assert not task(tmp_path).checkpoint.exists()
