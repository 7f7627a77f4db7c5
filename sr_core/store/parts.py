"""One prepared image in a file of its own (a part), so that an interrupted preparation can be resumed.

A part begins with a line of JSON: the image's record and its layers. The samples follow, layer by layer. A part gets
its name when it is complete, and the name identifies what it was made from.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from sr_core.config import Kernel
from sr_core.errors import ImageError, StoreError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import Image, read_image
from sr_core.store.hdf5 import load_store
from sr_core.store.layers import HR, Layer
from sr_core.store.manifest import ManifestEntry, Split, manifest_entry, pixel_digest
from sr_core.store.sources import SourceImage


@dataclass(frozen=True, slots=True)
class PartTask:
    """The description of a part to make."""

    split: Split
    image: SourceImage
    key: tuple[int, int]
    """`file_key` of the image."""
    layers: tuple[Layer, ...]
    folder: Path
    stored: tuple[Path, Split, int] | None = None
    """Path of a store that already has this image, with its split and number there. HR is then read from it."""

    @property
    def path(self) -> Path:
        """The file of the part. Its name is a digest of what the part is made from."""
        identity = (self.split, self.image.name, self.key, sorted(self.layers), self.stored is None)
        return self.folder / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:32]}.part"


def make_part(task: PartTask) -> ManifestEntry:
    """Write the part, unless it exists, and return the image's record.

    Raises:
        ImageError: the image cannot be read, or is smaller than one LR pixel.
        StoreError: the part cannot be written.
    """
    finished = record_in(task.path)
    if finished is not None:
        return finished
    if task.stored is None:
        hr = read_image(task.image.path)
        record = manifest_entry(task.split, task.image, hr)
    else:
        path, split, number = task.stored
        store = load_store(path)
        hr = next(store.images(split, HR, [number]))
        old = store.records(split)[number]
        record = ManifestEntry(task.split, task.image.name, old.height, old.width, old.sha256)
    _check_size(task.image, hr, max(layer.scale for layer in task.layers))
    images = {layer: _layer_of(hr, layer) for layer in task.layers}
    content = [(*layer, pixel_digest(image)) for layer, image in images.items()]
    unfinished = task.path.with_suffix(f".{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(json.dumps({"record": astuple(record), "layers": content}).encode() + b"\n")
            for image in images.values():
                file.write(np.ascontiguousarray(image).data)
        unfinished.replace(task.path)
    except OSError as exc:
        unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"{task.folder.with_suffix('')}: the patch store cannot be written ({exc.strerror}); make room or use "
            "another folder"
        ) from exc
    return record


def record_in(path: Path) -> ManifestEntry | None:
    """The record in a part; None if there is no part, or it is truncated after a power cut."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
            record = ManifestEntry(*header["record"])
            length = file.tell() + sum(
                int(np.prod(Layer(scale, kernel).shape(record))) for scale, kernel, _ in header["layers"]
            )
            return record if path.stat().st_size == length else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_part(path: Path) -> dict[Layer, Image]:
    """The layers of a part.

    Raises:
        StoreError: the part is damaged. It is then deleted, and the next run makes it again.
    """
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
            record = ManifestEntry(*header["record"])
            images: dict[Layer, Image] = {}
            for scale, kernel, sha256 in header["layers"]:
                shape = Layer(scale, kernel).shape(record)
                image = np.frombuffer(file.read(int(np.prod(shape))), np.uint8).reshape(shape)
                if pixel_digest(image) != sha256:
                    raise ValueError("checksum")
                images[Layer(scale, kernel)] = image
            return images
    except (OSError, ValueError, KeyError, TypeError) as exc:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path}: was damaged and has been deleted; run again to make it again") from exc


def _check_size(image: SourceImage, hr: Image, scale: int) -> None:
    height, width = hr.shape[:2]
    if min(height, width) < scale:
        raise ImageError(
            f"{image.path}: expected an image of at least {scale}x{scale} pixels at x{scale}, got {width}x{height}; "
            "remove it from the folder"
        )


def _layer_of(hr: Image, layer: Layer) -> Image:
    if layer == HR:
        return hr
    kernel: Kernel = layer.kernel  # type: ignore[assignment]  # a checked name
    return downsample(crop_to_multiple(hr, layer.scale), layer.scale, kernel)


def layers_for(split: Split, lr: Iterable[tuple[Split, int, Kernel]]) -> list[Layer]:
    """The layers that an image of this split has in a store with this LR, HR first."""
    return [HR, *sorted(Layer(scale, kernel) for part, scale, kernel in lr if part == split)]
