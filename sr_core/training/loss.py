"""Pixel losses, on pixels in 0..1 whatever the network's own input range."""

import torch
from torch import Tensor

from sr_core.config import TrainConfig


def pixel_loss(sr: Tensor, hr: Tensor, config: TrainConfig) -> Tensor:
    """Scalar loss of a batch (N, 3, H, W), pixels in 0..1.

    l1 |d|, l2 d², charbonnier sqrt(d² + eps) (Lai et al., arXiv 1710.01992), reduced over every sample.
    """
    difference = sr - hr
    match config.loss:
        case "l1":
            per_sample = difference.abs()
        case "l2":
            per_sample = difference.square()
        case "charbonnier":
            per_sample = torch.sqrt(difference.square() + config.charbonnier_eps)
    return per_sample.mean() if config.loss_reduction == "mean" else per_sample.sum()
