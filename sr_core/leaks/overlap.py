"""Detection of images that occur in both training and held-out sets, as the same pixels or as an edited copy."""

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
"""Version of the rules for leaks and duplicates, here and in `sr_core.leaks.recognition`."""

Kind = Literal["same pixels", "near duplicate"]
ReportProgress = Callable[[int, int], None]
T = TypeVar("T")

_MIN_DUPLICATE_CORRELATION = 0.98
"""Minimum correlation of two thumbnails of duplicates: that of an image and its copy at 0.3 of the size, as JPEG 50."""
_CHUNK_IMAGES = 256
"""Maximum number of images whose traces wait in memory."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A training image that shows what a held-out image shows."""

    kind: Kind
    training: str
    """Name of the training image."""
    held_out: str
    """Name of the held-out image."""
    set_name: str
    """Name of the set that holds the held-out image, e.g. "Set5"."""
    evidence: str
    """Why the two are considered the same, in words."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A training image that shows the whole of an earlier one. It is harmless, but is used twice as often as others."""

    kind: Kind
    first: str
    again: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The leaks and duplicates of a training set."""

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
    """Find leaks and duplicates, and read every image only once.

    Memory holds up to 3000 keypoints of each held-out image (3 MB) and 1 kB of each training image. Held-out
    images are first reduced to at most 2^20 pixels, training images to at most 2^18.

    Args:
        held_out: validation and benchmark images by the name of their set.
        progress: called with (images done, images in total) after each image.
        known: stores the size and pixel digest of each image, so that they need not be read again for that.
        workers: number of processes; by default one per core if there is enough to do.
    Raises:
        ImageError: an image cannot be read.
    """
    labels = [(name, image) for name, images in held_out.items() for image in images]
    held_out_images = [image for _, image in labels]
    all_images = (*held_out_images, *train)
    keys = [file_key(image.path) for image in all_images]  # taken before reading, so that a later change shows
    total = len(keys)
    leaks: list[Leak] = []
    sketches: list[Sketch] = []
    with Workers(workers or share_out(image.path for image in all_images)) as pool:
        count_one = _counted(total, progress)
        trace_held_out = partial(_trace, pixels=1 << 20, keypoints=(2000, 1000))
        held_out_traces = list(_in_order(pool, trace_held_out, held_out_images, count_one))
        gallery = Gallery(held_out_traces)
        held_out_sketches = [trace.sketch for trace in held_out_traces]
        digests = [sketch.digest for sketch in held_out_sketches]
        del held_out_traces  # the gallery has a copy of what it needs

        traces = _in_order(pool, partial(_trace, pixels=1 << 18, keypoints=(500,)), train, count_one)
        for image, trace in zip(train, traces, strict=True):
            sketches.append(trace.sketch)
            evidence = gallery.recognise(trace)
            for number, (set_name, other) in enumerate(labels):
                if digests[number] == trace.sketch.digest:
                    leaks.append(Leak("same pixels", image.name, other.name, set_name, _same(trace.sketch)))
                elif number in evidence:
                    leaks.append(Leak("near duplicate", image.name, other.name, set_name, evidence[number]))

    if known is not None:
        for image, key, sketch in zip(all_images, keys, (*held_out_sketches, *sketches), strict=True):
            known.learn(image, key, (*sketch.size, sketch.digest))
    return Findings(tuple(leaks), tuple(_duplicates(train, sketches)))


def find_leaks(
    train: Sequence[SourceImage], held_out: Mapping[str, Sequence[SourceImage]], progress: ReportProgress | None = None
) -> list[Leak]:
    """All pairs of a training and a held-out image that show the same, ordered by training image, then by set.

    A near duplicate may be resized to 0.5 to 1.5 times the size, cropped to 80% of each side, mirrored left to right,
    rotated and saved as JPEG of quality 50 or better. Smaller parts are found if they hold enough keypoints.
    Images without texture are found only whole and not rotated. Plain areas are found only as the same pixels.

    Args:
        held_out: validation and benchmark images by the name of their set.
        progress: called with (images done, images in total) after each image.
    Raises:
        ImageError: an image cannot be read.
    """
    return list(examine(train, held_out, progress).leaks)


def find_duplicates(images: Sequence[SourceImage], progress: ReportProgress | None = None) -> list[Duplicate]:
    """All images that show the whole of an earlier image. Each is listed once, with the first image that it resembles.

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
    pool: Workers, work: Callable[[SourceImage], T], images: Sequence[SourceImage], count_one: Callable[[], None]
) -> Iterator[T]:
    """The result of the work for each image, in order. Chunks bound the number of results that wait in memory."""
    for start in range(0, len(images), _CHUNK_IMAGES):
        waiting: dict[int, T] = {}
        turn = 0
        for number, result in pool.results(work, images[start : start + _CHUNK_IMAGES]):
            waiting[number] = result
            count_one()
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1


def _duplicates(images: Sequence[SourceImage], sketches: Sequence[Sketch]) -> Iterator[Duplicate]:
    first: dict[str, int] = {}
    for start in range(0, len(sketches), _CHUNK_IMAGES):
        block = sketches[start : start + _CHUNK_IMAGES]
        before = np.stack([sketch.thumbnail for sketch in sketches[: start + len(block)]])
        alike = np.tril(before[start:] @ before.T, k=start - 1)  # each image with the earlier ones
        for number, (sketch, row) in enumerate(zip(block, alike, strict=True), start):
            earlier = first.setdefault(sketch.digest, number)
            if earlier < number:
                yield Duplicate("same pixels", images[earlier].name, images[number].name, _same(sketch))
            elif row.max(initial=0) >= _MIN_DUPLICATE_CORRELATION:
                earlier = int(np.argmax(row >= _MIN_DUPLICATE_CORRELATION))
                evidence = f"correlation {row[earlier]:.3f} at thumbnail size"
                yield Duplicate("near duplicate", images[earlier].name, images[number].name, evidence)


def _same(sketch: Sketch) -> str:
    return f"SHA-256 of the pixels {sketch.digest[:12]}…"
