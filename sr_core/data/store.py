"""The patch store: every picture once as HR, and its LR per scale and kernel, uint8, in one HDF5 file.

Layout 1. The numbers count the pictures of a split, in the manifest's order:

    /                           attributes: format, layout; manifest_sha256
    /manifest                   JSON (UTF-8 bytes): the pictures' records, and which LR every picture has
    /train/0/hr                 (H, W, 3), uncropped; attribute sha256
    /train/0/lr/x2/pillow_box   (H // 2, W // 2, 3), of the HR cropped to a multiple of 2; attribute sha256

Checksums are `pixel_digest`s; each is compared whenever the pixels are read, so wrong pixels never come out.
A store is written beside its place and renamed when complete: a file under the final name is a whole one.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sr_core.config import Kernel
from sr_core.data.degrade import crop_to_multiple, downsample
from sr_core.data.images import Image, read_image
from sr_core.data.manifest import Manifest, Record, Split, fingerprint, in_order, pixel_digest, record_of
from sr_core.data.sources import Picture, Pictures
from sr_core.data.whole_file import whole_file
from sr_core.errors import ImageError, StoreError

FORMAT = b"a2n-study patch store"
LAYOUT = 1

# What h5py raises on damaged files, seen with cut and bit-flipped ones; there is no common base class.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, OverflowError)
_REMEDY = "delete it and run again, it is then built anew"


@dataclass(frozen=True, slots=True)
class Pixels:
    """All pictures of one split, resident in host memory."""

    names: list[str]
    lr: list[Image]
    """(h, w, 3) each."""
    hr: list[Image]
    """(scale · h, scale · w, 3) each: cropped bottom and right to a multiple of the scale."""


def build_store(
    path: Path,
    pictures: Pictures,
    *,
    scale: int,
    train_kernels: Sequence[Kernel],
    evaluation_kernel: Kernel,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a store: training pictures with LR by every train kernel, validation pictures by the evaluation kernel.

    One picture is in memory at a time. Whatever happens on the way, the final name holds the complete new store or
    what was there before.

    Args:
        progress: is told (pictures done, pictures in all) after each.
    Raises:
        ImageError: a picture cannot be read, or is smaller than one LR pixel.
        StoreError: the file cannot be written, for example because the disk is full.
    """
    kernels: dict[Split, list[Kernel]] = {"train": list(dict.fromkeys(train_kernels)), "valid": [evaluation_kernel]}
    todo = list(in_order(pictures))
    records: list[Record] = []
    try:
        # libver: object headers carry checksums from v110 on, so that damage there is found too
        with whole_file(path) as partial, h5py.File(partial, "w", libver=("v110", "v110")) as file:
            file.attrs.update(format=np.bytes_(FORMAT), layout=LAYOUT)
            for split, picture in todo:
                part = file.require_group(split)
                records.append(_add(part.create_group(str(len(part))), split, picture, scale, kernels[split]))
                partial.check()
                if progress is not None:
                    progress(len(records), len(todo))
            lr = [(split, scale, kernel) for split in kernels for kernel in kernels[split]]
            text = json.dumps({"pictures": [astuple(record) for record in records], "lr": lr}).encode()
            file["manifest"] = np.frombuffer(text, np.uint8)
            file.attrs["manifest_sha256"] = _fixed(hashlib.sha256(text).hexdigest())
    except (OSError, RuntimeError) as exc:
        raise StoreError(
            f"{path}: the patch store cannot be written ({_reason(exc)}); make room or use another root"
        ) from exc


def _add(group: Any, split: Split, picture: Picture, scale: int, kernels: Sequence[Kernel]) -> Record:
    hr = read_image(picture.path)
    record = record_of(split, picture, hr)
    if min(record.height, record.width) < scale:
        raise ImageError(
            f"{picture.path}: a picture needs at least {scale}x{scale} pixels at x{scale}, this one has "
            f"{record.width}x{record.height}; remove it from the folder"
        )
    group.create_dataset("hr", data=hr).attrs["sha256"] = _fixed(record.sha256)
    cropped = crop_to_multiple(hr, scale)
    for kernel in kernels:
        lr = downsample(cropped, scale, kernel)
        group.create_dataset(_lr_path(scale, kernel), data=lr).attrs["sha256"] = _fixed(pixel_digest(lr))
    return record


def _fixed(digest: str) -> np.bytes_:
    """As h5py stores it in place: a str goes to a heap without checksum, in whose damage HDF5 can loop for ever."""
    return np.bytes_(digest)


def _lr_path(scale: int, kernel: str) -> str:
    return f"lr/x{scale}/{kernel}"


@dataclass(frozen=True, slots=True)
class PatchStore:
    """A complete store. Holds no open file: each reading opens it anew, so it can be sent to other processes."""

    path: Path
    manifest: Manifest
    lr: frozenset[tuple[str, int, str]]
    """The (split, scale, kernel) that the store has LR for."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.manifest)

    def has(self, split: Split, scale: int, kernel: str) -> bool:
        return (split, scale, kernel) in self.lr

    def training_pixels(self, scale: int, kernel: Kernel) -> Pixels:
        """The training pictures with LR by a train kernel; raises StoreError as `load_store` does."""
        return self._pixels("train", scale, kernel)

    def validation_pixels(self, scale: int, kernel: Kernel) -> Pixels:
        """The validation pictures with LR by the evaluation kernel; raises StoreError as `load_store` does."""
        return self._pixels("valid", scale, kernel)

    def _pixels(self, split: Split, scale: int, kernel: Kernel) -> Pixels:
        if not self.has(split, scale, kernel):
            there = ", ".join(f"x{s} {name}" for part, s, name in sorted(self.lr) if part == split)
            raise StoreError(
                f"{self.path}: has no {split} LR for x{scale} {kernel}, only for {there or 'none'}; {_REMEDY}"
            )
        pixels = Pixels([], [], [])
        with _opened(self.path) as file:
            for number, record in _numbered(self.manifest):
                if record.split == split:
                    group = file[f"{split}/{number}"]
                    pixels.names.append(record.name)
                    pixels.hr.append(crop_to_multiple(_read_hr(group, record), scale))
                    pixels.lr.append(_read_lr(group, record, scale, kernel))
        return pixels


def load_store(path: Path) -> PatchStore:
    """The store at a path: its manifest is read and checked, pixels are read when asked for.

    Raises:
        StoreError: there is no file, or it is truncated, damaged, no patch store or one of another layout.
    """
    with _opened(path) as file:
        text = np.asarray(file["manifest"][()]).tobytes()
        if _fixed(hashlib.sha256(text).hexdigest()) != file.attrs["manifest_sha256"]:
            raise StoreError(f"{path}: the manifest does not match its checksum; {_REMEDY}")
        content = json.loads(text)
    manifest = tuple(Record(*fields) for fields in content["pictures"])
    return PatchStore(path, manifest, frozenset((split, scale, kernel) for split, scale, kernel in content["lr"]))


def read_manifest(path: Path) -> Manifest:
    """What the pictures of a store are; raises StoreError as `load_store` does."""
    return load_store(path).manifest


def verify(path: Path) -> list[str]:
    """Names of the pictures whose HR or LR cannot be read or do not match their checksums; all pixels are read.

    Raises:
        StoreError: nothing can be said picture by picture, because `load_store` fails.
    """
    store = load_store(path)
    damaged = []
    for number, record in _numbered(store.manifest):
        try:
            with _opened(path) as file:
                group = file[f"{record.split}/{number}"]
                _read_hr(group, record)
                for split, scale, kernel in store.lr:
                    if split == record.split:
                        _read_lr(group, record, scale, kernel)
        except StoreError:
            damaged.append(record.name)
    return damaged


def _numbered(manifest: Manifest) -> Iterator[tuple[int, Record]]:
    """Each record with its number within its split."""
    seen: dict[str, int] = {}
    for record in manifest:
        seen[record.split] = seen.get(record.split, -1) + 1
        yield seen[record.split], record


def _read_hr(group: Any, record: Record) -> Image:
    return _read(group["hr"], record, (record.height, record.width, 3), _fixed(record.sha256))


def _read_lr(group: Any, record: Record, scale: int, kernel: str) -> Image:
    dataset = group[_lr_path(scale, kernel)]
    return _read(dataset, record, (record.height // scale, record.width // scale, 3), dataset.attrs["sha256"])


def _read(dataset: Any, record: Record, shape: tuple[int, ...], sha256: np.bytes_) -> Image:
    where = f"{dataset.file.filename}: {dataset.name} of picture {record.name}"
    if dataset.shape != shape or dataset.dtype != np.uint8:  # before reading: a damaged size could be huge
        raise StoreError(f"{where} should be {shape} uint8, is {dataset.shape} {dataset.dtype}; {_REMEDY}")
    image: Image = dataset[()]
    if _fixed(pixel_digest(image)) != sha256:
        raise StoreError(f"{where} does not match its checksum; {_REMEDY}")
    return image


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open HDF5 file of a store; whatever h5py raises inside becomes a StoreError."""
    if not path.is_file():
        raise StoreError(f"{path}: expected a patch store, and there is no such file; run again to build it")
    try:
        with h5py.File(path, "r", locking=False) as file:  # a complete store never changes
            if file.attrs.get("format") != FORMAT:
                raise StoreError(f"{path}: is an HDF5 file, but no patch store; move it away and run again")
            if file.attrs["layout"] != LAYOUT:
                raise StoreError(f"{path}: has layout {file.attrs['layout']}, expected {LAYOUT}; {_REMEDY}")
            yield file
    except _DAMAGE as exc:
        raise StoreError(f"{path}: truncated, damaged or no patch store ({_reason(exc)}); {_REMEDY}") from exc


def _reason(exc: BaseException) -> str:
    """HDF5's message on one line; it breaks some in two."""
    return " ".join(str(exc).split())
