"""Evaluation protocols, which define which pixels are compared and how.

A score depends on its protocol and on the kernel that made the LR image. Store `describe_protocol(protocol)` with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from sr_core.config import EvaluationProtocol, Kernel
from sr_core.errors import ImageError
from sr_core.images.color import BLOG_TYPO, BT601_STUDIO, rgb_to_y
from sr_core.images.degrade import crop_to_multiple, downsample, resize_to_multiple
from sr_core.images.files import Image
from sr_core.images.resize import imresize
from sr_core.metrics.psnr import psnr
from sr_core.metrics.ssim import WINDOW, ssim

PSNR_CAP = 100.0
"""The largest PSNR of one image in a mean and in the record of a study, in dB. Without it, one exactly restored image,
whose PSNR is infinite, would make the mean of a set infinite."""


@dataclass(frozen=True)
class Score:
    """The quality of one enlarged image, or the mean over a set of images."""

    psnr: float
    """PSNR of the Y channel, in dB. inf if the images are equal."""
    ssim: float
    """SSIM of the Y channel, at most 1."""


def score(sr: NDArray[np.floating] | Image, hr: Image, *, scale: int, protocol: EvaluationProtocol) -> Score:
    """The PSNR and SSIM of one network output under an evaluation protocol.

    canonical: as in benchmark tables. `sr` is clipped and rounded to 8 bits (halves to even, as torch rounds). `scale`
        pixels are dropped on each side. Y is exact BT.601 and not rounded.
    blog: as in the A2N reimplementation. `sr` is clipped but not rounded. Y uses its mistyped weight for blue. `scale`
        pixels are dropped on each side for PSNR and none for SSIM. For the same image pair, the PSNR is a few
        hundredths of a dB higher than canonical. The resized HR image of `lr_hr_pair` adds up to half a dB (bicubic,
        Set5 x3).

    Args:
        sr: (H, W, 3), the network's output on the scale of 0..255. Values outside are clipped. NaN gives NaN.
        hr: (H, W, 3), uint8, the HR image from `lr_hr_pair`.
    Raises:
        ValueError: the shapes differ, or fewer than 11 pixels per side are left inside the border.
    """
    clipped = np.clip(sr.astype(np.float64), 0, 255)
    match protocol:
        case "canonical":
            sr_y = rgb_to_y(np.rint(clipped), BT601_STUDIO)
            hr_y = rgb_to_y(hr, BT601_STUDIO)
            return Score(psnr(sr_y, hr_y, border=scale), ssim(sr_y, hr_y, border=scale))
        case "blog":
            sr_y = rgb_to_y(clipped, BLOG_TYPO)
            hr_y = rgb_to_y(hr, BLOG_TYPO)
            return Score(psnr(sr_y, hr_y, border=scale), ssim(sr_y, hr_y))
        case _:
            assert_never(protocol)


def require_finite(sr: NDArray[np.floating] | Image, image: object, remedy: str = "use other weights") -> None:
    """Check that an enlarged image contains no NaN or infinity.

    A network with finite weights can still overflow. After clipping and rounding, its output would look like an image.

    Args:
        image: the name of the image, for the error message.
        remedy: what the user can do, for the error message.
    Raises:
        ImageError: a sample is NaN or infinite.
    """
    bad = sr.size - int(np.isfinite(sr).sum())
    if bad:
        raise ImageError(
            f"{image}: {bad} of {sr.size} samples of the network's output are NaN or infinite, so the network "
            f"overflows on this image; {remedy}"
        )


def lr_hr_pair(hr: Image, scale: int, kernel: Kernel, protocol: EvaluationProtocol) -> tuple[Image, Image]:
    """The LR image to enlarge and the HR image to compare with, both (H, W, 3), uint8.

    canonical: crops HR at the bottom and the right to a multiple of the scale and downsamples it with `kernel`.
    blog: resizes HR to a multiple of the scale with Pillow bicubic and downsamples it with Pillow bicubic. It ignores
        `kernel`, because the published numbers of this protocol refer to this LR image.

    Args:
        hr: (H, W, 3), uint8, as read from its file.
    Raises:
        ValueError: a side is shorter than `scale`.
    """
    match protocol:
        case "canonical":
            cropped = crop_to_multiple(hr, scale)
            return downsample(cropped, scale, kernel), cropped
        case "blog":
            resized = resize_to_multiple(hr, scale)
            return downsample(resized, scale, "pillow_bicubic"), resized
        case _:
            assert_never(protocol)


def least_side(scale: int, protocol: EvaluationProtocol) -> int:
    """The smallest side length, in pixels, of an HR image file that can be scored under the protocol."""
    match protocol:
        case "canonical":
            least = WINDOW + 2 * scale
        case "blog":
            least = max(WINDOW, 2 * scale + 1)
        case _:
            assert_never(protocol)
    return -(-least // scale) * scale


def bicubic_baseline(lr: Image, scale: int) -> Image:
    """The bicubic baseline: LR enlarged as by MATLAB's imresize, (H * scale, W * scale, 3), uint8."""
    return imresize(lr, scale)


def bicubic_psnr(lr: Image, hr: Image, scale: int) -> float:
    """The PSNR of `bicubic_baseline` under the canonical protocol, in dB.

    It omits the SSIM, which takes as long to compute as a small network.
    """
    sr_y = rgb_to_y(bicubic_baseline(lr, scale), BT601_STUDIO)
    hr_y = rgb_to_y(hr, BT601_STUDIO)
    return psnr(sr_y, hr_y, border=scale)


def capped(one: Score) -> Score:
    """The score with its PSNR limited to `PSNR_CAP`. NaN stays NaN."""
    return replace(one, psnr=PSNR_CAP) if one.psnr > PSNR_CAP else one


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of the per-image values, as benchmark tables report it. Each PSNR is limited to `PSNR_CAP`.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("no scores: expected at least one to compute the mean")
    return Score(psnr=fmean(capped(one).psnr for one in scores), ssim=fmean(one.ssim for one in scores))


def describe_protocol(protocol: EvaluationProtocol) -> dict[str, str]:
    """A description of the protocol, to be stored with its scores."""
    match protocol:
        case "canonical":
            return {
                "protocol": protocol,
                "hr": "cropped bottom/right to a multiple of the scale",
                "lr": "made by the evaluation kernel",
                "output": "clipped to 0..255, rounded to 8 bits",
                "colour": "Y of BT.601 studio range, weights 65.481, 128.553, 24.966 over 255, not rounded",
                "psnr": "peak 255, border of `scale` pixels dropped, mean of the per-image values, each at most 100 dB",
                "ssim": "Gaussian 11x11 sigma 1.5, full windows, border of `scale` pixels dropped, mean per image",
            }
        case "blog":
            return {
                "protocol": protocol,
                "hr": "resized by Pillow bicubic to a multiple of the scale",
                "lr": "made by Pillow bicubic, whatever the evaluation kernel is",
                "output": "clipped to 0..255, not rounded",
                "colour": "Y with weights 65.738, 129.057, 25.046 (a typo for 25.064) over 256, not rounded",
                "psnr": "peak 255, border of `scale` pixels dropped, mean of the per-image values, each at most 100 dB",
                "ssim": "Gaussian 11x11 sigma 1.5, full windows, no border dropped, mean per image",
            }
        case _:
            assert_never(protocol)
