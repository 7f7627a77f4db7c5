"""The structural similarity (SSIM, Wang et al., IEEE TIP 13, 2004), with the settings of benchmark tables."""

import numpy as np
from numpy.typing import NDArray

from sr_core.metrics.psnr import PixelArray, inside

WINDOW = 11
"""Side length of the Gaussian window, in pixels."""
SIGMA = 1.5
"""Standard deviation of the Gaussian window, in pixels."""
K1 = 0.01
"""Stabilises the luminance term, as a fraction of the peak."""
K2 = 0.03
"""Stabilises the contrast term, as a fraction of the peak."""


def ssim(sr: PixelArray, hr: PixelArray, *, border: int = 0, peak: float = 255.0) -> float:
    """The mean structural similarity of an image pair. It is 1 for equal images and NaN if a pixel is NaN.

    The mean is over all positions of the 11x11 window that lie fully inside the image. The variances are weighted
    population variances, without a sample correction. This equals the MATLAB code of Wang et al. without its automatic
    downsampling.

    Args:
        sr, hr: (H, W), same shape, values in [0, peak].
        border: number of pixels dropped on each side before the windows are placed.
        peak: the largest possible pixel value.
    Raises:
        ValueError: the shapes differ, the images have a channel axis, or no window fits inside the border.
    """
    if sr.ndim != 2:
        raise ValueError(f"expected images of one channel (H, W), got shape {sr.shape}")
    x, y = inside(sr, hr, border)
    if min(x.shape) < WINDOW:
        raise ValueError(f"no {WINDOW}x{WINDOW} window fits into {x.shape[1]}x{x.shape[0]} pixels")
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _window_means(np.stack([x, y, x * x, y * y, x * y]))
    variance_x = mean_xx - mean_x**2
    variance_y = mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y

    c1 = (K1 * peak) ** 2
    c2 = (K2 * peak) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def window_weights() -> NDArray[np.float64]:
    """The Gaussian along one side of the window: (11,), with sum 1."""
    gauss: NDArray[np.float64] = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    gauss /= gauss.sum()
    return gauss


def _window_means(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Gaussian-weighted means of (N, H, W) planes over each full window: (N, H - 10, W - 10)."""
    gauss = window_weights()
    for axis in (1, 2):
        outputs = planes.shape[axis] - WINDOW + 1
        lines = planes.swapaxes(axis, 0)
        total = gauss[0] * lines[:outputs]
        for tap in range(1, WINDOW):
            total += gauss[tap] * lines[tap : tap + outputs]
        planes = total.swapaxes(axis, 0)
    return planes
