"""Converts batches of uint8 pixels to float32 inputs on the training device."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_core.training.runtime import Runtime

UInt8Pixels = NDArray[np.uint8] | Tensor
"""Pixels of shape (N, 3, H, W), uint8. A tensor may already be on the training device."""


@runtime_checkable
class DrawsOnDevice(Protocol):
    """A source of batches that the training device itself makes, from a patch number in its own memory."""

    def at(self, first_k: Tensor, n: int, /) -> tuple[Tensor, Tensor]:
        """The LR and HR pixels of patches first_k to first_k + n - 1. Does not wait for the device.

        Args:
            first_k: a scalar tensor on the device, int64.
        """


def unit_range(pixels: UInt8Pixels, runtime: Runtime, out: Tensor | None = None) -> Tensor:
    """The pixels as float32 in [0, 1] on the training device, in the memory format of the runtime.

    Args:
        out: the tensor to write to. A new one is allocated by default.
    """
    source = pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels)
    if source.device.type == "cpu" and runtime.device != "cpu":
        source = source.pin_memory()  # only a copy from pinned memory is asynchronous
    if out is None:
        out = torch.empty(source.shape, device=runtime.device, memory_format=runtime.layout)
    return torch.div(source.to(runtime.device, non_blocking=True), 255.0, out=out)


class Inputs:
    """The LR and HR pixels of the current batch in [0, 1], on the training device.

    They keep their memory addresses as long as the shapes are equal. A captured step reads its inputs from the
    addresses at the time of the capture. On a CPU, reusing memory also saves time: new memory is zeroed first, which
    takes several times as long as the division by 255.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._places: tuple[Tensor, Tensor] | None = None

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """The LR and HR tensors of the last batch."""
        assert self._places is not None, "no batch has been filled in yet"
        return self._places

    def fill(self, lr: UInt8Pixels, hr: UInt8Pixels) -> tuple[Tensor, Tensor]:
        """Both as float32 in [0, 1] on the training device. The next call overwrites them."""
        shapes = lr.shape, hr.shape
        if self._places is None or tuple(place.shape for place in self._places) != shapes:
            self._places = unit_range(lr, self._runtime), unit_range(hr, self._runtime)
        else:
            for place, pixels in zip(self._places, (lr, hr), strict=True):
                unit_range(pixels, self._runtime, out=place)
        return self._places
