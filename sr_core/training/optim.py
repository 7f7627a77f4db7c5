"""What moves the weights: Adam, its learning rate over patches, and the running average that is scored."""

import copy
import math

import torch
from torch import nn
from torch.optim import Adam

from sr_core.config import TrainConfig


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


def adam(model: nn.Module, config: TrainConfig) -> Adam:
    """Adam over every parameter, as one fused kernel where the device has it."""
    return Adam(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_eps,
        fused=True,
    )


class WeightAverage:
    """Exponential moving average of a model's weights, bias-corrected, as a model of its own.

    With decay d = exp(-batch / horizon) the corrected average after n steps is the weighted mean of the n weights
    seen so far, weights d^(n-i) (the correction of Adam, arXiv 1412.6980, section 3). It is kept corrected:
    average += (1 - d) / (1 - d^n) * (weights - average), so after the first step it is the weights themselves.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._rate = config.batch_size / config.ema_horizon_patches

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step number `step`, counted from 1."""
        weight = math.expm1(-self._rate) / math.expm1(-self._rate * step)
        for average, current in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(current, weight)
