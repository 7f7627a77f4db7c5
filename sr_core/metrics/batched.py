"""The scores of `evaluate.score` for many images of one size at once, on the device that made them.

The same steps on torch tensors: pixels are clipped, rounded and weighed as there, sums are float64. What depends on the
originals alone is computed once, and nothing waits for the device until `scores` is asked for numbers.
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


class Originals:
    """HR images of one size, with their luma and its local means and variances, on one device."""

    def __init__(self, hr: Tensor, *, scale: Scale, protocol: EvaluationProtocol) -> None:
        """
        Args:
            hr: (N, 3, H, W), uint8, on the device that will compute.
        Raises:
            ValueError: nothing is left inside the border, or no SSIM window fits.
        """
        self._psnr_border: int = scale
        self._ssim_border: int
        match protocol:
            case "canonical":
                self._weights, self._rounded, self._ssim_border = BT601_STUDIO, True, scale
            case "blog":
                self._weights, self._rounded, self._ssim_border = BLOG_TYPO, False, 0
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
        """(N, 2), float64 on the device: mean squared error and SSIM of each image, NaN if a pixel is.

        Args:
            sr: (N, 3, H, W), what the network says, in units of 0..255; values beyond are clipped here.
        Raises:
            ValueError: the shape is not that of the originals.
        """
        if sr.shape != self._shape:
            raise ValueError(f"expected images of shape {tuple(self._shape)}, got {tuple(sr.shape)}")
        with torch.inference_mode():
            clipped = sr.clamp(0, PEAK)
            luma = self._luma(clipped.round() if self._rounded else clipped)
            error = (_inside(luma, self._psnr_border) - self._psnr_luma).square().mean(dim=(1, 2))
            return torch.stack([error, self._ssim(_inside(luma, self._ssim_border))], dim=1)

    def _luma(self, rgb: Tensor) -> Tensor:
        """(N, H, W), float64: `rgb_to_y`, in its order of operations, so that equal pixels have equal luma."""
        weighted = rgb[:, 0].to(torch.float64) * self._weights[0]
        for channel in (1, 2):
            weighted = weighted + rgb[:, channel].to(torch.float64) * self._weights[channel]
        return (16.0 + weighted).contiguous()

    def _ssim(self, luma: Tensor) -> Tensor:
        """(N,), as `ssim.ssim` computes it; `luma` is (N, H, W)."""
        mean, mean_square, mean_product = _window_means(torch.stack([luma, luma.square(), luma * self._ssim_luma]))
        square_of_mean, product_of_means = mean.square(), mean * self._mean
        covariance = mean_product - product_of_means
        c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
        similarity = (2 * product_of_means + c1) * (2 * covariance + c2)
        similarity /= (square_of_mean + self._square_of_mean + c1) * (
            mean_square - square_of_mean + self._variance + c2
        )
        means: Tensor = similarity.mean(dim=(1, 2))
        return means


def scores(compared: Tensor) -> list[Score]:
    """A Score for each row of what `compare` returned; waits for the device, once."""
    return [Score(psnr=decibels(error, PEAK), ssim=ssim) for error, ssim in compared.tolist()]


def _inside(images: Tensor, border: int) -> Tensor:
    height, width = images.shape[1:]
    return images[:, border : height - border, border : width - border]


def _window_means(planes: Tensor) -> Tensor:
    """Gaussian means of (..., H, W) planes at each full window: (..., H - 10, W - 10).

    Tap by tap: torch has no fast convolution of float64 on a CPU (20 times slower).
    """
    weights = window_weights().tolist()
    for axis in (-2, -1):
        outputs = planes.shape[axis] - WINDOW + 1
        total = planes.narrow(axis, 0, outputs) * weights[0]
        for tap in range(1, WINDOW):
            total.add_(planes.narrow(axis, tap, outputs), alpha=weights[tap])
        planes = total
    return planes
