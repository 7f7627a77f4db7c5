"""The tail's stage: from trunk features to features at the output's resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import Scale
from sr_core.model.attention import conv3x3, leaky

FACTORS: dict[Scale, tuple[int, ...]] = {2: (2,), 3: (3,), 4: (2, 2)}
"""By what each stage of the tail enlarges."""


class EnlargeStage(nn.Module):
    """Nearest-neighbour enlargement by `factor`, then convolutions at the new size with pixel attention between."""

    def __init__(self, n_in: int, n_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.enlarge = conv3x3(n_in, n_out, bias=True)
        self.gate = nn.Conv2d(n_out, n_out, 1)
        self.refine = conv3x3(n_out, n_out, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=self.factor, mode="nearest")  # (N, n_in, factor*H, factor*W)
        x = self.enlarge(x)
        return leaky(self.refine(leaky(x * torch.sigmoid(self.gate(x)))))
