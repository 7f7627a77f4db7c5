"""Peak signal-to-noise ratio."""

import math

import numpy as np
from numpy.typing import NDArray

PixelArray = NDArray[np.uint8] | NDArray[np.floating]


def psnr(sr: PixelArray, hr: PixelArray, *, border: int, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio of one image pair, in dB; inf if they are equal, NaN if a pixel is.

    PSNR = 10 log10(peak^2 / MSE), with the MSE over every pixel and channel inside the border. Benchmark tables use
    the unrounded Y of 8-bit RGB, `border = scale`, and the mean of the per-image values (not the PSNR of the pooled
    MSE, which is never higher).

    Args:
        sr, hr: (H, W) or (H, W, C), same shape, values in [0, peak].
        border: pixels dropped on each side, where an upscaler lacks context.
    Raises:
        ValueError: shapes differ, or nothing is left inside the border.
    """
    sr, hr = inside(sr, hr, border)
    return decibels(float(np.mean(np.square(sr - hr))), peak)


def decibels(mse: float, peak: float) -> float:
    """PSNR in dB of a mean squared error; inf if it is 0."""
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def inside(sr: PixelArray, hr: PixelArray, border: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images in float64, without `border` pixels on each of their four sides.

    Raises:
        ValueError: shapes differ, the border is negative, or nothing is left inside it.
    """
    if sr.shape != hr.shape or sr.ndim < 2:
        raise ValueError(f"expected two images of one shape, got {sr.shape} and {hr.shape}")
    height, width = sr.shape[:2]
    if not 0 <= 2 * border < min(height, width):
        raise ValueError(f"a border of {border} leaves nothing of an image of {width}x{height}")
    kept = slice(border, height - border), slice(border, width - border)
    return sr[kept].astype(np.float64), hr[kept].astype(np.float64)
