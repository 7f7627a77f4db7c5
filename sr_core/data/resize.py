"""MATLAB's imresize(uint8, scale, 'bicubic'), sample for sample: what benchmark LR images are made with."""

import math

import numpy as np
from numpy.typing import NDArray

from sr_core.data.images import Image

Floats = NDArray[np.float64]

_BLOCK_SAMPLES = 1 << 15  # float64 samples that stay in the L2 cache while the taps add up


def imresize(image: Image, scale: float) -> Image:
    """The picture resized by `scale` as MATLAB does it: 1/2 halves each side, 2 doubles it.

    Keys' cubic with a = -0.5, stretched by 1/scale when reducing (antialiasing), weights normalised to sum 1, the
    picture mirrored at its edges, each column resized first and then each row, with rounding half up and clipping
    to 0..255 after each of the two passes.

    Args:
        image: (H, W) or (H, W, C), 0..255, of any size: the mirror repeats as often as the kernel needs.
        scale: > 0.
    Returns:
        (ceil(H * scale), ceil(W * scale)[, C]), the products in floating point as MATLAB takes them.
    Raises:
        ValueError: the picture is not uint8, has no pixel or not two or three axes, or the scale is not positive.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"expected uint8 pixels (H, W) or (H, W, C), got {image.dtype} {image.shape}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be > 0 and finite, got {scale!r}")
    tall = _resize_first_axis(image, scale)
    return np.ascontiguousarray(_resize_first_axis(tall.swapaxes(0, 1), scale).swapaxes(0, 1))


def _resize_first_axis(image: Image, scale: float) -> Image:
    lines = np.ascontiguousarray(image).reshape(len(image), -1)
    sources, weights = _taps(len(lines), scale)
    resized = np.empty((len(sources), lines.shape[1]), np.uint8)
    step = max(1, _BLOCK_SAMPLES // lines.shape[1])
    for start in range(0, len(sources), step):
        block = slice(start, start + step)
        total = np.full((len(sources[block]), lines.shape[1]), 0.5)  # the half of "round half up"
        for tap in range(sources.shape[1]):
            total += weights[block, tap, None] * lines[sources[block, tap]]
        np.clip(np.floor(total, out=total), 0, 255, out=total)
        resized[block] = total
    return resized.reshape(len(sources), *image.shape[1:])


def _taps(length: int, scale: float) -> tuple[NDArray[np.intp], Floats]:
    """For every output position the input positions it reads and their weights, each (outputs, taps)."""
    stretch = min(scale, 1.0)
    support = 4.0 / stretch
    centre = (np.arange(math.ceil(length * scale)) + 0.5) / scale - 0.5  # in input pixels, pixel 0 at 0
    first = np.floor(centre - support / 2).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(support) + 2)
    weights = _cubic((centre[:, None] - positions) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    phase = positions[:, used] % (2 * length)
    return np.where(phase < length, phase, 2 * length - 1 - phase), weights[:, used]


def _cubic(x: Floats) -> Floats:
    """Keys' interpolation kernel with a = -0.5 (IEEE TASSP 29, 1981, eq. 15)."""
    d = np.abs(x)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))
