"""The files that a longer training may start from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sr_core.config import ModelConfig
from sr_core.errors import CheckpointError
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import to_published
from study.question.config import TrialConfig
from study.session.training import start_from

CONFIG = TrialConfig(model=ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1), seed=3)


def released() -> dict[str, Tensor]:
    model = A2N(CONFIG.model, 2)
    initialise(model, 9)
    return to_published(model.state_dict())


def test_a_start_from_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    state = released()
    state["conv_first.weight"][0, 0] = torch.nan
    torch.save({"params": state}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"net\.pth: 9 of 216 values of tensor conv_first\.weight are NaN"):
        start_from(tmp_path / "net.pth", CONFIG)


def test_a_start_from_another_trainers_checkpoint_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"params_ema": released(), "params": released()}, tmp_path / "net.pth")
    start = start_from(tmp_path / "net.pth", CONFIG)
    assert start.share == 1
    assert capsys.readouterr().err == (
        f"note: {tmp_path / 'net.pth'}: took the tensors under params_ema, not those under params\n"
    )
