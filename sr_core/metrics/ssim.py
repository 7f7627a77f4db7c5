"""Structural similarity (Wang et al., IEEE TIP 13, 2004), with the settings of super-resolution tables."""

import numpy as np
from numpy.typing import NDArray

from sr_core.metrics.psnr import PixelArray, inside

WINDOW = 11
"""Side of the Gaussian window, in pixels."""
SIGMA = 1.5
"""Its standard deviation, in pixels."""
K1, K2 = 0.01, 0.03
"""Stabilise the luminance and the contrast term, as fractions of the peak."""


def ssim(sr: PixelArray, hr: PixelArray, *, border: int = 0, peak: float = 255.0) -> float:
    """Mean structural similarity of one image pair; 1 if they are equal, NaN if a pixel is.

    The mean is over every position where the 11x11 window lies inside the image, and the variances are those of
    the weighted window, not of a sample: the authors' MATLAB code without its automatic downsampling.

    Args:
        sr, hr: (H, W), same shape, values in [0, peak].
        border: pixels dropped on each side before the windows are laid.
    Raises:
        ValueError: shapes differ, there are channels, or no window fits inside the border.
    """
    if sr.ndim != 2:
        raise ValueError(f"expected images of one channel (H, W), got shape {sr.shape}")
    x, y = inside(sr, hr, border)
    if min(x.shape) < WINDOW:
        raise ValueError(f"no {WINDOW}x{WINDOW} window fits into {x.shape[1]}x{x.shape[0]} pixels")
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _window_means(np.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def window_weights() -> NDArray[np.float64]:
    """(11,), the Gaussian along one side of the window; sums to 1."""
    gauss: NDArray[np.float64] = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    gauss /= gauss.sum()
    return gauss


def _window_means(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means of (N, H, W) planes at each full window: (N, H - 10, W - 10)."""
    gauss = window_weights()
    for axis in (1, 2):
        outputs = planes.shape[axis] - WINDOW + 1
        lines = planes.swapaxes(axis, 0)
        total = gauss[0] * lines[:outputs]
        for tap in range(1, WINDOW):
            total += gauss[tap] * lines[tap : tap + outputs]
        planes = total.swapaxes(axis, 0)
    return planes
