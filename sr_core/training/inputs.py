"""Batches on their way into a training step: from uint8 anywhere to float32 on the training device."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_core.training.runtime import Runtime

UInt8Pixels = NDArray[np.uint8] | Tensor
"""(N, 3, H, W), uint8; a tensor may be on the training device already."""


@runtime_checkable
class DrawsOnDevice(Protocol):
    """Batches that the training device itself makes, as a function of a number that it holds."""

    def at(self, first_k: Tensor, n: int, /) -> tuple[Tensor, Tensor]:
        """Patches first_k … first_k + n − 1, from a number on the device (int64, no dimension); waits for nothing."""


def unit_range(pixels: UInt8Pixels, runtime: Runtime, out: Tensor | None = None) -> Tensor:
    """As float32 in 0..1 on the training device, in its memory format."""
    given = pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels)
    if given.device.type == "cpu" and runtime.device != "cpu":
        given = given.pin_memory()  # from there alone a copy to the device need not be waited for
    if out is None:
        out = torch.empty(given.shape, device=runtime.device, memory_format=runtime.layout)
    return torch.div(given.to(runtime.device, non_blocking=True), 255.0, out=out)


class Inputs:
    """LR and HR of one batch after another in 0..1, each at the same place in memory as long as its shape stays.

    A captured step reads its inputs where they were when it was captured; and on a CPU fresh memory costs several
    times the division by 255, for every page of it is zeroed first.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._places: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """Where the last batch lies."""
        assert self._places is not None, "no batch has been filled in yet"
        return self._places

    def fill(self, lr: UInt8Pixels, hr: UInt8Pixels) -> tuple[Tensor, Tensor]:
        """Both as float32 in 0..1 on the training device; the next call overwrites them."""
        shapes = lr.shape, hr.shape
        if self._places is None or tuple(place.shape for place in self._places) != shapes:
            self._places = unit_range(lr, self._runtime), unit_range(hr, self._runtime)
        else:
            for place, pixels in zip(self._places, (lr, hr), strict=True):
                unit_range(pixels, self._runtime, out=place)
        return self._places
