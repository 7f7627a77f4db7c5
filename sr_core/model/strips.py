"""A whole image through the network in strips of rows: the whole image's result, in the memory of one feature map.

A block weighs its branches by a mean over the whole image, so an image cut into tiles comes out different. Here
every block goes over all strips before the next begins: its branch weights come from sums over all of them, and each
strip is computed with as many rows around it (its halo) as the block's convolutions see. The halo ends where the
image ends, where the convolutions' own zeros are right.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sr_core.model.attention import AttentionInAttention, leaky
from sr_core.model.network import A2N

_BLOCK_HALO = 2
"""Rows that a block sees above and below: the attention branch has two 3x3 convolutions in a row."""

_MOST_ELEMENTS = {"cpu": 2**63 - 1}
_MOST_ELEMENTS_ELSEWHERE = 2**31 - 1
"""Of a tensor that an operation takes or makes, by kind of device: a GPU's enlargement counts in 32 bits."""


def forward_in_strips(
    model: A2N, lr: Tensor, rows: int, *, progress: Callable[[float], None] = lambda _: None
) -> Tensor:
    """What model(lr) returns, to rounding; for inference, as the trunk's feature map is overwritten block by block.

    Args:
        model: in eval mode or not, it has no layer that minds.
        lr: (N, 3, H, W) in 0..1, contiguous in whichever memory format.
        rows: of LR in a strip, at least 1; the last strip may have fewer.
        progress: told after every block which part, 0..1, of the work is done.
    Returns:
        (N, 3, s*H, s*W), of lr's dtype.
    """
    height, width = lr.shape[2:]
    spans = list(_spans(height, rows))
    sweeps = len(model.blocks) + 1

    blocks: list[AttentionInAttention] = []
    for block in model.blocks:
        assert isinstance(block, AttentionInAttention)
        blocks.append(block)
    x, sums = _shallow_features(model, lr, spans, blocks[0])
    for number, (block, following) in enumerate(zip(blocks, [*blocks[1:], None], strict=True), 1):
        pooled = (sums / (height * width)).to(x.dtype)
        sums = _through_block(block, x, block.branch_weights(pooled[:, :, None, None]), spans, following)
        progress(number / sweeps)
    sr = _tail(model, lr, x, spans)
    progress(1.0)
    return sr


def most_rows(model: A2N, width: int, device: torch.device) -> int:
    """The most rows that a strip may have, for no operation of the network to meet too large a tensor there."""
    factor = 1
    per_pixel = model.config.n_feats
    n_in = model.config.n_feats
    for stage in model.tail:
        assert isinstance(stage.factor, int)
        factor *= stage.factor
        per_pixel = max(per_pixel, factor**2 * max(n_in, model.config.upsampler_feats))
        n_in = model.config.upsampler_feats
    halo = max(_BLOCK_HALO, tail_halo(model))
    return max(1, _most_elements(device) // (per_pixel * width) - 2 * halo)


def _most_elements(device: torch.device) -> int:
    return _MOST_ELEMENTS.get(device.type, _MOST_ELEMENTS_ELSEWHERE)


def tail_halo(model: A2N) -> int:
    """Rows of deep features that the tail sees above and below a strip: 2 at x2 and x4, 1 at x3."""
    rows = 1  # to_rgb
    for stage in reversed(model.tail):
        assert isinstance(stage.factor, int)
        rows = -(-(rows + 2) // stage.factor)  # two 3x3 convolutions at the stage's size, then down to its input's
    return rows


def _spans(height: int, rows: int) -> Iterator[tuple[int, int]]:
    if rows < 1:
        raise ValueError(f"a strip has at least 1 row, got {rows}")
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _shallow_features(
    model: A2N, lr: Tensor, spans: list[tuple[int, int]], first: AttentionInAttention
) -> tuple[Tensor, Tensor]:
    """The head's output, and the sums that the first block's branch weights come from."""
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
    """Replace x, in place, by what the block makes of it; the sums for the following block's branch weights."""
    attention, non_attention = weights
    sums = x.new_zeros(x.shape[:2], dtype=torch.float64)
    above = x[:, :, :0]  # the halo above the strip, as it was before this block
    for top, bottom in spans:
        seen = torch.cat([above, x[:, :, top : bottom + _BLOCK_HALO]], dim=2)
        begin, end = above.shape[2], above.shape[2] + bottom - top
        above = seen[:, :, max(0, end - _BLOCK_HALO) : end].clone()
        inner = leaky(block.enter(seen))
        mixed = torch.addcmul(block.attention(inner) * attention, block.non_attention(inner), non_attention)
        own = x[:, :, top:bottom]
        own += block.leave(leaky(mixed[:, :, begin:end]))
        if following is not None:
            sums += _sums(following, own)
    return sums


def _sums(block: AttentionInAttention, x: Tensor) -> Tensor:
    """(N, n_feats): over the strip's pixels, of the features that the block's branch weights come from."""
    return leaky(block.enter(x)).sum(dim=(2, 3), dtype=torch.float64)


def _tail(model: A2N, lr: Tensor, x: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    halo, scale, height = tail_halo(model), model.scale, lr.shape[2]
    sr = _enlarged(model, lr)
    for top, bottom in spans:
        begin, end = max(0, top - halo), min(height, bottom + halo)
        deep = _head(model, lr, begin, end) + _conv_rows(model.trunk_end, x, begin, end)
        detail = model.to_rgb(model.tail(deep))[:, :, scale * (top - begin) : scale * (bottom - begin)]
        sr[:, :, scale * top : scale * bottom].add_(detail, alpha=1 / model.config.input_range)
    return sr


def _enlarged(model: A2N, lr: Tensor) -> Tensor:
    """What model.enlarged(lr) returns; in strips, each with the row above and below, if it is too large for the device.

    The strips are as high as the device allows: where they meet, interpolation by 3 may round differently.
    """
    count, channels, height, width = lr.shape
    per_row = count * channels * width * model.scale**2
    most = _most_elements(lr.device)
    if height * per_row <= most:
        return model.enlarged(lr)
    shape = (count, channels, height * model.scale, width * model.scale)
    channels_last = lr.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    sr = torch.empty(shape, dtype=lr.dtype, device=lr.device, memory_format=layout)
    for top, bottom in _spans(height, max(1, most // per_row - 2)):
        begin = max(0, top - 1)
        part = model.enlarged(lr[:, :, begin : bottom + 1])
        rows = part[:, :, model.scale * (top - begin) : model.scale * (bottom - begin)]
        sr[:, :, model.scale * top : model.scale * bottom] = rows
    return sr


def _head(model: A2N, lr: Tensor, top: int, bottom: int) -> Tensor:
    """Rows top..bottom of the head's output. Computed again where they are needed again: that saves a feature map."""
    return _conv_rows(model.head, lr, top, bottom, model.config.input_range)


def _conv_rows(conv: nn.Module, x: Tensor, top: int, bottom: int, factor: int = 1) -> Tensor:
    """Rows top..bottom of a 3x3 convolution of all of x times `factor`."""
    begin = max(0, top - 1)
    seen = x[:, :, begin : bottom + 1]
    rows: Tensor = conv(seen * factor if factor != 1 else seen)[:, :, top - begin : bottom - begin]
    return rows
