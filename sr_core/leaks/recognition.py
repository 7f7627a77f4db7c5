"""Recognition of a photograph that was resized, cropped, mirrored, rotated or compressed again.

SIFT keypoints (Lowe, IJCV 60, 2004) with RootSIFT descriptors (Arandjelović and Zisserman, CVPR 2012) are looked up in
one index of all images to be recognised. Keypoints of another photograph match nothing, or match points that fit no
single shift, rotation and scale. Between 380 training images and those of Set5 and Set14, at most 7 keypoints agreed by
chance, and each further one was ten times rarer. For a crop of 80% that was halved and saved as JPEG 50, 40 keypoints
agreed in Set5 and Set14, and 13 in the hardest of 47 photographs. An image with few keypoints (sky, fog, fur out of
focus) is compared as a whole, at 16x16 pixels.
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
"""Minimum number of keypoints that agree on one shift, rotation and scale."""
FEW_KEYPOINTS = 200
"""If one image of a pair has fewer keypoints, the pair is compared at thumbnail size too."""
SAME_THUMBNAIL = 0.95
"""Minimum correlation of two thumbnails that show the same. Different photographs reached 0.85."""

_CONTRAST = 0.01
"""SIFT's contrast threshold. The usual 0.04 leaves skin and soft backgrounds with too few keypoints."""
_NEIGHBOURS = 16
_CHECKS = 32
_TREES = 4
_MAX_DISTANCE_RATIO = 0.7
"""A neighbour counts if its distance is below this share of the distance of the last neighbour. The usual choice is the
second neighbour, but an image may occur up to 15 times, as Set5's head also occurs in Set14."""
_TOLERANCE_PIXELS = 3.0
"""Maximum error of a keypoint's position, at the size at which it was detected."""
_MAX_SIZE_RATIO = 8.0
"""Maximum ratio of the two images' sizes. Beyond it, in either direction, all keypoints would fit into one spot."""

_SIDE = 16
_MIN_THUMBNAIL_RMS = 2.0
"""Grey levels (RMS) below which a thumbnail shows only noise."""
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()
"""Permutation of the 4x4 cells of 8 directions of a SIFT descriptor that mirrors the image."""
_PLANES = np.linalg.qr(np.stack([np.ones(_SIDE**2), *np.indices((_SIDE, _SIDE)).reshape(2, -1)], axis=1))[0]


@dataclass(frozen=True, slots=True)
class Sketch:
    """The data that identify a whole image."""

    digest: str
    """`pixel_digest`."""
    size: tuple[int, int]
    """(height, width)"""
    thumbnail: Float32Array
    """(256,) grey at 16x16 minus the best-fitting plane, normalised to length 1; zeros for a plain image."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The data that identify a part of an image."""

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
    small -= _PLANES @ (_PLANES.T @ small)  # gradients of skies and vignettes are similar in all images
    length = np.linalg.norm(small)
    if length >= _MIN_THUMBNAIL_RMS * _SIDE:
        thumbnail = small / length
    else:
        thumbnail = np.zeros(_SIDE**2)
    return Sketch(pixel_digest(image), (image.shape[0], image.shape[1]), thumbnail.astype(np.float32))


def trace_of(image: Image, *, pixels: int, keypoints: Sequence[int]) -> Trace:
    """The trace of an RGB image.

    Args:
        pixels: a larger image is reduced to about this number of pixels before keypoints are detected.
        keypoints: number of keypoints of highest contrast to use at this size, at half of it, and so on. In fine
            texture, those of highest contrast are all too small to be visible at half the size.
    """
    grey = _grey(image)
    grey = _resized(grey, min(1.0, (pixels / grey.size) ** 0.5))
    points = [np.empty((0, 2), np.float32)]
    descriptors = [np.empty((0, 128), np.uint8)]
    for halvings, max_keypoints in enumerate(keypoints):
        sift = cv2.SIFT.create(max_keypoints, contrastThreshold=_CONTRAST)
        detected, described = sift.detectAndCompute(_resized(grey, 0.5**halvings), None)
        if detected:
            points.append(np.array([keypoint.pt for keypoint in detected], np.float32) * 2**halvings)
            descriptors.append(described.astype(np.uint8))
    return Trace(sketch_of(image), np.concatenate(points), np.concatenate(descriptors))


def _resized(grey: Image, factor: float) -> Image:
    height, width = grey.shape
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return grey if factor == 1 else np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


class Gallery:
    """An index of images to recognise. It takes about 1 kB of memory for each keypoint."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self._counts = np.array([len(trace.points) for trace in traces], np.intp)
        self._owner = np.repeat(np.arange(len(traces)), self._counts)
        self._points = np.concatenate([np.empty((0, 2), np.float32), *(trace.points for trace in traces)])
        self._thumbnails = np.array([trace.sketch.thumbnail for trace in traces], np.float32).reshape(-1, _SIDE**2)
        # The index only refers to the descriptors, so they must live as long as the index.
        self._descriptors = _roots(np.concatenate([np.empty((0, 128), np.uint8), *(t.descriptors for t in traces)]))
        self._index = cv2.flann.Index()
        if len(self._descriptors) > 1:
            cv2.setRNGSeed(1)  # the same trees, so the same result in each run
            self._index.build(self._descriptors, {"algorithm": 1, "trees": _TREES})  # 1 is a forest of k-d trees

    def recognise(self, trace: Trace) -> dict[int, str]:
        """The numbers of the images that show what this one shows, each with the evidence in words."""
        matches: dict[int, tuple[int, str]] = {}
        for way, words in ((trace, ""), (trace.mirrored(), ", mirrored")):
            for number, agreeing in self._agreeing(way):
                evidence = agreeing, f"{agreeing} keypoints agree{words}"
                matches[number] = max(matches.get(number, evidence), evidence)
            alike = self._thumbnails @ way.sketch.thumbnail
            few = (self._counts < FEW_KEYPOINTS) | (len(way.points) < FEW_KEYPOINTS)
            for number in np.flatnonzero(few & (alike >= SAME_THUMBNAIL)).tolist():
                matches.setdefault(number, (0, f"correlation {alike[number]:.3f} at {_SIDE}x{_SIDE} pixels{words}"))
        return {number: words for number, (_, words) in matches.items()}

    def _agreeing(self, trace: Trace) -> Iterator[tuple[int, int]]:
        """Pairs (number of an image, keypoints that agree) for images with enough of them."""
        if len(trace.points) < AGREE or len(self._points) < AGREE:
            return
        count = min(_NEIGHBOURS, len(self._points))
        nearest, squared = self._index.knnSearch(_roots(trace.descriptors), count, params={"checks": _CHECKS})
        query, rank = np.nonzero(squared[:, :-1] < _MAX_DISTANCE_RATIO**2 * squared[:, -1:])
        order = np.argsort(squared[query, rank], kind="stable")
        target = nearest[query, rank][order]
        query = query[order]
        owner = self._owner[target]
        for number in np.flatnonzero(np.bincount(owner) >= AGREE).tolist():
            one, other = _one_to_one(query[owner == number], target[owner == number])
            agreeing = _fitting(trace.points[one], self._points[other])
            if agreeing >= AGREE:
                yield number, agreeing


def _roots(descriptors: NDArray[np.uint8]) -> Float32Array:
    """Square roots of the descriptors scaled to sum 1. Their Euclidean distance is the Hellinger distance."""
    total = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    return np.asarray(np.sqrt(descriptors / np.maximum(total, 1)), np.float32)


def _one_to_one(query: Numbers, target: Numbers) -> tuple[Numbers, Numbers]:
    """The best pairs, chosen greedily so that each keypoint is matched at most once. Pairs come sorted, best first."""
    first = np.sort(np.unique(query, return_index=True)[1])
    query = query[first]
    target = target[first]
    first = np.unique(target, return_index=True)[1]
    return query[first], target[first]


def _fitting(points: Float32Array, others: Float32Array) -> int:
    """The number of points that one shift, rotation and scale maps to their partners."""
    if len(points) < AGREE:
        return 0
    matrix, fits = cv2.estimateAffinePartial2D(
        points, others, method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE_PIXELS, confidence=0.999
    )
    if matrix is None or not 1 / _MAX_SIZE_RATIO <= np.hypot(matrix[0, 0], matrix[1, 0]) <= _MAX_SIZE_RATIO:
        return 0
    return int(fits.sum())
