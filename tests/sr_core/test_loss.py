"""Pixel losses: values in closed form and against NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_core.config import TrainConfig
from sr_core.training.loss import pixel_loss

LOSSES = ("l1", "l2", "charbonnier")


def batch(seed: int) -> Tensor:
    return torch.rand((4, 3, 6, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("loss", "value"), [("l1", 0.25), ("l2", 0.0625), ("charbonnier", math.sqrt(0.0625 + 1e-6))])
def test_the_same_difference_everywhere_is_the_loss_of_that_difference(loss: str, value: float) -> None:
    hr = batch(1)
    assert pixel_loss(hr - 0.25, hr, TrainConfig(loss=loss)).item() == pytest.approx(value, rel=1e-12)
    assert pixel_loss(hr + 0.25, hr, TrainConfig(loss=loss)).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_equals_its_formula_in_numpy(loss: str, reduction: str) -> None:
    sr = batch(1)
    hr = batch(2)
    d = sr.numpy() - hr.numpy()
    per_sample = {"l1": np.abs(d), "l2": d**2, "charbonnier": np.sqrt(d**2 + 0.01)}[loss]
    expected = getattr(per_sample, reduction)()
    config = TrainConfig(loss=loss, loss_reduction=reduction, charbonnier_eps=0.01)
    assert pixel_loss(sr, hr, config).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sum_is_the_mean_times_every_sample_of_the_batch(loss: str) -> None:
    sr = batch(1)
    hr = batch(2)
    mean, total = (pixel_loss(sr, hr, TrainConfig(loss=loss, loss_reduction=how)) for how in ("mean", "sum"))
    assert total.item() == pytest.approx(4 * 3 * 6 * 5 * mean.item(), rel=1e-12)


def test_charbonnier_of_equal_images_is_the_root_of_eps_and_has_no_slope() -> None:
    hr = batch(1)
    sr = hr.clone().requires_grad_()
    loss = pixel_loss(sr, hr, TrainConfig(loss="charbonnier", charbonnier_eps=1e-4))
    loss.backward()
    assert loss.item() == pytest.approx(0.01, rel=1e-12)
    assert sr.grad is not None
    assert not sr.grad.any()


def test_charbonnier_comes_near_l1_as_eps_goes_to_zero() -> None:
    sr = batch(1)
    hr = batch(2)
    absolute = pixel_loss(sr, hr, TrainConfig(loss="l1")).item()
    near = pixel_loss(sr, hr, TrainConfig(loss="charbonnier", charbonnier_eps=1e-12)).item()
    assert 0 < near - absolute < 1e-6  # sqrt(d² + eps) - |d| is at most sqrt(eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_which_image_is_the_truth_does_not_change_a_loss(loss: str) -> None:
    sr = batch(1)
    hr = batch(2)
    assert pixel_loss(sr, hr, TrainConfig(loss=loss)).equal(pixel_loss(hr, sr, TrainConfig(loss=loss)))
