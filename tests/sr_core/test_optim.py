"""Learning rate schedules over patches, Adam's settings, and the average of the weights."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from sr_core.config import TrainConfig
from sr_core.training.optim import WeightAverage, adam, averaging_weight, learning_rate


def train_config(**values: object) -> TrainConfig:
    return TrainConfig(**{"budget_patches": 960, "batch_size": 8, "learning_rate": 1e-3} | values)  # type: ignore[arg-type]


# Schedules


def test_a_constant_rate_stays() -> None:
    config = train_config(schedule="constant")
    assert {learning_rate(config, patches) for patches in range(0, 960, 8)} == {1e-3}


def test_a_cosine_starts_full_is_half_in_the_middle_and_ends_at_zero() -> None:
    config = train_config(schedule="cosine")
    assert learning_rate(config, 0) == 1e-3
    assert learning_rate(config, 320) == pytest.approx(0.75e-3, rel=1e-12)  # cos 60° = 1/2
    assert learning_rate(config, 480) == pytest.approx(0.5e-3, rel=1e-12)
    assert learning_rate(config, 640) == pytest.approx(0.25e-3, rel=1e-12)
    assert learning_rate(config, 960) == pytest.approx(0, abs=1e-18)


def test_a_cosine_never_rises() -> None:
    rates = [learning_rate(train_config(schedule="cosine"), patches) for patches in range(961)]
    assert all(after < before for before, after in itertools.pairwise(rates))


@pytest.mark.parametrize("interval", ["1/10", "1/4", "3/10", "7/100", "1"])
@pytest.mark.parametrize("budget", [960, 1_920, 7_000, 300_000])
def test_steps_fall_at_exact_fractions_of_the_budget(budget: int, interval: str) -> None:
    part = Fraction(interval)
    config = train_config(
        schedule="step", step_interval=float(part), step_factor=0.5, budget_patches=budget, batch_size=1
    )
    for drop in range(1, int(1 / part) + 1):
        at = math.ceil(drop * part * budget)
        assert learning_rate(config, at - 1) == 1e-3 * 0.5 ** (drop - 1)
        assert learning_rate(config, at) == 1e-3 * 0.5**drop


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_schedule_depends_on_the_share_of_the_budget_and_not_on_the_batch(schedule: str) -> None:
    short = train_config(schedule=schedule)
    long = train_config(schedule=schedule, budget_patches=9_600, batch_size=32)
    for patches in range(0, 960, 8):
        assert learning_rate(short, patches) == learning_rate(long, 10 * patches)


# Adam


def test_adam_takes_its_settings_from_the_config() -> None:
    config = train_config(adam_beta1=0.8, adam_beta2=0.95, adam_eps=1e-3)
    (group,) = adam(nn.Linear(2, 2), config).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.8, 0.95), 1e-3)
    assert group["weight_decay"] == 0


def test_adam_equals_its_published_formula() -> None:
    config = train_config(adam_beta1=0.8, adam_beta2=0.95, adam_eps=1e-3)
    model = nn.Linear(3, 1, bias=False).double()
    weights = model.weight.detach().numpy().copy()
    optimizer = adam(model, config)
    gradients = np.random.default_rng(5).standard_normal((6, 1, 3))
    mean = np.zeros((1, 3))
    square = np.zeros((1, 3))
    for step, gradient in enumerate(gradients, start=1):
        model.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        weights -= 1e-3 * (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-3)
    np.testing.assert_allclose(model.weight.detach().numpy(), weights, rtol=1e-12)


# The average of the weights


def walk(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn((2, 3), generator=generator, dtype=torch.float64) for _ in range(steps)]


def averaged(history: list[torch.Tensor], config: TrainConfig) -> torch.Tensor:
    model = nn.Linear(3, 2, bias=False).double()
    average = WeightAverage(model)
    for step, weights in enumerate(history, start=1):
        with torch.no_grad():
            model.weight.copy_(weights)
        average.update(averaging_weight(config, step))
    return next(average.model.parameters())


@pytest.mark.parametrize("steps", [1, 2, 7, 200])
@pytest.mark.parametrize(("batch", "horizon"), [(8, 160.0), (32, 192.0), (8, 4.0), (8, 1e9)])
def test_the_average_is_the_weighted_mean_of_all_weights_so_far(batch: int, horizon: float, steps: int) -> None:
    history = walk(steps)
    decay = math.exp(-batch / horizon)
    shares = np.array([decay ** (steps - i) for i in range(1, steps + 1)])
    direct = np.average([w.numpy() for w in history], axis=0, weights=shares)
    average = averaged(history, train_config(batch_size=batch, ema_horizon_patches=horizon))
    # 200 roundings of float64, on weights of order 1
    np.testing.assert_allclose(average.numpy(), direct, rtol=0, atol=1e-12)


def test_after_one_step_the_average_is_the_weights_themselves() -> None:
    (weights,) = walk(1)
    assert averaged([weights], train_config()).equal(weights)


def test_weights_that_stand_still_are_their_own_average() -> None:
    (weights,) = walk(1)
    assert averaged([weights] * 50, train_config()).equal(weights)


def test_the_horizon_counts_patches_so_two_half_batches_decay_like_a_whole_one() -> None:
    one, other = walk(2)
    whole = averaged([one, other], train_config(batch_size=16))
    halves = averaged([one, one, other, other], train_config(batch_size=8))
    # With the half batch's decay d their shares are d³ + d² : d + 1 = d² : 1, and d² is the whole batch's decay.
    torch.testing.assert_close(halves, whole, rtol=0, atol=1e-14)


def test_the_average_is_a_copy_that_needs_no_gradient() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    before = model.weight.detach().clone()
    with torch.no_grad():
        next(average.model.parameters()).zero_()
    assert model.weight.equal(before)
    assert model.training
