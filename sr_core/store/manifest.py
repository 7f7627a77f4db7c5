"""What the images of a study are, by their pixels: a list to compare with, and one digest of it."""

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
    """What one image of a store is."""

    split: Split
    name: str
    height: int
    """Of the uncropped HR image, in pixels."""
    width: int
    sha256: str
    """`pixel_digest` of the uncropped HR image."""


Manifest = tuple[ManifestEntry, ...]


def pixel_digest(image: Image) -> str:
    """SHA-256 (hex) over shape and samples: two images are the same exactly if their digests are."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 (hex) of what the images are: split, name and pixels, in order; not of kernels, scale or file type."""
    identity = [(record.split, record.name, record.sha256) for record in manifest]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def manifest_of(images: ImageSet) -> Manifest:
    """The manifest that a store of these images has; reads every image once and keeps none.

    Raises:
        ImageError: an image cannot be read.
    """
    return tuple(manifest_entry(split, image, read_image(image.path)) for split, image in in_order(images))


def in_order(images: ImageSet) -> Iterator[tuple[Split, SourceImage]]:
    """The images that a manifest lists, in its order: those that train, then those that validate."""
    yield from (("train", image) for image in images.train)
    yield from (("valid", image) for image in images.valid)


def manifest_entry(split: Split, image: SourceImage, hr: Image) -> ManifestEntry:
    """The record of an image that has been read."""
    return ManifestEntry(split, image.name, hr.shape[0], hr.shape[1], pixel_digest(hr))
