"""Attention in attention: a block that weighs, for each image, a branch with pixel attention against one without."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import ModelConfig

NEGATIVE_SLOPE = 0.2


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU 0.2 over x's own memory: only for a fresh result of a convolution, sum or product.

    None of those needs its output for its gradient, so autograd allows it; it saves a copy of every activation.
    """
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


def conv3x3(n_in: int, n_out: int, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width (zeros outside the image)."""
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=bias)


class BranchWeights(nn.Module):
    """The attention dropout module: how much of each branch an image gets, two weights that sum to 1."""

    temperature: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.n_feats // config.reduction
        self.squeeze = nn.Linear(config.n_feats, hidden, bias=False)
        self.score = nn.Linear(hidden, 2, bias=False)
        # A tensor, so that a compiled network serves every temperature.
        self.register_buffer("temperature", torch.tensor(config.temperature), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(attention, non-attention) weights, each (N, 1, 1, 1) in x's dtype, so that autocast stays in half precision.

        Global average pooling is `mean`: deterministic on CUDA, unlike the backward pass of adaptive pooling.
        """
        pooled = x.mean(dim=(2, 3))  # (N, n_feats)
        logits = self.score(F.relu(self.squeeze(pooled)))  # (N, 2)
        weights = torch.softmax(logits / self.temperature, dim=1).to(x.dtype)
        attention, non_attention = weights[:, :, None, None, None].unbind(1)
        return attention, non_attention


class AttentionBranch(nn.Module):
    """Features under a gate: every pixel of every channel is multiplied by its own value in 0..1."""

    def __init__(self, n_feats: int) -> None:
        super().__init__()
        self.gate_context = conv3x3(n_feats, n_feats)
        self.gate = nn.Conv2d(n_feats, n_feats, 1)
        self.features = conv3x3(n_feats, n_feats)
        self.fuse = conv3x3(n_feats, n_feats)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(leaky(self.gate_context(x))))
        gated: Tensor = self.fuse(self.features(x) * gate)
        return gated


class AttentionInAttention(nn.Module):
    """One block of the trunk: (N, n_feats, H, W) in and out, plus its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n, kernel_size = config.n_feats, config.non_attention_kernel_size
        self.enter = nn.Conv2d(n, n, 1, bias=False)
        self.branch_weights = BranchWeights(config)
        self.attention = AttentionBranch(n)
        self.non_attention = nn.Conv2d(n, n, kernel_size, padding=kernel_size // 2, bias=False)
        self.leave = nn.Conv2d(n, n, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = leaky(self.enter(x))
        a, b = self.branch_weights(inner)
        mixed = torch.addcmul(self.attention(inner) * a, self.non_attention(inner), b)
        return torch.add(x, self.leave(leaky(mixed)))
