"""Evaluation protocols by name: which pixels are compared, and how.

A score means nothing without its protocol and the kernel that made the LR: record `describe_protocol(protocol)` too.
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
"""dB. What a single image counts at most in a mean, and what the record of a study says of it at most: otherwise one
image that is restored exactly, whose PSNR is infinite, would decide the mean of a set."""


@dataclass(frozen=True)
class Score:
    """How close one image, or a set's mean image, is to its original."""

    psnr: float
    """dB on Y; inf where the two are equal."""
    ssim: float
    """On Y, at most 1."""


def score(sr: NDArray[np.floating] | Image, hr: Image, *, scale: int, protocol: EvaluationProtocol) -> Score:
    """PSNR and SSIM of one network output under a protocol.

    canonical  the benchmark tables': `sr` clipped and rounded to 8 bits (halves to even, as torch rounds), `scale`
               pixels dropped on each side, exact BT.601 Y, unrounded.
    blog       the A2N reimplementation's: `sr` clipped but not rounded, Y with its mistyped blue weight, `scale`
               pixels dropped for PSNR and none for SSIM. On one and the same pair a few hundredths of a dB above
               canonical; the HR that `lr_hr_pair` resizes for it adds up to half a dB (bicubic, Set5 x3).

    Args:
        sr: (H, W, 3), what the network says, in units of 0..255; values beyond are clipped here, NaN gives NaN.
        hr: (H, W, 3), uint8, the HR that `lr_hr_pair` returned.
    Raises:
        ValueError: shapes differ, or there are fewer than 11 pixels a side inside the border.
    """
    clipped = np.clip(sr.astype(np.float64), 0, 255)
    match protocol:
        case "canonical":
            sr_y, hr_y = rgb_to_y(np.rint(clipped), BT601_STUDIO), rgb_to_y(hr, BT601_STUDIO)
            return Score(psnr(sr_y, hr_y, border=scale), ssim(sr_y, hr_y, border=scale))
        case "blog":
            sr_y, hr_y = rgb_to_y(clipped, BLOG_TYPO), rgb_to_y(hr, BLOG_TYPO)
            return Score(psnr(sr_y, hr_y, border=scale), ssim(sr_y, hr_y))
        case _:
            assert_never(protocol)


def require_finite(sr: NDArray[np.floating] | Image, image: object, remedy: str = "use other weights") -> None:
    """Raises ImageError, with the name of the image, if its enlargement holds NaN or infinity.

    Weights can be finite and overflow all the same; clipped and rounded, the result would look like an image.
    """
    bad = sr.size - int(np.isfinite(sr).sum())
    if bad:
        raise ImageError(
            f"{image}: {bad} of {sr.size} samples of the network's output are NaN or infinite, so its numbers overflow "
            f"on this image; {remedy}"
        )


def lr_hr_pair(hr: Image, scale: int, kernel: Kernel, protocol: EvaluationProtocol) -> tuple[Image, Image]:
    """The LR image to enlarge and the HR image to compare with.

    canonical crops HR at the bottom and the right to a multiple of the scale and reduces it with `kernel`. blog
    *resizes* HR to a multiple by Pillow bicubic and reduces it by Pillow bicubic too, **whatever `kernel` says**:
    the published numbers of that protocol mean this LR only.

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
    """Pixels that each side of an image file needs to be scored: `score` refuses what `lr_hr_pair` makes of less."""
    match protocol:
        case "canonical":
            least = WINDOW + 2 * scale
        case "blog":
            least = max(WINDOW, 2 * scale + 1)
        case _:
            assert_never(protocol)
    return -(-least // scale) * scale


def bicubic_baseline(lr: Image, scale: int) -> Image:
    """What a network has to beat: LR enlarged by MATLAB's imresize, (H * scale, W * scale, 3), 8 bits."""
    return imresize(lr, scale)


def bicubic_psnr(lr: Image, hr: Image, scale: int) -> float:
    """PSNR [dB, canonical] of `bicubic_baseline`; without SSIM, which takes as long as a small network."""
    sr_y, hr_y = rgb_to_y(bicubic_baseline(lr, scale), BT601_STUDIO), rgb_to_y(hr, BT601_STUDIO)
    return psnr(sr_y, hr_y, border=scale)


def capped(one: Score) -> Score:
    """The score with a PSNR of at most `PSNR_CAP`; NaN stays NaN."""
    return replace(one, psnr=PSNR_CAP) if one.psnr > PSNR_CAP else one


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of per-image values, as tables give it for a set; a PSNR above `PSNR_CAP` counts as that.

    Raises:
        ValueError: there are no scores.
    """
    if not scores:
        raise ValueError("the mean of no scores: expected one score per image")
    return Score(psnr=fmean(capped(one).psnr for one in scores), ssim=fmean(one.ssim for one in scores))


def describe_protocol(protocol: EvaluationProtocol) -> dict[str, str]:
    """The protocol in words, to stand beside the scores it made."""
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
