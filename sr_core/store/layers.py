"""The kinds of pixels that a patch store holds, and the shapes they come in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sr_core.config import Kernel
from sr_core.images.files import Image
from sr_core.store.manifest import ManifestEntry, Split


class Layer(NamedTuple):
    """One kind of pixels that every image of a split has."""

    scale: int
    kernel: str
    """By which it was reduced; "" for HR."""

    @property
    def path(self) -> str:
        """Of its dataset in an image's group."""
        return f"lr/x{self.scale}/{self.kernel}" if self.kernel else "hr"

    def shape(self, record: ManifestEntry) -> tuple[int, int, int]:
        return record.height // self.scale, record.width // self.scale, 3


HR = Layer(1, "")

Lr = tuple[Split, int, Kernel]
"""LR that a store has or should have: of which split, at which scale, by which kernel."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image on its way into a store."""

    record: ManifestEntry
    layers: Mapping[Layer, Image]


@dataclass(frozen=True, slots=True)
class PixelLayers:
    """All images of one split, resident in host memory."""

    names: list[str]
    lr: list[Image]
    """(h, w, 3) each."""
    hr: list[Image]
    """(scale · h, scale · w, 3) each: cropped bottom and right to a multiple of the scale."""


class Chunks(NamedTuple):
    """Where one image's pixels lie in the file: `crc32.size` chunks, row by row from `start`, without gaps."""

    start: int
    shape: tuple[int, int]
    """Of a chunk, in pixels (rows, columns)."""
    crc32: NDArray[np.uint32]
    """(rows of chunks, columns of chunks)."""
