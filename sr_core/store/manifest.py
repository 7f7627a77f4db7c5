"""What the pictures of a study are, by their pixels: a list to compare with, and one digest of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sr_core.images.files import Image, read_image
from sr_core.store.sources import Picture, Pictures

Split = Literal["train", "valid"]


@dataclass(frozen=True, slots=True)
class Record:
    """What one picture of a store is."""

    split: Split
    name: str
    height: int
    """Of the uncropped HR picture, in pixels."""
    width: int
    sha256: str
    """`pixel_digest` of the uncropped HR picture."""


Manifest = tuple[Record, ...]


def pixel_digest(image: Image) -> str:
    """SHA-256 (hex) over shape and samples: two pictures are the same exactly if their digests are."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 (hex) of what the pictures are: split, name and pixels, in order; not of kernels, scale or file type."""
    identity = [(record.split, record.name, record.sha256) for record in manifest]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def manifest_of(pictures: Pictures) -> Manifest:
    """The manifest that a store of these pictures has; reads every picture once and keeps none.

    Raises:
        ImageError: a picture cannot be read.
    """
    return tuple(record_of(split, picture, read_image(picture.path)) for split, picture in in_order(pictures))


def in_order(pictures: Pictures) -> Iterator[tuple[Split, Picture]]:
    """The pictures that a manifest lists, in its order: those that train, then those that validate."""
    yield from (("train", picture) for picture in pictures.train)
    yield from (("valid", picture) for picture in pictures.valid)


def record_of(split: Split, picture: Picture, hr: Image) -> Record:
    """The record of a picture that has been read."""
    return Record(split, picture.name, hr.shape[0], hr.shape[1], pixel_digest(hr))
