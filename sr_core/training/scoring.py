"""A validation: the network on the fixed crops, scored where it runs."""

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

_LR_PIXELS = 1 << 17
"""Of one batch on an accelerator: as many as a training step of the full network has, which needs more memory.

On a CPU crops go one by one: what a batch saves it loses again in the caches (docs/PERFORMANCE.md).
"""

_SHOWN_SIDE = 256
"""Of the image for people: what an image grid shows without shrinking it, in a file of 100 kB."""


class CropScorer:
    """The validation crops on the training device, with all that is the same for every network scored on them."""

    def __init__(self, crops: Sequence[Crop], *, scale: Scale, protocol: EvaluationProtocol, runtime: Runtime) -> None:
        """
        Args:
            crops: of one size, as `validation_crops` gives them.
            runtime: whose device and memory format the networks have.
        """
        self._names = [crop.name for crop in crops]
        side = crops[0].lr.shape[0]
        count = 1 if runtime.device == "cpu" else max(1, _LR_PIXELS // side**2)
        self._batches: list[tuple[Tensor, Originals]] = []
        for first in range(0, len(crops), count):
            batch = crops[first : first + count]
            hr = _planes([crop.hr for crop in batch]).to(runtime.device)
            lr = unit_range(_planes([crop.lr for crop in batch]), runtime)
            self._batches.append((lr, Originals(hr, scale=scale, protocol=protocol)))
        self._seen: Tensor | None = None
        self._together = count
        """The most crops that go through the network at once; fewer once memory has run out."""

    def __call__(self, model: nn.Module) -> list[tuple[str, Score]]:
        """Image and score of each crop, in order; waits for the device once. The model is in evaluation mode.

        The network computes in float32 proper, whatever the precision of its training is.
        """
        with torch.inference_mode(), exact_multiplication():
            compared: list[Tensor] = []
            for lr, originals in self._batches:
                sr = self._enlarged(model, lr) * 255
                if not compared:
                    self._seen = _centre(sr[0]).clone()  # the rest of the batch is not kept alive
                compared.append(originals.compare(sr))
            return list(zip(self._names, scores(torch.cat(compared)), strict=True))

    def _enlarged(self, model: nn.Module, lr: Tensor) -> Tensor:
        """What the network makes of these crops: all at once, or in smaller parts where memory runs out."""
        while True:
            try:
                parts = [model(part) for part in torch.split(lr, self._together)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except Exception as exc:
                if self._together == 1 or not is_out_of_memory(exc):
                    raise
            # Outside of the handler: the exception holds the frames that hold the memory.
            self._together = (min(self._together, len(lr)) + 1) // 2
            torch.cuda.empty_cache()
            logger.warning("out of memory in a validation; from now on %d crops at once", self._together)

    def image(self) -> Image:
        """The first crop as the network scored last makes it: its centre, at most 256 pixels a side, for people."""
        assert self._seen is not None, "nothing was scored yet"
        return _pixels(self._seen)

    def preview(self, model: nn.Module) -> Image:
        """The same centre as this network makes it, which need not be scored; of the same shape on the device."""
        lr, _ = self._batches[0]
        with torch.inference_mode(), exact_multiplication():
            return _pixels(_centre(self._enlarged(model, lr)[0] * 255))


def _centre(image: Tensor) -> Tensor:
    """(C, H, W) -> its central square or what there is of one."""
    height, width = (min(side, _SHOWN_SIDE) for side in image.shape[-2:])
    y, x = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[:, y : y + height, x : x + width]


def _pixels(image: Tensor) -> Image:
    """(3, H, W) in [0, 255] or beyond -> (H, W, 3), uint8."""
    pixels = image.round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def _planes(images: Sequence[Image]) -> Tensor:
    """(N, 3, H, W), uint8."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
