"""Training patches from pixels on the disk, read from the store's chunks as they are needed.

HDF5 takes longer to look up a hyperslab than to read it, so the bytes are read directly from their known positions.
The system's page cache keeps pixels that are read often, and this process keeps only one patch. (With a memory map, all
pages that were ever read would count as resident memory.)
"""

import zlib
from collections.abc import Sequence

import numpy as np

from sr_core.config import DataConfig
from sr_core.errors import StoreError
from sr_core.images.files import Image
from sr_core.patches.sampler import GatheredPatches, sampler_for
from sr_core.store.hdf5 import HeldStore, PatchStore
from sr_core.store.layers import HR, Chunks, Layer
from sr_core.store.manifest import ManifestEntry


class DiskReader:
    """The training images of a store on the disk. The file stays open (`HeldStore`)."""

    name = "disk"

    def __init__(self, store: PatchStore, scale: int) -> None:
        self._store = HeldStore(store)
        self._scale = scale
        self._records = store.records("train")
        self._readers: dict[Layer, _ChunkReader] = {}

    def patches(self, config: DataConfig, seed: int) -> GatheredPatches:
        """The stream of training patches of a seed. Raises ImageError if no image is large enough for a patch."""
        lr = self._reader(Layer(self._scale, config.train_kernel))
        hr = self._reader(HR)
        return GatheredPatches(sampler_for(self._records, config, seed), config, lr, hr)

    def _reader(self, layer: Layer) -> "_ChunkReader":
        if layer not in self._readers:
            self._readers[layer] = _ChunkReader(self, self._store.chunks("train", layer), self._records)
        return self._readers[layer]

    def read(self, size: int, start: int) -> bytes:
        """Read `size` bytes of the store, beginning at byte `start`. Raises StoreError if the file is too short."""
        data = self._store.read(size, start)
        if len(data) != size:
            raise StoreError(f"{self._store.path}: is truncated; delete it and run again to build a new one")
        return data

    def damaged(self, image: str) -> StoreError:
        """The error for a chunk of this image that does not match its checksum."""
        return StoreError(
            f"{self._store.path}: a part of image {image} does not match its checksum; delete the store and run again "
            "to build a new one"
        )


class _ChunkReader:
    """Cuts squares out of the images of one layer, from the chunks that they cover.

    A chunk is compared with its checksum when it is used for the first time.
    """

    def __init__(self, disk: DiskReader, chunks: Sequence[Chunks], records: Sequence[ManifestEntry]) -> None:
        self._disk = disk
        self._chunks = chunks
        self._names = [record.name for record in records]
        self._checked = [bytearray(c.crc32.size) for c in chunks]

    def __call__(self, image: int, y: int, x: int, side: int, /) -> Image:
        start, (height, width), crc32 = self._chunks[image]
        columns = crc32.shape[1]
        checked = self._checked[image]
        crop = np.empty((side, side, 3), np.uint8)
        for row in range(y // height, (y + side - 1) // height + 1):
            above = row * height
            top = max(y, above)
            bottom = min(y + side, above + height)
            for column in range(x // width, (x + side - 1) // width + 1):
                number = row * columns + column
                if not checked[number]:
                    self._check(image, number)
                before = column * width
                left = max(x, before)
                right = min(x + side, before + width)

                # Read only the rows of the chunk that the square covers.
                data = self._disk.read((bottom - top) * width * 3, start + (number * height + top - above) * width * 3)
                part = np.frombuffer(data, np.uint8).reshape(bottom - top, width, 3)
                crop[top - y : bottom - y, left - x : right - x] = part[:, left - before : right - before]
        return crop

    def _check(self, image: int, number: int) -> None:
        start, (height, width), crc32 = self._chunks[image]
        size = height * width * 3
        if zlib.crc32(self._disk.read(size, start + number * size)) != crc32.flat[number]:
            raise self._disk.damaged(self._names[image])
        self._checked[image][number] = True
