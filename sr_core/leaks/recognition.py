"""Knowing a photograph again after it was resized, cropped, mirrored, turned or re-compressed.

Keypoints (SIFT: Lowe, IJCV 60, 2004; its descriptors by their square roots: Arandjelović and Zisserman, CVPR 2012) are
looked up in one index of all images to be recognised. Those of another photograph find nothing near, or neighbours
in places that fit no single shift, turn and size: between 380 training images and those of Set5 and Set14 at most 7
agreed by chance, and each one more was ten times rarer; of a part of 80 % that was halved and saved as JPEG 50 it were
40 with Set5 and Set14, 13 with the hardest of 47 photographs. An image of few keypoints (sky, fog, fur out of focus)
is compared as a whole, at 16x16 pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sr_core.images.files import Image
from sr_core.store.manifest import pixel_digest

Float32Array = NDArray[np.float32]
Numbers = NDArray[np.intp]

AGREE = 12
"""Keypoints that must agree on one shift, turn and size."""
FEW_KEYPOINTS = 200
"""A pair of which one image has fewer is compared at thumbnail size too."""
SAME_THUMBNAIL = 0.95
"""Correlation of two thumbnails from which they show the same; other photographs reached 0.85."""

_CONTRAST = 0.01
"""SIFT's threshold; its usual 0.04 leaves skin and soft backgrounds with too few keypoints."""
_NEIGHBOURS, _CHECKS, _TREES = 16, 32, 4
_RATIO = 0.7
"""A neighbour counts if it is nearer than this times the distance of the last one. Not of the second, as is usual: an
image may be there up to 15 times, as Set5's head is in Set14."""
_TOLERANCE = 3.0
"""Pixels by which a keypoint may miss its place, at the size that it was found at."""
_LARGEST_RATIO = 8.0
"""Of the two images' sizes; beyond it, in either direction, all keypoints fit into one spot."""

_SIDE = 16
_FLAT = 2.0
"""Grey levels (RMS) below which a thumbnail shows nothing but noise."""
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()
"""Where a mirrored image has the 4x4 cells of 8 directions of a SIFT descriptor."""
_PLANES = np.linalg.qr(np.stack([np.ones(_SIDE**2), *np.indices((_SIDE, _SIDE)).reshape(2, -1)], axis=1))[0]


@dataclass(frozen=True, slots=True)
class Sketch:
    """Enough to know a whole image again."""

    digest: str
    """`pixel_digest`."""
    size: tuple[int, int]
    """(height, width)"""
    thumbnail: Float32Array
    """(256,) grey at 16x16 less its best plane, of length 1; zeros if nothing is left."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Enough to know a part of an image again."""

    sketch: Sketch
    points: Float32Array
    """(n, 2), x and y of the keypoints."""
    descriptors: NDArray[np.uint8]
    """(n, 128)"""

    def mirrored(self) -> "Trace":
        """The trace of the image mirrored left to right."""
        thumbnail = self.sketch.thumbnail.reshape(_SIDE, _SIDE)[:, ::-1].ravel()
        sketch = Sketch("", self.sketch.size, thumbnail)
        return Trace(sketch, self.points * np.array([-1, 1], np.float32), self.descriptors[:, _MIRRORED])


def sketch_of(image: Image) -> Sketch:
    """The sketch of an RGB image."""
    small = cv2.resize(_grey(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
    small -= _PLANES @ (_PLANES.T @ small)  # skies and vignettes are all alike
    length = np.linalg.norm(small)
    shows = length >= _FLAT * _SIDE
    thumbnail = (small / length if shows else np.zeros(_SIDE**2)).astype(np.float32)
    return Sketch(pixel_digest(image), (image.shape[0], image.shape[1]), thumbnail)


def trace_of(image: Image, *, pixels: int, keypoints: Sequence[int]) -> Trace:
    """The trace of an RGB image.

    Args:
        pixels: an image of more is reduced to about so many before keypoints are sought.
        keypoints: so many of the most contrasty are kept at this size, at half of it, and so on. In fine texture the
            most contrasty ones are all too small to be seen at half the size.
    """
    grey = _grey(image)
    grey = _resized(grey, min(1.0, (pixels / grey.size) ** 0.5))
    points, descriptors = [np.empty((0, 2), np.float32)], [np.empty((0, 128), np.uint8)]
    for halvings, most in enumerate(keypoints):
        sift = cv2.SIFT.create(most, contrastThreshold=_CONTRAST)
        found, described = sift.detectAndCompute(_resized(grey, 0.5**halvings), None)
        if found:
            points.append(np.array([keypoint.pt for keypoint in found], np.float32) * 2**halvings)
            descriptors.append(described.astype(np.uint8))
    return Trace(sketch_of(image), np.concatenate(points), np.concatenate(descriptors))


def _resized(grey: Image, factor: float) -> Image:
    height, width = grey.shape
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return grey if factor == 1 else np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


class Gallery:
    """Images that can be recognised; about 1 kB of memory for each of their keypoints."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self._counts = np.array([len(trace.points) for trace in traces], np.intp)
        self._owner = np.repeat(np.arange(len(traces)), self._counts)
        self._points = np.concatenate([np.empty((0, 2), np.float32), *(trace.points for trace in traces)])
        self._thumbnails = np.array([trace.sketch.thumbnail for trace in traces], np.float32).reshape(-1, _SIDE**2)
        # The index only refers to the descriptors: they must live as long.
        self._descriptors = _roots(np.concatenate([np.empty((0, 128), np.uint8), *(t.descriptors for t in traces)]))
        self._index = cv2.flann.Index()
        if len(self._descriptors) > 1:
            cv2.setRNGSeed(1)  # the same trees, so the same findings, every time
            self._index.build(self._descriptors, {"algorithm": 1, "trees": _TREES})  # 1 is a forest of k-d trees

    def recognise(self, trace: Trace) -> dict[int, str]:
        """Which of the images show what this one shows, by their numbers, and how that is known."""
        found: dict[int, tuple[int, str]] = {}
        for way, words in ((trace, ""), (trace.mirrored(), ", mirrored")):
            for number, agreeing in self._agreeing(way):
                evidence = agreeing, f"{agreeing} keypoints agree{words}"
                found[number] = max(found.get(number, evidence), evidence)
            alike = self._thumbnails @ way.sketch.thumbnail
            few = (self._counts < FEW_KEYPOINTS) | (len(way.points) < FEW_KEYPOINTS)
            for number in np.flatnonzero(few & (alike >= SAME_THUMBNAIL)).tolist():
                found.setdefault(number, (0, f"correlation {alike[number]:.3f} at {_SIDE}x{_SIDE} pixels{words}"))
        return {number: words for number, (_, words) in found.items()}

    def _agreeing(self, trace: Trace) -> Iterator[tuple[int, int]]:
        """(number of an image, keypoints that agree) where these are enough."""
        if len(trace.points) < AGREE or len(self._points) < AGREE:
            return
        count = min(_NEIGHBOURS, len(self._points))
        nearest, squared = self._index.knnSearch(_roots(trace.descriptors), count, params={"checks": _CHECKS})
        query, rank = np.nonzero(squared[:, :-1] < _RATIO**2 * squared[:, -1:])
        order = np.argsort(squared[query, rank], kind="stable")
        query, target = query[order], nearest[query, rank][order]
        owner = self._owner[target]
        for number in np.flatnonzero(np.bincount(owner) >= AGREE).tolist():
            one, other = _one_to_one(query[owner == number], target[owner == number])
            if (agreeing := _fitting(trace.points[one], self._points[other])) >= AGREE:
                yield number, agreeing


def _roots(descriptors: NDArray[np.uint8]) -> Float32Array:
    """Of descriptors scaled to sum 1: their Euclidean distance is Hellinger's of the histograms."""
    total = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1)), np.float32)


def _one_to_one(query: Numbers, target: Numbers) -> tuple[Numbers, Numbers]:
    """Of pairs, the best first, those that leave each keypoint one partner."""
    kept = np.sort(np.unique(query, return_index=True)[1])
    query, target = query[kept], target[kept]
    kept = np.unique(target, return_index=True)[1]
    return query[kept], target[kept]


def _fitting(points: Float32Array, others: Float32Array) -> int:
    """How many points one shift, turn and size brings to their partners."""
    if len(points) < AGREE:
        return 0
    matrix, fits = cv2.estimateAffinePartial2D(
        points, others, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE, confidence=0.999
    )
    if matrix is None or not 1 / _LARGEST_RATIO <= np.hypot(matrix[0, 0], matrix[1, 0]) <= _LARGEST_RATIO:
        return 0
    return int(fits.sum())
