"""Validates a network: enlarges the validation crops and scores them on the same device."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sr_core.config import EvaluationProtocol, Scale
from sr_core.images.files import Image
from sr_core.metrics.batched import Originals, scores
from sr_core.metrics.evaluate import Score
from sr_core.patches.validation import Crop
from sr_core.process.out_of_memory import is_out_of_memory
from sr_core.process.precision import exact_multiplication
from sr_core.training.inputs import unit_range
from sr_core.training.runtime import Runtime

logger = logging.getLogger(__name__)

_MAX_LR_PIXELS = 1 << 17
"""The most LR pixels in one batch on a GPU: as many as in a training step of the full network, which needs more memory.

On a CPU crops are processed one by one, because a larger batch exceeds the caches (docs/development/performance.md).
"""

_MAX_PREVIEW_SIDE = 256
"""Largest side of a preview image, in pixels. An image grid shows this size unscaled, and its file has about 100 kB."""


class CropScorer:
    """The validation crops on the training device, with everything that is the same for all scored networks."""

    def __init__(self, crops: Sequence[Crop], *, scale: Scale, protocol: EvaluationProtocol, runtime: Runtime) -> None:
        """
        Args:
            crops: crops of the same size, from `validation_crops`.
            runtime: the settings with the device and memory format of the networks.
        """
        self._names = [crop.name for crop in crops]
        side = crops[0].lr.shape[0]
        count = 1 if runtime.device == "cpu" else max(1, _MAX_LR_PIXELS // side**2)
        self._batches: list[tuple[Tensor, Originals]] = []
        for first in range(0, len(crops), count):
            batch = crops[first : first + count]
            hr = _planes([crop.hr for crop in batch]).to(runtime.device)
            lr = unit_range(_planes([crop.lr for crop in batch]), runtime)
            self._batches.append((lr, Originals(hr, scale=scale, protocol=protocol)))
        self._last_sr: Tensor | None = None
        self._max_crops = count
        """The most crops that are processed at once. It decreases when memory runs out."""

    def __call__(self, model: nn.Module) -> list[tuple[str, Score]]:
        """The image name and score of each crop, in order. Waits for the device once.

        The network computes in exact float32, whatever the precision of its training.

        Args:
            model: the network, in eval mode, on the device and in the memory format of the runtime.
        """
        with torch.inference_mode(), exact_multiplication():
            compared: list[Tensor] = []
            for lr, originals in self._batches:
                sr = self._enlarged(model, lr) * 255
                if not compared:
                    self._last_sr = _centre(sr[0]).clone()  # a copy, so that the rest of the batch is freed
                compared.append(originals.compare(sr))
            return list(zip(self._names, scores(torch.cat(compared)), strict=True))

    def _enlarged(self, model: nn.Module, lr: Tensor) -> Tensor:
        """The enlarged crops: computed at once, or in smaller parts if memory runs out."""
        while True:
            try:
                parts = [model(part) for part in torch.split(lr, self._max_crops)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except Exception as exc:
                if self._max_crops == 1 or not is_out_of_memory(exc):
                    raise
            # After the handler, because the frames of the exception keep the memory.
            self._max_crops = (min(self._max_crops, len(lr)) + 1) // 2
            torch.cuda.empty_cache()
            logger.warning("out of memory in a validation; continuing with %d crops at once", self._max_crops)

    def image(self) -> Image:
        """The centre of the first crop from the last call: (H, W, 3), uint8, at most 256 pixels a side."""
        assert self._last_sr is not None, "no network has been scored yet"
        return _pixels(self._last_sr)

    def preview(self, model: nn.Module) -> Image:
        """The centre of the first crop, enlarged by this network: (H, W, 3), uint8, at most 256 pixels a side."""
        lr, _ = self._batches[0]
        with torch.inference_mode(), exact_multiplication():
            return _pixels(_centre(self._enlarged(model, lr)[0] * 255))


def _centre(image: Tensor) -> Tensor:
    """The central part of an image (C, H, W), at most 256 pixels a side."""
    height = min(image.shape[-2], _MAX_PREVIEW_SIDE)
    width = min(image.shape[-1], _MAX_PREVIEW_SIDE)
    y = (image.shape[-2] - height) // 2
    x = (image.shape[-1] - width) // 2
    return image[:, y : y + height, x : x + width]


def _pixels(image: Tensor) -> Image:
    """The image (3, H, W), rounded and clipped to (H, W, 3), uint8."""
    pixels = image.round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def _planes(images: Sequence[Image]) -> Tensor:
    """The images as one tensor: (N, 3, H, W), uint8."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
