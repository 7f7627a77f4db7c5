"""Released weights: names, sizes and scale."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sr_core.config import ModelConfig, Scale
from sr_core.errors import CheckpointError
from sr_core.model.network import A2N
from sr_core.model.published import from_published, published_config, to_published

SMALL = ModelConfig(n_feats=12, upsampler_feats=7, n_blocks=11, reduction=3)


@pytest.fixture(scope="module")
def released(shared: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(shared / "data/weights/a2n_x3.pt", weights_only=True)
    return state


def named_as_published(config: ModelConfig, scale: Scale) -> dict[str, Tensor]:
    return to_published(A2N(config, scale).state_dict())


def test_all_172_released_tensors_come_back_under_their_names(released: dict[str, Tensor]) -> None:
    again = to_published(from_published(released))
    assert len(again) == 172
    assert list(again) == list(released)
    assert all(again[name] is tensor for name, tensor in released.items())


def test_the_released_tensors_are_those_of_the_default_network(released: dict[str, Tensor]) -> None:
    config = published_config(released, 3)
    assert config == ModelConfig(temperature=30, input_range=255)
    ours = {name: t.shape for name, t in A2N(config, 3).state_dict().items()}
    assert {name: t.shape for name, t in from_published(released).items()} == ours


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_sizes_are_read_from_the_tensors(scale: Scale, kernel_size: int) -> None:
    config = ModelConfig(
        n_feats=12, upsampler_feats=7, n_blocks=11, reduction=3, non_attention_kernel_size=1 if kernel_size == 1 else 3
    )
    assert published_config(named_as_published(config, scale), scale) == config


def test_the_second_stage_of_x4_is_named_as_published() -> None:
    extra = named_as_published(SMALL, 4).keys() - named_as_published(SMALL, 2).keys()
    stems = ("upconv2", "att2.conv", "HRconv2")
    assert extra == {f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")}


@pytest.mark.parametrize(("made", "asked"), [(2, 4), (3, 4), (4, 2), (4, 3)])
def test_x4_weights_are_distinguished_from_the_others(made: Scale, asked: Scale) -> None:
    factors = "4" if made == 4 else "2 or 3"
    with pytest.raises(CheckpointError, match=f"enlarge by {factors}, expected weights for scale {asked}"):
        published_config(named_as_published(SMALL, made), asked)


def test_a_foreign_name_is_refused_in_both_directions() -> None:
    with pytest.raises(CheckpointError, match=r"released A2N weights, which have no tensor 'body\.0\.weight'"):
        from_published({"body.0.weight": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"our A2N weights, which have no tensor 'AAB_trunk\.0\.conv_first\.weight'"
    ):
        to_published({"AAB_trunk.0.conv_first.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"no tensor 'head\.running_mean'"):
        to_published({"head.running_mean": torch.zeros(1)})


def test_what_is_no_a2n_has_no_config() -> None:
    with pytest.raises(CheckpointError, match=r"no tensor 'conv_first\.weight' among 1"):
        published_config({"body.0.weight": torch.zeros(1)}, 2)
    with pytest.raises(CheckpointError, match=r"conv_first\.weight has shape \(5,\), expected 4 dimensions"):
        published_config({"conv_first.weight": torch.zeros(5)}, 2)
    five = named_as_published(SMALL, 2) | {"AAB_trunk.0.non_attention.weight": torch.zeros(12, 12, 5, 5)}
    with pytest.raises(CheckpointError, match="non-attention kernel of 5, expected 1 or 3"):
        published_config(five, 2)
    empty = named_as_published(SMALL, 2) | {"upconv1.weight": torch.zeros(0, 12, 3, 3)}
    with pytest.raises(CheckpointError, match=r"model\.upsampler_feats must be"):
        published_config(empty, 2)
