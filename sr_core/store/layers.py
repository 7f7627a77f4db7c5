"""The kinds of pixels in a patch store, and their shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sr_core.config import Kernel
from sr_core.images.files import Image
from sr_core.store.manifest import ManifestEntry, Split


class Layer(NamedTuple):
    """One kind of pixels that every image of a split has: HR, or LR of one scale and kernel."""

    scale: int
    kernel: str
    """The downsampling kernel; "" for HR."""

    @property
    def path(self) -> str:
        """Path of the dataset in the group of an image."""
        return f"lr/x{self.scale}/{self.kernel}" if self.kernel else "hr"

    def shape(self, record: ManifestEntry) -> tuple[int, int, int]:
        """(height, width, 3) of this layer of an image, in pixels."""
        return record.height // self.scale, record.width // self.scale, 3


HR = Layer(1, "")

Lr = tuple[Split, int, Kernel]
"""The LR images of one split, scale and kernel, which a store has or should have."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to be written to a store."""

    record: ManifestEntry
    layers: Mapping[Layer, Image]


@dataclass(frozen=True, slots=True)
class PixelLayers:
    """All images of one split, in host memory."""

    names: list[str]
    lr: list[Image]
    """(h, w, 3) each."""
    hr: list[Image]
    """(scale · h, scale · w, 3) each: cropped bottom and right to a multiple of the scale."""


class Chunks(NamedTuple):
    """Position of one image's pixels in the file: `crc32.size` chunks, row by row from byte `start`, without gaps."""

    start: int
    shape: tuple[int, int]
    """(rows, columns) of a chunk, in pixels."""
    crc32: NDArray[np.uint32]
    """(rows of chunks, columns of chunks)."""
