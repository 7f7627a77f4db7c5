"""The attention in attention network A2N (arXiv 2104.09497) and its smaller variant A2N-M."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import ModelConfig, Scale
from sr_core.model.attention import AttentionInAttention, conv3x3
from sr_core.model.upsample import FACTORS, EnlargeStage


class A2N(nn.Module):
    """Enlarges LR images by `scale`. Pixel values are in [0, 1].

    The receptive field is the whole image, because each block uses global average pooling. Enlarging the tiles of an
    image separately therefore gives a different result.
    """

    def __init__(self, config: ModelConfig, scale: Scale) -> None:
        super().__init__()
        self.config = config
        self.scale: Scale = scale
        n_trunk = config.n_feats
        n_tail = config.upsampler_feats
        self.head = conv3x3(3, n_trunk, bias=True)
        self.blocks = nn.Sequential(*(AttentionInAttention(config) for _ in range(config.n_blocks)))
        self.trunk_end = conv3x3(n_trunk, n_trunk, bias=True)
        stages: list[nn.Module] = []
        n_in = n_trunk
        for factor in FACTORS[scale]:
            stages.append(EnlargeStage(n_in, n_tail, factor))
            n_in = n_tail
        self.tail = nn.Sequential(*stages)
        self.to_rgb = conv3x3(n_tail, 3, bias=True)

    def forward(self, lr: Tensor) -> Tensor:
        """Map LR images (N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W), whose values may lie slightly outside [0, 1].

        Inside the network, pixel values are in [0, input_range]. The effect of the temperature depends on this range.
        """
        shallow = self.head(lr * self.config.input_range)  # (N, n_feats, H, W)
        deep = shallow + self.trunk_end(self.blocks(shallow))
        detail = self.to_rgb(self.tail(deep))  # (N, 3, s*H, s*W) in 0..input_range
        return torch.add(self.enlarged(lr), detail, alpha=1 / self.config.input_range)

    def enlarged(self, lr: Tensor) -> Tensor:
        """The interpolated input, which is added to the network's output: (N, 3, H, W) to (N, 3, s*H, s*W)."""
        mode = self.config.skip_interpolation
        align_corners = False if mode == "bilinear" else None
        return F.interpolate(lr, scale_factor=self.scale, mode=mode, align_corners=align_corners)
