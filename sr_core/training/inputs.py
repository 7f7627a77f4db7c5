"""Batches on their way into a training step: from uint8 anywhere to float32 on the training device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_core.training.runtime import Runtime

Pixels = NDArray[np.uint8] | Tensor
"""(N, 3, H, W), uint8; a tensor may be on the training device already."""


class Inputs:
    """LR and HR of one batch after another in 0..1, each at the same place in memory as long as its shape stays.

    A captured step reads its inputs where they were when it was captured; and on a CPU fresh memory costs several
    times the division by 255, for every page of it is zeroed first.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._device, self._layout = runtime.device, runtime.layout
        self._places: list[Tensor] = []

    def fill(self, lr: Pixels, hr: Pixels) -> tuple[Tensor, Tensor]:
        """Both as float32 in 0..1 on the training device; the next call overwrites them."""
        given = [p if isinstance(p, Tensor) else torch.from_numpy(p) for p in (lr, hr)]
        if [place.shape for place in self._places] != [pixels.shape for pixels in given]:
            self._places = [
                torch.empty(pixels.shape, device=self._device, memory_format=self._layout) for pixels in given
            ]
        for place, pixels in zip(self._places, given, strict=True):
            torch.div(pixels.to(self._device), 255.0, out=place)
        return self._places[0], self._places[1]
