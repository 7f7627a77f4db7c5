"""MATLAB's imresize(uint8, scale, 'bicubic'), equal in every sample. Benchmark LR images are made with it."""

import math

import numpy as np
from numpy.typing import NDArray

from sr_core.images.files import Image

Float64Array = NDArray[np.float64]

_MAX_EXACT_FACTOR = 6
"""Largest reduction for which every sum is exact in float32: 255 · 16 · 6^4 · 1.3 (the sum of |weights|) < 2^23."""
_BLOCK_SAMPLES = 1 << 16  # these stay in the L2 cache while the taps are summed


def imresize(image: Image, scale: float) -> Image:
    """The image resized by `scale` as by MATLAB: 1/2 halves each side, 2 doubles it.

    The kernel is Keys' cubic with a = -0.5 (IEEE TASSP 29, 1981). For a reduction it is stretched by 1/scale
    (antialiasing). Weights are normalised to sum 1, and the image is mirrored at its edges. First each column is
    resized, then each row. After each pass, samples are rounded half up and clipped to 0..255.

    Args:
        image: (H, W) or (H, W, C), uint8 in 0..255, of any size. The mirror repeats as often as the kernel needs.
        scale: > 0.
    Returns:
        (ceil(H * scale), ceil(W * scale)[, C]), uint8. The products are computed in floating point as in MATLAB.
    Raises:
        ValueError: the image is not uint8, is empty, or has not two or three axes, or the scale is not positive.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"expected uint8 pixels (H, W) or (H, W, C), got {image.dtype} {image.shape}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be > 0 and finite, got {scale!r}")
    return _transposed(_resize_first_axis(_transposed(_resize_first_axis(image, scale)), scale))


def _transposed(image: Image) -> Image:
    """The image with rows and columns exchanged, contiguous. Moving whole pixels is five times as fast as samples."""
    pixels = np.ascontiguousarray(image).view(np.dtype((np.void, image[0, 0].nbytes)))
    turned = np.ascontiguousarray(pixels.reshape(image.shape[:2]).T)
    return turned.view(np.uint8).reshape(image.shape[1], image.shape[0], *image.shape[2:])


def _resize_first_axis(image: Image, scale: float) -> Image:
    lines = np.ascontiguousarray(image).reshape(len(image), -1)
    sources, weights = _taps(len(lines), scale)
    unit = 1.0
    half = 0.5  # the half of "round half up"
    factor = round(1 / scale)
    if scale < 1 and factor <= _MAX_EXACT_FACTOR and scale == 1 / factor:
        # The weights are multiples of 1 / (16 factor^4), and the sums stay below 2^23. So float32 is exact, in half the
        # time. Half a unit more keeps the quotient away from a whole number, where rounding could change the result.
        unit = 16.0 * factor**4
        half = 0.5 * unit + 0.5
        weights = np.rint(weights * unit).astype(np.float32)
    resized = np.empty((len(sources), lines.shape[1]), np.uint8)
    step = max(1, _BLOCK_SAMPLES // lines.shape[1])
    for start in range(0, len(sources), step):
        block = slice(start, start + step)
        total = np.full((len(sources[block]), lines.shape[1]), half, weights.dtype)
        product = np.empty_like(total)
        for tap in range(sources.shape[1]):
            np.multiply(weights[block, tap, None], lines[sources[block, tap]], out=product)
            total += product
        total /= unit  # correctly rounded: the error is at most 2^-17, less than half a unit
        resized[block] = np.clip(np.floor(total, out=total), 0, 255, out=total)
    return resized.reshape(len(sources), *image.shape[1:])


def _taps(length: int, scale: float) -> tuple[NDArray[np.intp], Float64Array]:
    """The input positions and weights for every output position, each (outputs, taps)."""
    stretch = min(scale, 1.0)
    support = 4.0 / stretch
    centre = (np.arange(math.ceil(length * scale)) + 0.5) / scale - 0.5  # in input pixels; the first pixel is at 0
    first = np.floor(centre - support / 2).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(support) + 2)
    weights = _cubic((centre[:, None] - positions) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    phase = positions[:, used] % (2 * length)
    return np.where(phase < length, phase, 2 * length - 1 - phase), weights[:, used]


def _cubic(x: Float64Array) -> Float64Array:
    """Keys' interpolation kernel with a = -0.5 (IEEE TASSP 29, 1981, eq. 15)."""
    d = np.abs(x)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))
