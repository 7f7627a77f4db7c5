"""Computes the network in strips of rows, in little more than the memory of one feature map of the trunk.

The branch weights of a block depend on a mean over the whole image. Enlarging the tiles of an image separately
therefore changes the result. Here each block processes all strips before the next block starts, and its branch weights
are computed from sums over all strips. Each strip is computed together with the rows around it that the block's
convolutions need (its halo). At the edge of the image the halo ends, and the convolutions pad with zeros as they do for
a whole image.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sr_core.model.attention import AttentionInAttention, leaky
from sr_core.model.network import A2N

_BLOCK_HALO = 2
"""Rows that a block needs above and below a strip, because its attention branch applies two 3x3 convolutions."""

_MAX_TENSOR_ELEMENTS = {"cpu": 2**63 - 1}
_MAX_GPU_TENSOR_ELEMENTS = 2**31 - 1
"""The most elements of an operation's input or output on other devices, because a GPU's interpolation uses 32-bit
indices."""


def forward_in_strips(
    model: A2N, lr: Tensor, rows: int, *, progress: Callable[[float], None] = lambda _: None
) -> Tensor:
    """Compute model(lr) in strips. The result differs only by rounding.

    Use it for inference only, because each block overwrites the trunk's feature map.

    Args:
        model: the network, in training or eval mode.
        lr: (N, 3, H, W) in [0, 1], contiguous in any memory format.
        rows: number of LR rows in a strip, at least 1. The last strip may have fewer.
        progress: called after every block with the completed fraction of the work, from 0 to 1.
    Returns:
        (N, 3, s*H, s*W), with the dtype of lr.
    Raises:
        ValueError: rows is less than 1.
    """
    height, width = lr.shape[2:]
    spans = list(_spans(height, rows))
    sweeps = len(model.blocks) + 1

    blocks: list[AttentionInAttention] = []
    for block in model.blocks:
        assert isinstance(block, AttentionInAttention)
        blocks.append(block)

    x, sums = _shallow_features(model, lr, spans, blocks[0])
    for number, block in enumerate(blocks, 1):
        following = blocks[number] if number < len(blocks) else None
        pooled = (sums / (height * width)).to(x.dtype)
        sums = _through_block(block, x, block.branch_weights(pooled[:, :, None, None]), spans, following)
        progress(number / sweeps)
    sr = _tail(model, lr, x, spans)
    progress(1.0)
    return sr


def most_rows(model: A2N, width: int, device: torch.device) -> int:
    """The largest number of rows in a strip for which the device supports the tensors of every operation."""
    factor = 1
    per_pixel = model.config.n_feats
    n_in = model.config.n_feats
    for stage in model.tail:
        assert isinstance(stage.factor, int)
        factor *= stage.factor
        per_pixel = max(per_pixel, factor**2 * max(n_in, model.config.upsampler_feats))
        n_in = model.config.upsampler_feats
    halo = max(_BLOCK_HALO, tail_halo(model))
    return max(1, _max_tensor_elements(device) // (per_pixel * width) - 2 * halo)


def _max_tensor_elements(device: torch.device) -> int:
    return _MAX_TENSOR_ELEMENTS.get(device.type, _MAX_GPU_TENSOR_ELEMENTS)


def tail_halo(model: A2N) -> int:
    """Rows of deep features that the upsampler needs above and below a strip: 2 at x2 and x4, 1 at x3."""
    rows = 1  # for to_rgb
    for stage in reversed(model.tail):
        assert isinstance(stage.factor, int)
        # Two 3x3 convolutions need one more row each at the enlarged size. Input rows are rounded up.
        rows = -(-(rows + 2) // stage.factor)
    return rows


def _spans(height: int, rows: int) -> Iterator[tuple[int, int]]:
    if rows < 1:
        raise ValueError(f"a strip has at least 1 row, got {rows}")
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _shallow_features(
    model: A2N, lr: Tensor, spans: list[tuple[int, int]], first: AttentionInAttention
) -> tuple[Tensor, Tensor]:
    """The output of the head, and the feature sums for the branch weights of the first block."""
    x: Tensor | None = None
    sums: Tensor | None = None
    for top, bottom in spans:
        part = _head(model, lr, top, bottom)
        if x is None or sums is None:
            shape = (*part.shape[:2], *lr.shape[2:])
            channels_last = part.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            x = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)
            sums = part.new_zeros(shape[:2], dtype=torch.float64)
        x[:, :, top:bottom] = part
        sums += _sums(first, part)
    assert x is not None
    assert sums is not None
    return x, sums


def _through_block(
    block: AttentionInAttention,
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    spans: list[tuple[int, int]],
    following: AttentionInAttention | None,
) -> Tensor:
    """Apply a block to x in place, and return the feature sums for the branch weights of the following block."""
    attention, non_attention = weights
    sums = x.new_zeros(x.shape[:2], dtype=torch.float64)
    above = x[:, :, :0]  # the halo above the strip, with its values before this block
    for top, bottom in spans:
        with_halo = torch.cat([above, x[:, :, top : bottom + _BLOCK_HALO]], dim=2)
        begin = above.shape[2]
        end = begin + bottom - top
        above = with_halo[:, :, max(0, end - _BLOCK_HALO) : end].clone()

        inner = leaky(block.enter(with_halo))
        mixed = torch.addcmul(block.attention(inner) * attention, block.non_attention(inner), non_attention)
        own = x[:, :, top:bottom]
        own += block.leave(leaky(mixed[:, :, begin:end]))
        if following is not None:
            sums += _sums(following, own)
    return sums


def _sums(block: AttentionInAttention, x: Tensor) -> Tensor:
    """The sums over a strip of the features that determine the block's branch weights: (N, n_feats), float64."""
    return leaky(block.enter(x)).sum(dim=(2, 3), dtype=torch.float64)


def _tail(model: A2N, lr: Tensor, x: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """Apply the upsampler to the trunk's output x, strip by strip, and add the interpolated input."""
    halo = tail_halo(model)
    scale = model.scale
    height = lr.shape[2]
    sr = _enlarged(model, lr)
    for top, bottom in spans:
        begin = max(0, top - halo)
        end = min(height, bottom + halo)
        deep = _head(model, lr, begin, end) + _conv_rows(model.trunk_end, x, begin, end)
        detail = model.to_rgb(model.tail(deep))[:, :, scale * (top - begin) : scale * (bottom - begin)]
        sr[:, :, scale * top : scale * bottom].add_(detail, alpha=1 / model.config.input_range)
    return sr


def _enlarged(model: A2N, lr: Tensor) -> Tensor:
    """Compute model.enlarged(lr), in strips if the result is too large for one operation of the device.

    Each strip includes the row above and below it. The strips are as high as possible, because interpolation by 3 may
    round differently where they meet.
    """
    count, channels, height, width = lr.shape
    per_row = count * channels * width * model.scale**2
    max_elements = _max_tensor_elements(lr.device)
    if height * per_row <= max_elements:
        return model.enlarged(lr)

    shape = (count, channels, height * model.scale, width * model.scale)
    channels_last = lr.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    sr = torch.empty(shape, dtype=lr.dtype, device=lr.device, memory_format=layout)
    for top, bottom in _spans(height, max(1, max_elements // per_row - 2)):
        begin = max(0, top - 1)
        part = model.enlarged(lr[:, :, begin : bottom + 1])
        rows = part[:, :, model.scale * (top - begin) : model.scale * (bottom - begin)]
        sr[:, :, model.scale * top : model.scale * bottom] = rows
    return sr


def _head(model: A2N, lr: Tensor, top: int, bottom: int) -> Tensor:
    """Rows top to bottom of the head's output. They are computed twice, which saves the memory of one feature map."""
    return _conv_rows(model.head, lr, top, bottom, model.config.input_range)


def _conv_rows(conv: nn.Module, x: Tensor, top: int, bottom: int, factor: int = 1) -> Tensor:
    """Rows top to bottom of the 3x3 convolution of x * factor."""
    begin = max(0, top - 1)
    with_halo = x[:, :, begin : bottom + 1]
    if factor != 1:
        with_halo = with_halo * factor
    rows: Tensor = conv(with_halo)[:, :, top - begin : bottom - begin]
    return rows
