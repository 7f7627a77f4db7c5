"""The upsampler stage, which enlarges features towards the output resolution."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import Scale
from sr_core.model.attention import conv3x3, leaky

FACTORS: dict[Scale, tuple[int, ...]] = {2: (2,), 3: (3,), 4: (2, 2)}
"""Enlargement factors of the upsampler stages for each scale. A scale of 4 uses two stages of 2."""


class EnlargeStage(nn.Module):
    """Enlarges features by `factor` with nearest-neighbour interpolation, two 3x3 convolutions and pixel attention."""

    def __init__(self, n_in: int, n_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.enlarge = conv3x3(n_in, n_out, bias=True)
        self.gate = nn.Conv2d(n_out, n_out, 1)
        self.refine = conv3x3(n_out, n_out, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, factor*H, factor*W)."""
        x = F.interpolate(x, scale_factor=self.factor, mode="nearest")  # (N, n_in, factor*H, factor*W)
        x = self.enlarge(x)
        return leaky(self.refine(leaky(x * torch.sigmoid(self.gate(x)))))
