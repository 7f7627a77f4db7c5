"""A2N, the attention in attention network (arXiv 2104.09497), and its smaller sister A2N-M."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import ModelConfig, Scale
from sr_core.model.attention import AttentionInAttention, conv3x3
from sr_core.model.upsample import FACTORS, EnlargeStage


class A2N(nn.Module):
    """Images at LR in, the same images `scale` times as large out, both in 0..1.

    Global average pooling makes the whole image the receptive field: an image cut into tiles comes out different.
    """

    def __init__(self, config: ModelConfig, scale: Scale) -> None:
        super().__init__()
        self.config = config
        self.scale: Scale = scale
        n_trunk, n_tail = config.n_feats, config.upsampler_feats
        self.head = conv3x3(3, n_trunk, bias=True)
        self.blocks = nn.Sequential(*(AttentionInAttention(config) for _ in range(config.n_blocks)))
        self.trunk_end = conv3x3(n_trunk, n_trunk, bias=True)
        self.tail = nn.Sequential(
            *(EnlargeStage(n_tail if i else n_trunk, n_tail, factor) for i, factor in enumerate(FACTORS[scale]))
        )
        self.to_rgb = conv3x3(n_tail, 3, bias=True)

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1 becomes (N, 3, s*H, s*W) in about 0..1.

        Inside, pixels run over 0..input_range: the temperature of the branch weights has a meaning only beside it.
        """
        shallow = self.head(lr * self.config.input_range)  # (N, n_feats, H, W)
        deep = shallow + self.trunk_end(self.blocks(shallow))
        detail = self.to_rgb(self.tail(deep))  # (N, 3, s*H, s*W) in 0..input_range
        return torch.add(self.enlarged(lr), detail, alpha=1 / self.config.input_range)

    def enlarged(self, lr: Tensor) -> Tensor:
        mode = self.config.skip_interpolation
        align_corners = False if mode == "bilinear" else None
        return F.interpolate(lr, scale_factor=self.scale, mode=mode, align_corners=align_corners)
