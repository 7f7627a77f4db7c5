"""Initial weights by name: a tensor's first values do not depend on what else the network holds, nor on the device."""

import math

import torch
from torch import Tensor, nn

from sr_core.seed import child_seed


def initialise(model: nn.Module, seed: int) -> None:
    """Give every weight and bias PyTorch's default distribution, uniform in ±1/sqrt(fan_in), from its own stream.

    The stream of a tensor is child_seed(seed, "weights", name), drawn on the CPU in float32. So two networks of
    different depth, scale or kernel share the values of the tensors that they share.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())  # fan_in: the inputs of one output channel
            _draw(module.weight, f"{name}.weight", bound, seed)
            if module.bias is not None:
                _draw(module.bias, f"{name}.bias", bound, seed)
        else:
            assert not list(module.parameters(recurse=False)), f"{name}: no initial values for {type(module).__name__}"


@torch.no_grad()
def _draw(parameter: Tensor, name: str, bound: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(child_seed(seed, "weights", name))
    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
