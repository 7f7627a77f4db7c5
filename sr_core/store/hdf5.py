"""The patch store: one HDF5 file with the HR of every image, and its LR for each scale and kernel, as uint8.

This is layout 2. The numbers count the images of a split, in the order of the manifest:

    /                           attributes: format, layout; manifest_sha256
    /manifest                   JSON (UTF-8 bytes): the records of the images, and the LR of each split
    /train/0/hr                 (H, W, 3), uncropped; attributes sha256, crc32
    /train/0/lr/x2/pillow_box   (H // 2, W // 2, 3), from the HR cropped to a multiple of 2; attributes sha256, crc32

Pixels are stored in uncompressed square chunks of side `CHUNK_SIDE` (smaller for smaller images), row by row without
gaps. A reader that knows the start of the first chunk finds any patch without HDF5 (`sr_core.patches.disk`). sha256 is
the `pixel_digest`. It is compared whenever a whole image is read. crc32 holds one checksum per chunk, including the
padding, for readers of chunks. Wrong pixels are therefore never returned.
A store is written under a temporary name and renamed when complete, so a file under the final name is always complete.
"""

import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sr_core.config import Kernel
from sr_core.errors import StoreError
from sr_core.images.degrade import crop_to_multiple
from sr_core.images.files import Image
from sr_core.process.whole_file import whole_file
from sr_core.store.layers import HR, Chunks, Entry, Layer, Lr, PixelLayers
from sr_core.store.manifest import Manifest, ManifestEntry, Split, fingerprint, pixel_digest

FORMAT = b"a2n-study patch store"
LAYOUT = 2

CHUNK_SIDE = 128
"""Side of a chunk in pixels; docs/development/performance.md has the measurement."""

# What h5py raises for truncated and bit-flipped files; there is no common base class.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, OverflowError)
_REMEDY = "delete it and run again to build a new one"


def write_store(path: Path, entries: Iterable[Entry], lr: Iterable[Lr]) -> None:
    """Write a store of these images.

    Only one entry is in memory at a time. The path always holds either the complete new store or the previous file.

    Args:
        entries: the images, those for training first. Each has HR and the LR of its split.
        lr: the LR that the store has.

    Raises:
        StoreError: the file cannot be written, for example because the disk is full.
    """
    records: list[ManifestEntry] = []
    try:
        # libver: from v110 on, object headers have checksums, so damage there is detected too
        with whole_file(path) as partial, h5py.File(partial, "w", libver=("v110", "v110")) as file:
            file.attrs.update(format=np.bytes_(FORMAT), layout=LAYOUT)
            for entry in entries:
                part = file.require_group(entry.record.split)
                group = part.create_group(str(len(part)))
                for layer, image in entry.layers.items():
                    _write(group, layer.path, image)
                records.append(entry.record)
                partial.check()
            text = json.dumps({"pictures": [astuple(record) for record in records], "lr": sorted(set(lr))}).encode()
            file["manifest"] = np.frombuffer(text, np.uint8)
            file.attrs["manifest_sha256"] = _fixed(hashlib.sha256(text).hexdigest())
    except (OSError, RuntimeError) as exc:
        raise StoreError(
            f"{path}: the patch store cannot be written ({_reason(exc)}); make room or use another root"
        ) from exc


def _write(group: Any, name: str, image: Image) -> None:
    height, width = (min(side, CHUNK_SIDE) for side in image.shape[:2])
    rows, columns = _grid(image.shape[:2], (height, width))
    padded = np.zeros((rows * height, columns * width, 3), np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    # With early allocation, no filter and a fixed size, HDF5 stores the chunks in order and needs no index.
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = group.create_dataset(
        name, shape=image.shape, dtype=np.uint8, chunks=(height, width, 3), maxshape=None, dcpl=plan
    )
    crc32 = np.empty((rows, columns), np.uint32)
    for row, column in product(range(rows), range(columns)):
        y = row * height
        x = column * width
        chunk = padded[y : y + height, x : x + width].tobytes()
        dataset.id.write_direct_chunk((y, x, 0), chunk)
        crc32[row, column] = zlib.crc32(chunk)
    dataset.attrs.update(sha256=_fixed(pixel_digest(image)), crc32=crc32)


def _grid(size: Sequence[int], chunk: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // chunk[0]), -(-size[1] // chunk[1])


def _fixed(digest: str) -> np.bytes_:
    """The digest as fixed-length bytes. HDF5 stores a str in a heap without checksum, and can hang if it is damaged."""
    return np.bytes_(digest)


@dataclass(frozen=True, slots=True)
class PatchStore:
    """A complete store. It holds no open file, so it can be sent to other processes. Each read opens the file."""

    path: Path
    manifest: Manifest
    lr: frozenset[Lr]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.manifest)

    def has(self, split: Split, scale: int, kernel: str) -> bool:
        return (split, scale, kernel) in self.lr

    def records(self, split: Split) -> list[ManifestEntry]:
        return [record for record in self.manifest if record.split == split]

    def training_pixels(self, scale: int, kernel: Kernel) -> PixelLayers:
        """The training images, with LR made by a training kernel. Raises StoreError as `load_store` does."""
        return self._pixels("train", scale, kernel)

    def validation_pixels(self, scale: int, kernel: Kernel) -> PixelLayers:
        """The validation images, with LR made by the evaluation kernel. Raises StoreError as `load_store` does."""
        return self._pixels("valid", scale, kernel)

    def _pixels(self, split: Split, scale: int, kernel: Kernel) -> PixelLayers:
        names = [record.name for record in self.records(split)]
        lr = list(self.images(split, Layer(scale, kernel)))
        return PixelLayers(names, lr, [crop_to_multiple(hr, scale) for hr in self.images(split, HR)])

    def images(self, split: Split, layer: Layer, numbers: Iterable[int] | None = None) -> Iterator[Image]:
        """Yield the images of a split, each compared with its checksum.

        Args:
            numbers: the images to read; by default all.
        Raises:
            StoreError: as by `load_store`, or the store has no such LR.
        """
        with _opened(self.path) as file:
            yield from self._images(file, split, layer, numbers)

    def _images(self, file: Any, split: Split, layer: Layer, numbers: Iterable[int] | None) -> Iterator[Image]:
        self._require(split, layer)
        self._compare(file)
        records = self.records(split)
        for number in range(len(records)) if numbers is None else numbers:
            yield _read(file[f"{split}/{number}/{layer.path}"], records[number], layer, self.path)

    def chunks(self, split: Split, layer: Layer) -> list[Chunks]:
        """The positions of the chunks of each image of a split. Reads no pixels. Raises StoreError as `images` does."""
        with _opened(self.path) as file:
            return self._chunks(file, split, layer)

    def _chunks(self, file: Any, split: Split, layer: Layer) -> list[Chunks]:
        self._require(split, layer)
        self._compare(file)
        return [
            _chunks(file[f"{split}/{number}/{layer.path}"], record, layer, self.path)
            for number, record in enumerate(self.records(split))
        ]

    def _compare(self, file: Any) -> None:
        """Check that the open file holds the images and LR of this store, because pixels are addressed by number.

        Raises:
            StoreError: the file holds other images, or lacks some LR.
        """
        manifest, lr = _content(file, self.path)
        if manifest != self.manifest or not self.lr <= lr:
            raise StoreError(
                f"{self.path}: was replaced by a store with other images or less LR while it was in use; run again"
            )

    def _require(self, split: Split, layer: Layer) -> None:
        if layer != HR and not self.has(split, *layer):
            available = ", ".join(f"x{s} {name}" for part, s, name in sorted(self.lr) if part == split)
            raise StoreError(
                f"{self.path}: has no {split} LR for x{layer.scale} {layer.kernel}, only for {available or 'none'}; "
                f"{_REMEDY}"
            )


def load_store(path: Path) -> PatchStore:
    """The store at a path. Only its manifest is read and checked; pixels are read later, on request.

    Raises:
        StoreError: there is no file, or it is truncated, damaged, not a patch store, or has another layout.
    """
    with _opened(path) as file:
        return PatchStore(path, *_content(file, path))


def _content(file: Any, path: Path) -> tuple[Manifest, frozenset[Lr]]:
    """The manifest and the LR that the file holds."""
    text = np.asarray(file["manifest"][()]).tobytes()
    if _fixed(hashlib.sha256(text).hexdigest()) != file.attrs["manifest_sha256"]:
        raise StoreError(f"{path}: the manifest does not match its checksum; {_REMEDY}")
    content = json.loads(text)
    manifest = tuple(ManifestEntry(*fields) for fields in content["pictures"])
    return manifest, frozenset((split, scale, kernel) for split, scale, kernel in content["lr"])


class HeldStore:
    """A store whose file stays open, so that replacing the file at its path has no effect.

    HDF5 metadata and bytes are both read through the one descriptor.
    """

    def __init__(self, store: PatchStore) -> None:
        """Open the file. Raises StoreError as `load_store` does, or if the file now holds other images."""
        self.path = store.path
        try:
            self._file = os.open(store.path, os.O_RDONLY)
        except OSError as exc:
            raise StoreError(f"{store.path}: the patch store cannot be opened ({exc.strerror}); run again") from exc
        weakref.finalize(self, os.close, self._file)
        with _opened(self.path, self._file) as file:
            store._compare(file)
            self._store = PatchStore(self.path, *_content(file, self.path))  # it may have more LR now

    def images(self, split: Split, layer: Layer) -> Iterator[Image]:
        """Yield the images of a split, as `PatchStore.images` does."""
        with _opened(self.path, self._file) as file:
            yield from self._store._images(file, split, layer, None)

    def chunks(self, split: Split, layer: Layer) -> list[Chunks]:
        """The positions of the chunks of each image of a split, as `PatchStore.chunks` returns them."""
        with _opened(self.path, self._file) as file:
            return self._store._chunks(file, split, layer)

    def read(self, size: int, start: int) -> bytes:
        """Read at most `size` bytes of the file, beginning at byte `start`."""
        return os.pread(self._file, size, start)


def verify(path: Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Read all pixels and return the names of the images whose HR or LR are unreadable or do not match their checksums.

    Args:
        progress: called with (images done, images in total) after each image.
    Raises:
        StoreError: `load_store` fails, so images cannot be checked one by one.
    """
    store = load_store(path)
    damaged: list[str] = []
    numbers: dict[Split, int] = {"train": 0, "valid": 0}
    for done, record in enumerate(store.manifest, 1):
        split = record.split
        number = numbers[split]
        numbers[split] += 1
        layers = [HR, *(Layer(scale, kernel) for part, scale, kernel in store.lr if part == split)]
        try:
            with _opened(path) as file:
                for layer in layers:
                    dataset = file[f"{split}/{number}/{layer.path}"]
                    image = _read(dataset, record, layer, path)
                    _check_chunks(image, _chunks(dataset, record, layer, path), dataset)
        except StoreError:
            damaged.append(record.name)
        if progress is not None:
            progress(done, len(store.manifest))
    return damaged


def _read(dataset: Any, record: ManifestEntry, layer: Layer, path: Path) -> Image:
    shape = layer.shape(record)
    where = f"{path}: {dataset.name} of image {record.name}"
    if dataset.shape != shape or dataset.dtype != np.uint8:  # before reading: a damaged size could be huge
        raise StoreError(f"{where}: expected {shape} uint8, got {dataset.shape} {dataset.dtype}; {_REMEDY}")
    image: Image = dataset[()]
    expected = _fixed(record.sha256) if layer == HR else dataset.attrs["sha256"]
    if _fixed(pixel_digest(image)) != expected:
        raise StoreError(f"{where} does not match its checksum; {_REMEDY}")
    return image


def _chunks(dataset: Any, record: ManifestEntry, layer: Layer, path: Path) -> Chunks:
    shape = layer.shape(record)
    chunk = dataset.chunks[:2]
    crc32 = np.asarray(dataset.attrs["crc32"], np.uint32)
    first = dataset.id.get_chunk_info(0)
    last = dataset.id.get_chunk_info(crc32.size - 1)
    in_order = last.byte_offset - first.byte_offset == (crc32.size - 1) * chunk[0] * chunk[1] * 3
    if dataset.shape != shape or crc32.shape != _grid(shape[:2], chunk) or not in_order:
        raise StoreError(
            f"{path}: the chunks of {dataset.name} of image {record.name} have changed since they were written; "
            f"{_REMEDY}"
        )
    return Chunks(first.byte_offset, chunk, crc32)


def _check_chunks(image: Image, chunks: Chunks, dataset: Any) -> None:
    """Check the chunks including their padding. The pixels themselves have already been checked.

    Raises:
        StoreError: a chunk does not match its checksum.
    """
    for row, column in np.ndindex(chunks.crc32.shape):
        y = row * chunks.shape[0]
        x = column * chunks.shape[1]
        if zlib.crc32(dataset.id.read_direct_chunk((y, x, 0))[1]) != chunks.crc32[row, column]:
            raise StoreError(f"{dataset.file.filename}: a chunk of {dataset.name} does not match its checksum")


@contextmanager
def _opened(path: Path, descriptor: int | None = None) -> Iterator[Any]:
    """Open the HDF5 file of a store. An error of h5py in the block becomes a StoreError.

    Args:
        descriptor: of an open file to read, even if `path` was replaced; by default the file at `path` is opened.
    """
    try:
        if descriptor is None and not path.is_file():
            raise StoreError(f"{path}: expected a patch store, but there is no such file; run again to build it")
        with ExitStack() as stack:
            source: Any = path
            if descriptor is not None:
                source = stack.enter_context(os.fdopen(os.dup(descriptor), "rb", buffering=0))
            file = stack.enter_context(h5py.File(source, "r", locking=False))  # a complete store never changes
            if file.attrs.get("format") != FORMAT:
                raise StoreError(f"{path}: is an HDF5 file, but not a patch store; move it away and run again")
            if file.attrs["layout"] != LAYOUT:
                raise StoreError(f"{path}: expected layout {LAYOUT}, got layout {file.attrs['layout']}; {_REMEDY}")
            yield file
    except _DAMAGE as exc:
        raise StoreError(f"{path}: is truncated, damaged or not a patch store ({_reason(exc)}); {_REMEDY}") from exc


def _reason(exc: BaseException) -> str:
    """HDF5's message on one line. Some of its messages contain line breaks."""
    return " ".join(str(exc).split())
