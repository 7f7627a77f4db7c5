"""Images that train and are held out too, as the same pixels or as the same photograph in another guise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Literal, TypeVar

import numpy as np

from sr_core.images.files import read_image
from sr_core.leaks.recognition import Gallery, Sketch, Trace, sketch_of, trace_of
from sr_core.process.workers import Workers, share_out
from sr_core.store.known import KnownImages, file_key
from sr_core.store.sources import SourceImage

RULE = 1
"""Version of what counts as a leak or duplicate, here and in `sr_core.leaks.recognition`."""

Kind = Literal["same pixels", "near duplicate"]
ReportProgress = Callable[[int, int], None]
T = TypeVar("T")

_ALIKE = 0.98
"""Correlation of the thumbnails of duplicates: that of an image and its copy at 0.3 of the size, as JPEG 50."""
_CHUNK = 256
"""Images whose traces may wait to be compared."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A training image that shows what a held-out image shows."""

    kind: Kind
    training: str
    """Its name."""
    held_out: str
    """Its name."""
    set_name: str
    """Of the held-out images, e.g. "Set5"."""
    evidence: str
    """How that is known, in words."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A training image that is there already, whole; harmless, but it trains twice as often as others."""

    kind: Kind
    first: str
    again: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Findings:
    leaks: tuple[Leak, ...]
    duplicates: tuple[Duplicate, ...]


def examine(
    train: Sequence[SourceImage],
    held_out: Mapping[str, Sequence[SourceImage]],
    progress: ReportProgress | None = None,
    *,
    known: KnownImages | None = None,
    workers: int | None = None,
) -> Findings:
    """`find_leaks` and `find_duplicates` with every image read once.

    In memory stay up to 3000 keypoints of each held-out image (3 MB) and 1 kB of each training image. Held-out
    images of more than 2^20 pixels and training images of more than 2^18 are first reduced to that.

    Args:
        progress: is told (images, all images) after each.
        known: learns what the images are, so that nobody else need read them for that.
        workers: processes; by default one per core where there is enough to do.
    Raises:
        ImageError: an image cannot be read.
    """
    labels = [(name, image) for name, images in held_out.items() for image in images]
    kept = [image for _, image in labels]
    keys = [file_key(image.path) for image in (*kept, *train)]  # before reading: a change meanwhile shows
    total = len(keys)
    leaks: list[Leak] = []
    sketches: list[Sketch] = []
    with Workers(workers or share_out(image.path for image in (*kept, *train))) as pool:
        told = _counted(total, progress)
        held = list(_in_order(pool, partial(_trace, pixels=1 << 20, keypoints=(2000, 1000)), kept, told))
        gallery, kept_sketches = Gallery(held), [trace.sketch for trace in held]
        digests = [sketch.digest for sketch in kept_sketches]
        del held  # the gallery has what it needs
        traces = _in_order(pool, partial(_trace, pixels=1 << 18, keypoints=(500,)), train, told)
        for image, trace in zip(train, traces, strict=True):
            sketches.append(trace.sketch)
            seen = gallery.recognise(trace)
            for number, (set_name, other) in enumerate(labels):
                if digests[number] == trace.sketch.digest:
                    leaks.append(Leak("same pixels", image.name, other.name, set_name, _same(trace.sketch)))
                elif number in seen:
                    leaks.append(Leak("near duplicate", image.name, other.name, set_name, seen[number]))
    if known is not None:
        for image, key, sketch in zip((*kept, *train), keys, (*kept_sketches, *sketches), strict=True):
            known.learn(image, key, (*sketch.size, sketch.digest))
    return Findings(tuple(leaks), tuple(_duplicates(train, sketches)))


def find_leaks(
    train: Sequence[SourceImage], held_out: Mapping[str, Sequence[SourceImage]], progress: ReportProgress | None = None
) -> list[Leak]:
    """Every pair of a training and a held-out image that show the same, by training image, then by set.

    A near duplicate may be resized to 0.5 to 1.5 times the size, cropped to 80 % of each side, mirrored left to right,
    turned and saved as JPEG of quality 50 or better; smaller parts are found as long as they hold keypoints. Of
    images without texture only whole ones are found, not turned; of plain areas only the same pixels.

    Args:
        held_out: validation and benchmark images by the name of their set.
        progress: is told (images, all images) after each.
    Raises:
        ImageError: an image cannot be read.
    """
    return list(examine(train, held_out, progress).leaks)


def find_duplicates(images: Sequence[SourceImage], progress: ReportProgress | None = None) -> list[Duplicate]:
    """Every image that shows, as a whole, what an earlier one shows; each once, with the first that it resembles.

    Raises:
        ImageError: an image cannot be read.
    """
    with Workers(share_out(image.path for image in images)) as pool:
        sketches = list(_in_order(pool, _sketch, images, _counted(len(images), progress)))
    return list(_duplicates(images, sketches))


def _trace(image: SourceImage, *, pixels: int, keypoints: tuple[int, ...]) -> Trace:
    return trace_of(read_image(image.path), pixels=pixels, keypoints=keypoints)


def _sketch(image: SourceImage) -> Sketch:
    return sketch_of(read_image(image.path))


def _counted(total: int, progress: ReportProgress | None) -> Callable[[], None]:
    done = count(1)
    return lambda: progress(next(done), total) if progress is not None else None


def _in_order(
    pool: Workers, work: Callable[[SourceImage], T], images: Sequence[SourceImage], told: Callable[[], None]
) -> Iterator[T]:
    """What the work gives for each image; a chunk at a time, else all that is done would wait in memory."""
    for start in range(0, len(images), _CHUNK):
        waiting: dict[int, T] = {}
        turn = 0
        for number, result in pool.results(work, images[start : start + _CHUNK]):
            waiting[number] = result
            told()
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1


def _duplicates(images: Sequence[SourceImage], sketches: Sequence[Sketch]) -> Iterator[Duplicate]:
    first: dict[str, int] = {}
    for start in range(0, len(sketches), _CHUNK):
        block = sketches[start : start + _CHUNK]
        before = np.stack([sketch.thumbnail for sketch in sketches[: start + len(block)]])
        alike = np.tril(before[start:] @ before.T, k=start - 1)  # each with those before it
        for number, (sketch, row) in enumerate(zip(block, alike, strict=True), start):
            earlier = first.setdefault(sketch.digest, number)
            if earlier < number:
                yield Duplicate("same pixels", images[earlier].name, images[number].name, _same(sketch))
            elif row.max(initial=0) >= _ALIKE:
                earlier = int(np.argmax(row >= _ALIKE))
                evidence = f"correlation {row[earlier]:.3f} at thumbnail size"
                yield Duplicate("near duplicate", images[earlier].name, images[number].name, evidence)


def _same(sketch: Sketch) -> str:
    return f"SHA-256 of the pixels {sketch.digest[:12]}…"
