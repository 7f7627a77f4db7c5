"""The attention-in-attention block of A2N (arXiv 2104.09497).

The block has two branches, one with pixel attention and one without. It computes the weight of each branch from the
image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import ModelConfig

NEGATIVE_SLOPE = 0.2
"""Slope of every LeakyReLU below 0."""


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2, computed in place.

    Apply it only to a new result of a convolution, sum or product. Their gradients do not need the output, so autograd
    allows an in-place operation, which saves one copy of every activation.
    """
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


def conv3x3(n_in: int, n_out: int, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that preserves height and width by zero padding."""
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=bias)


class BranchWeights(nn.Module):
    """The attention dropout module, which computes two branch weights per image. They sum to 1.

    It applies global average pooling, two linear layers without bias and softmax(logits / temperature), as in
    arXiv 2104.09497.
    """

    temperature: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.n_feats // config.reduction
        self.squeeze = nn.Linear(config.n_feats, hidden, bias=False)
        self.score = nn.Linear(hidden, 2, bias=False)
        # A tensor, so that the same compiled code works for every temperature.
        self.register_buffer("temperature", torch.tensor(config.temperature), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the attention and the non-attention branch, each of shape (N, 1, 1, 1).

        They have the dtype of x, so that autocast stays in half precision.

        Args:
            x: (N, n_feats, H, W), the features after the block's first convolution and LeakyReLU.
        """
        # `mean` is deterministic on CUDA. The backward pass of adaptive average pooling is not.
        pooled = x.mean(dim=(2, 3))  # (N, n_feats)
        logits = self.score(F.relu(self.squeeze(pooled)))  # (N, 2)
        weights = torch.softmax(logits / self.temperature, dim=1).to(x.dtype)
        attention, non_attention = weights[:, :, None, None, None].unbind(1)
        return attention, non_attention


class AttentionBranch(nn.Module):
    """Pixel attention: each value of each channel is multiplied by its own gate between 0 and 1."""

    def __init__(self, n_feats: int) -> None:
        super().__init__()
        self.gate_context = conv3x3(n_feats, n_feats)
        self.gate = nn.Conv2d(n_feats, n_feats, 1)
        self.features = conv3x3(n_feats, n_feats)
        self.fuse = conv3x3(n_feats, n_feats)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_feats, H, W) to the same shape."""
        gate = torch.sigmoid(self.gate(leaky(self.gate_context(x))))
        gated: Tensor = self.fuse(self.features(x) * gate)
        return gated


class AttentionInAttention(nn.Module):
    """One residual block of the trunk: the weighted sum of both branches, added to the block's input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n_feats = config.n_feats
        kernel_size = config.non_attention_kernel_size
        self.enter = nn.Conv2d(n_feats, n_feats, 1, bias=False)
        self.branch_weights = BranchWeights(config)
        self.attention = AttentionBranch(n_feats)
        self.non_attention = nn.Conv2d(n_feats, n_feats, kernel_size, padding=kernel_size // 2, bias=False)
        self.leave = nn.Conv2d(n_feats, n_feats, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_feats, H, W) to the same shape."""
        inner = leaky(self.enter(x))
        attention, non_attention = self.branch_weights(inner)
        mixed = torch.addcmul(self.attention(inner) * attention, self.non_attention(inner), non_attention)
        return torch.add(x, self.leave(leaky(mixed)))
