"""LR images from HR images: all downsampling kernels of `sr_core.config.Kernel`."""

from typing import assert_never

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Resampling

from sr_core.config import Kernel
from sr_core.images.files import Image
from sr_core.images.resize import imresize

BLUR_RADIUS = 3
"""Pixels on each side of the centre in `blur_subsample`. The window is 7x7."""
BLUR_SIGMA = 1.6
"""Standard deviation of `blur_subsample`, in HR pixels."""


def crop_to_multiple(hr: Image, scale: int) -> Image:
    """The largest top left part whose sides are multiples of `scale`, as a view.

    Raises:
        ValueError: a side is shorter than `scale`, so nothing would be left.
    """
    height, width = _multiple(hr, scale)
    return hr[:height, :width]


def resize_to_multiple(hr: Image, scale: int) -> Image:
    """The image resized by Pillow's bicubic to the next smaller multiples of `scale` (the "blog" protocol).

    Unlike a crop, this smooths the image and shifts it by up to scale - 1 pixels at the far edge. An image whose sides
    are multiples already is unchanged.

    Raises:
        ValueError: a side is shorter than `scale`, so nothing would be left.
    """
    return _pillow(hr, _multiple(hr, scale), Resampling.BICUBIC)


def downsample(hr: Image, scale: int, kernel: Kernel) -> Image:
    """The LR image of an HR image, (H / scale, W / scale[, C]), uint8 in 0..255.

    matlab_bicubic   MATLAB imresize: a = -0.5, antialiased, mirrored edge. Benchmark tables use this LR.
    pillow_bicubic   a = -0.5, antialiased, kernel cut off at the edge, rows before columns. In the interior it is
                     within 1 level of MATLAB, except one sample in a thousand for which the first pass rounds or clips
                     differently.
    pillow_bilinear  triangle two LR pixels wide.
    pillow_lanczos   windowed sinc with three lobes.
    pillow_box       mean of the scale x scale pixels under an LR pixel.
    cv2_cubic        a = -0.75, *not* antialiased: four pixels a side at any scale. At odd scales an LR pixel is at
                     the position of an HR pixel, and this equals `nearest`.
    cv2_area         mean of the scale x scale pixels, with OpenCV's rounding.
    nearest          the sample at scale // 2 in each direction: the centre at odd scales, half a pixel right of and
                     below it at even scales (as MATLAB and Pillow; OpenCV takes the top left sample).
    blur_subsample   "BD": Gaussian 7x7, sigma 1.6 HR pixels, edge pixels repeated, rounded half up; then the same
                     samples as `nearest`. The benchmark of that name has only scale 3.

    Args:
        hr: (H, W) or (H, W, C), uint8, both sides multiples of `scale`; see `crop_to_multiple`.
    Raises:
        ValueError: a side is not a multiple of `scale`, or is zero.
    """
    height, width = hr.shape[:2]
    if _multiple(hr, scale) != (height, width):
        raise ValueError(
            f"expected an HR image whose sides are multiples of {scale}, got {width}x{height}: crop_to_multiple first"
        )
    size = height // scale, width // scale
    match kernel:
        case "matlab_bicubic":
            return imresize(hr, 1 / scale)
        case "pillow_bicubic":
            return _pillow(hr, size, Resampling.BICUBIC)
        case "pillow_bilinear":
            return _pillow(hr, size, Resampling.BILINEAR)
        case "pillow_lanczos":
            return _pillow(hr, size, Resampling.LANCZOS)
        case "pillow_box":
            return _pillow(hr, size, Resampling.BOX)
        case "cv2_cubic":
            return _cv2(hr, size, cv2.INTER_CUBIC)
        case "cv2_area":
            return _cv2(hr, size, cv2.INTER_AREA)
        case "nearest":
            return hr[scale // 2 :: scale, scale // 2 :: scale].copy()
        case "blur_subsample":
            return _blur_subsample(hr, scale)
        case _:
            assert_never(kernel)


def _multiple(hr: Image, scale: int) -> tuple[int, int]:
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    height = hr.shape[0] // scale * scale
    width = hr.shape[1] // scale * scale
    if height == 0 or width == 0:
        raise ValueError(f"an image of {hr.shape[1]}x{hr.shape[0]} is smaller than one LR pixel at x{scale}")
    return height, width


def _pillow(image: Image, size: tuple[int, int], filter_: Resampling) -> Image:
    height, width = size
    return np.array(PIL.Image.fromarray(image).resize((width, height), filter_))


def _cv2(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    height, width = size
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=interpolation)
    return np.asarray(resized, dtype=np.uint8)


def _blur_subsample(hr: Image, scale: int) -> Image:
    gauss = np.exp(-(np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) ** 2) / (2 * BLUR_SIGMA**2))
    gauss /= gauss.sum()
    edges = [(BLUR_RADIUS, BLUR_RADIUS)] * 2 + [(0, 0)] * (hr.ndim - 2)
    padded = np.pad(hr, edges, mode="edge").astype(np.float64)
    narrow = _weighted_every(padded, gauss, scale)
    blurred = _weighted_every(narrow.swapaxes(0, 1), gauss, scale).swapaxes(0, 1)
    return np.ascontiguousarray(np.floor(blurred + 0.5).astype(np.uint8))


def _weighted_every(lines: NDArray[np.float64], weights: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """The weighted sums along the first axis, computed only at positions step // 2, step // 2 + step, …"""
    windows = np.lib.stride_tricks.sliding_window_view(lines, len(weights), axis=0)[step // 2 :: step]
    return np.asarray(windows @ weights)
