"""Initial weights of a network.

The initial values of a tensor depend only on the seed and the tensor's name, fan-in and shape. They do not depend on
the other tensors or on the device.
"""

import math

import torch
from torch import Tensor, nn

from sr_core.seed import child_seed


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every weight and bias uniformly from ±1/sqrt(fan_in), which is PyTorch's default distribution.

    Each tensor has its own random stream, seeded with child_seed(seed, "weights", name) and drawn on the CPU in
    float32. Networks of different depth, scale or kernel size therefore start with equal values in the tensors that
    they share.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()  # the number of inputs of one output channel
            bound = 1 / math.sqrt(fan_in)
            _draw(module.weight, f"{name}.weight", bound, seed)
            if module.bias is not None:
                _draw(module.bias, f"{name}.bias", bound, seed)
        else:
            assert not list(module.parameters(recurse=False)), f"{name}: no initial values for {type(module).__name__}"


@torch.no_grad()
def _draw(parameter: Tensor, name: str, bound: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(child_seed(seed, "weights", name))
    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
