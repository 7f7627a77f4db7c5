"""The optimiser, its learning rate schedule, and the moving average of the weights that is scored."""

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
    """The learning rate of the step that starts after `patches` training patches.

    It depends only on the fraction of the budget that is done, so that all batch sizes follow the same schedule and a
    resumed training continues it. With that fraction t and the initial rate r, the rate is r for "constant",
    r (1 + cos(pi t)) / 2 for "cosine" (Loshchilov and Hutter, arXiv 1608.03983, without restarts), and
    r * step_factor ** floor(t / step_interval) for "step".
    """
    done = patches / config.budget_patches
    match config.schedule:
        case "constant":
            return config.learning_rate
        case "cosine":
            return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        case "step":
            # 0.3 / 0.1 is less than 3 in floating point. The small term prevents a late drop because of such rounding.
            drops = math.floor(done / config.step_interval + 1e-9)
            return config.learning_rate * config.step_factor**drops


def adam(model: nn.Module, config: TrainConfig, *, rate_on_device: bool = False) -> Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980) over every parameter, as one fused kernel.

    Args:
        rate_on_device: store the learning rate as float32 in the device's memory, where a CUDA graph reads it.
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
    """Allow the optimiser's step to be captured within this block.

    Torch refuses to capture the step of an optimiser that is not marked as capturable. It warns if a capturable
    optimiser takes an ordinary step, as it does before a capture. A fused step computes the same in both cases.
    """
    for group in optimizer.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


def averaging_weight(config: TrainConfig, step: int) -> float:
    """The share of the weights after step number `step` in the moving average, from 0 to 1.

    With the decay d = exp(-batch_size / ema_horizon_patches), the bias-corrected average after n steps is the mean of
    the weights after steps i = 1 to n, weighted with d^(n-i) (the correction of Adam, arXiv 1412.6980, section 3). The
    average is updated in corrected form: average += (1 - d) / (1 - d^n) * (weights - average). After the first step it
    equals the weights.

    Args:
        step: the number of the optimiser step, starting at 1.
    """
    rate = config.batch_size / config.ema_horizon_patches
    return math.expm1(-rate) / math.expm1(-rate * step)


class WeightAverage:
    """The exponential moving average of a model's weights, as a separate model. `averaging_weight` gives the shares."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._averages: list[Tensor] = list(self.model.parameters())
        self._weights: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, share: float | Tensor) -> None:
        """Move the average by this share towards the current weights.

        Args:
            share: a number, or a scalar tensor on the device, which the device reads when it executes the update. The
                two round differently, so a training always uses the same kind.
        """
        torch_private.move_towards(self._averages, self._weights, share)
