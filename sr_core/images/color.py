"""Conversion of RGB to the luma on which super-resolution is scored."""

import numpy as np
from numpy.typing import NDArray

BT601_STUDIO = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""Weights of R, G and B in 0..255 for Y in 16..235 (ITU-R BT.601 studio range; MATLAB's rgb2ycbcr)."""
BLOG_TYPO = (65.738 / 256, 129.057 / 256, 25.046 / 256)
"""Rounded weights in wide use, with 25.046 instead of 25.064 for blue (+0.001 dB). Only for the blog protocol."""


def rgb_to_y(
    rgb: NDArray[np.uint8] | NDArray[np.floating],
    weights: tuple[float, float, float] = BT601_STUDIO,
) -> NDArray[np.float64]:
    """The luma Y = 16 + weights · (R, G, B), not rounded or clipped: 16 for black, 235 for white.

    Args:
        rgb: (..., 3), gamma-encoded, 0..255.
        weights: of R, G and B.
    Returns:
        The shape of `rgb` without its last axis.
    Raises:
        ValueError: the last axis is not R, G, B.
    """
    if rgb.shape[-1:] != (3,):
        raise ValueError(f"expected R, G, B on the last axis, got shape {rgb.shape}")
    red, green, blue = (rgb[..., channel].astype(np.float64) for channel in range(3))
    return 16.0 + (weights[0] * red + weights[1] * green + weights[2] * blue)
