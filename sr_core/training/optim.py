"""What moves the weights: Adam, its learning rate over patches, and the running average that is scored."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Adam

from sr_core.config import TrainConfig
from sr_core.training import torch_private


def learning_rate(config: TrainConfig, patches: int) -> float:
    """Learning rate of the step that starts after `patches` training patches.

    A function of patches over the full budget alone, so that batch sizes decay alike and nothing restarts
    after a resume.
    """
    done = patches / config.budget_patches
    match config.schedule:
        case "constant":
            return config.learning_rate
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case "step":
            # The small term keeps a drop at, say, 0.3 of the budget from being missed to rounding (0.3 / 0.1 < 3).
            drops = math.floor(done / config.step_interval + 1e-9)
            return config.learning_rate * config.step_factor**drops


def adam(model: nn.Module, config: TrainConfig, *, rate_on_device: bool = False) -> Adam:
    """Adam over every parameter, as one fused kernel.

    Args:
        rate_on_device: the learning rate is a float32 in the device's memory, where a CUDA graph reads it.
    """
    device = next(model.parameters()).device
    rate = config.learning_rate
    return Adam(
        model.parameters(),
        lr=torch.tensor(rate, device=device) if rate_on_device else rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


@contextmanager
def capturable(optimizer: Adam) -> Iterator[None]:
    """In this block the optimiser's step may be captured.

    Torch refuses to capture the step of another optimiser, and warns when one that may be captured takes a step that
    is not, as the steps before a capture are. A fused step computes the same either way.
    """
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


def averaging_weight(config: TrainConfig, step: int) -> float:
    """What share of the running average the weights after optimiser step number `step` get, counted from 1.

    With decay d = exp(-batch / horizon) the bias-corrected average after n steps is the weighted mean of the n weights
    seen so far, weights d^(n-i) (the correction of Adam, arXiv 1412.6980, section 3). It is kept corrected:
    average += (1 - d) / (1 - d^n) * (weights - average), so after the first step it is the weights themselves.
    """
    rate = config.batch_size / config.ema_horizon_patches
    return math.expm1(-rate) / math.expm1(-rate * step)


class WeightAverage:
    """Exponential moving average of a model's weights as a model of its own; `averaging_weight` gives its shares."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averages: list[Tensor] = list(self.model.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Take in the present weights; a share on the device (a scalar) is read when that device comes to it.

        The two round differently, so one training has one of them throughout.
        """
        torch_private.move_towards(self._averages, self._weights, share)
