"""The manifest of a study's images, which identifies them by their pixels, and its fingerprint."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sr_core.images.files import Image, read_image
from sr_core.store.sources import ImageSet, SourceImage

Split = Literal["train", "valid"]


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """The record of one image in a store."""

    split: Split
    name: str
    height: int
    """Height of the uncropped HR image, in pixels. `width` is its width."""
    width: int
    sha256: str
    """`pixel_digest` of the uncropped HR image."""


Manifest = tuple[ManifestEntry, ...]


def pixel_digest(image: Image) -> str:
    """SHA-256 (hex) over shape and samples. Two images are equal exactly if their digests are equal."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 (hex) over split, name and pixels of the images, in order; kernels, scale and file type do not count."""
    identity = [(record.split, record.name, record.sha256) for record in manifest]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def manifest_of(images: ImageSet) -> Manifest:
    """The manifest of a store of these images. Reads every image once and keeps none in memory.

    Raises:
        ImageError: an image cannot be read.
    """
    return tuple(manifest_entry(split, image, read_image(image.path)) for split, image in in_order(images))


def in_order(images: ImageSet) -> Iterator[tuple[Split, SourceImage]]:
    """Yield the images in the order of a manifest: first those for training, then those for validation."""
    yield from (("train", image) for image in images.train)
    yield from (("valid", image) for image in images.valid)


def manifest_entry(split: Split, image: SourceImage, hr: Image) -> ManifestEntry:
    """The record of an image, given its HR pixels of shape (height, width, 3)."""
    return ManifestEntry(split, image.name, hr.shape[0], hr.shape[1], pixel_digest(hr))
