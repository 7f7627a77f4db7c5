"""Computes the scores of `evaluate.score` for many images of the same size at once, on their own device.

It applies the same steps to torch tensors, with sums in float64. Whatever depends only on the HR images is computed
once. Nothing waits for the device until `scores` is called.
"""

from typing import assert_never

import torch
from torch import Tensor

from sr_core.config import EvaluationProtocol, Scale
from sr_core.images.color import BLOG_TYPO, BT601_STUDIO
from sr_core.metrics.evaluate import Score
from sr_core.metrics.psnr import decibels
from sr_core.metrics.ssim import K1, K2, WINDOW, window_weights

PEAK = 255.0
"""The largest possible pixel value."""


class Originals:
    """HR images of the same size on one device, with their luma (Y) and its local means and variances."""

    def __init__(self, hr: Tensor, *, scale: Scale, protocol: EvaluationProtocol) -> None:
        """
        Args:
            hr: (N, 3, H, W), uint8, on the device that computes the scores.
            scale: enlargement factor, which is also the width of the dropped border in pixels.
        Raises:
            ValueError: no pixel is left inside the border, or no SSIM window fits.
        """
        self._psnr_border: int = scale
        self._ssim_border: int
        match protocol:
            case "canonical":
                self._weights = BT601_STUDIO
                self._rounded = True
                self._ssim_border = scale
            case "blog":
                self._weights = BLOG_TYPO
                self._rounded = False
                self._ssim_border = 0
            case _:
                assert_never(protocol)

        self._shape = hr.shape
        height, width = hr.shape[2:]
        if min(height, width) <= 2 * self._psnr_border:
            raise ValueError(f"a border of {self._psnr_border} leaves nothing of an image of {width}x{height}")
        if min(height, width) - 2 * self._ssim_border < WINDOW:
            raise ValueError(f"no {WINDOW}x{WINDOW} window fits into {width}x{height} pixels less their border")

        with torch.inference_mode():
            luma = self._luma(hr)
            self._psnr_luma = _inside(luma, self._psnr_border)
            self._ssim_luma = _inside(luma, self._ssim_border)
            self._mean, mean_square = _window_means(torch.stack([self._ssim_luma, self._ssim_luma.square()]))
            self._square_of_mean = self._mean.square()
            self._variance = mean_square - self._square_of_mean

    def compare(self, sr: Tensor) -> Tensor:
        """The mean squared error and the SSIM of each image: (N, 2), float64, on the device. NaN if a pixel is NaN.

        Args:
            sr: (N, 3, H, W), the network's output on the scale of 0..255. Values outside are clipped.
        Raises:
            ValueError: the shape differs from that of the HR images.
        """
        if sr.shape != self._shape:
            raise ValueError(f"expected images of shape {tuple(self._shape)}, got {tuple(sr.shape)}")
        with torch.inference_mode():
            clipped = sr.clamp(0, PEAK)
            luma = self._luma(clipped.round() if self._rounded else clipped)
            error = (_inside(luma, self._psnr_border) - self._psnr_luma).square().mean(dim=(1, 2))
            return torch.stack([error, self._ssim(_inside(luma, self._ssim_border))], dim=1)

    def _luma(self, rgb: Tensor) -> Tensor:
        """The luma (Y) of RGB images: (N, H, W), float64.

        The order of operations is that of `rgb_to_y`, so that both give the same bits.
        """
        weighted = rgb[:, 0].to(torch.float64) * self._weights[0]
        for channel in (1, 2):
            weighted = weighted + rgb[:, channel].to(torch.float64) * self._weights[channel]
        return (16.0 + weighted).contiguous()

    def _ssim(self, luma: Tensor) -> Tensor:
        """The SSIM of each image, (N,), as `ssim.ssim` computes it. `luma` has shape (N, H, W)."""
        mean, mean_square, mean_product = _window_means(torch.stack([luma, luma.square(), luma * self._ssim_luma]))
        square_of_mean = mean.square()
        product_of_means = mean * self._mean
        covariance = mean_product - product_of_means

        c1 = (K1 * PEAK) ** 2
        c2 = (K2 * PEAK) ** 2
        similarity = (2 * product_of_means + c1) * (2 * covariance + c2)
        similarity /= (square_of_mean + self._square_of_mean + c1) * (
            mean_square - square_of_mean + self._variance + c2
        )
        means: Tensor = similarity.mean(dim=(1, 2))
        return means


def scores(compared: Tensor) -> list[Score]:
    """The scores of all images, from the result of `compare`. Waits for the device once."""
    return [Score(psnr=decibels(error, PEAK), ssim=ssim) for error, ssim in compared.tolist()]


def _inside(images: Tensor, border: int) -> Tensor:
    height, width = images.shape[1:]
    return images[:, border : height - border, border : width - border]


def _window_means(planes: Tensor) -> Tensor:
    """The Gaussian-weighted means of (..., H, W) planes over each full window: (..., H - 10, W - 10)."""
    # One tap at a time, because torch's float64 convolution on a CPU is 20 times slower.
    weights = window_weights().tolist()
    for axis in (-2, -1):
        outputs = planes.shape[axis] - WINDOW + 1
        total = planes.narrow(axis, 0, outputs) * weights[0]
        for tap in range(1, WINDOW):
            total.add_(planes.narrow(axis, tap, outputs), alpha=weights[tap])
        planes = total
    return planes
