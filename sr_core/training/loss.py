"""Pixel losses on pixel values in [0, 1], whatever the input range of the network."""

import torch
from torch import Tensor

from sr_core.config import TrainConfig


def pixel_loss(sr: Tensor, hr: Tensor, config: TrainConfig) -> Tensor:
    """The loss of a batch, a scalar.

    With d = sr - hr, the loss per sample is abs(d) for l1, d² for l2, and sqrt(d² + charbonnier_eps) for charbonnier
    (Lai et al., arXiv 1710.01992). `loss_reduction` selects the mean or the sum over all samples of the batch.

    Args:
        sr, hr: (N, 3, H, W), with pixel values in [0, 1].
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
