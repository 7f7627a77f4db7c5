"""The peak signal-to-noise ratio (PSNR) of two images."""

import math

import numpy as np
from numpy.typing import NDArray

PixelArray = NDArray[np.uint8] | NDArray[np.floating]


def psnr(sr: PixelArray, hr: PixelArray, *, border: int, peak: float = 255.0) -> float:
    """The peak signal-to-noise ratio of an image pair, in dB. It is inf for equal images and NaN if a pixel is NaN.

    PSNR = 10 log10(peak² / MSE), where MSE is the mean squared error over every pixel and channel inside the border.
    Benchmark tables use the unrounded Y channel of 8-bit RGB images and `border = scale`. They report the mean of the
    per-image values, which is never lower than the PSNR of the pooled MSE.

    Args:
        sr, hr: (H, W) or (H, W, C), same shape, values in [0, peak].
        border: number of pixels dropped on each side, where an upscaler lacks context.
        peak: the largest possible pixel value.
    Raises:
        ValueError: the shapes differ, the border is negative, or no pixel is left inside it.
    """
    sr, hr = inside(sr, hr, border)
    mse = float(np.mean(np.square(sr - hr)))
    return decibels(mse, peak)


def decibels(mse: float, peak: float) -> float:
    """The PSNR of a mean squared error, in dB. It is inf if the error is 0."""
    return math.inf if mse == 0 else 10 * math.log10(peak**2 / mse)


def inside(sr: PixelArray, hr: PixelArray, border: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both images as float64, without the outer `border` pixels on each of the four sides.

    Args:
        sr, hr: (H, W) or (H, W, C), same shape.
    Raises:
        ValueError: the shapes differ, the border is negative, or no pixel is left inside it.
    """
    if sr.shape != hr.shape or sr.ndim < 2:
        raise ValueError(f"expected two images of one shape, got {sr.shape} and {hr.shape}")
    height, width = sr.shape[:2]
    if not 0 <= 2 * border < min(height, width):
        raise ValueError(f"a border of {border} leaves nothing of an image of {width}x{height}")
    window = (slice(border, height - border), slice(border, width - border))
    return sr[window].astype(np.float64), hr[window].astype(np.float64)
