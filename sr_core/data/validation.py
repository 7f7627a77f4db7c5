"""The fixed crops that every trial is scored on while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from sr_core.data.images import Image
from sr_core.errors import ImageError

LEAST_LR_SIDE = 8
"""Smaller squares leave no full 11x11 SSIM window inside the border at x2."""


@dataclass(frozen=True)
class Crop:
    """One square of a validation picture."""

    name: str
    """Of the picture."""
    lr: Image
    """(side, side, 3), contiguous."""
    hr: Image
    """(scale · side, scale · side, 3), contiguous."""


def validation_crops(
    names: Sequence[str],
    lr: Sequence[Image],
    hr: Sequence[Image],
    *,
    scale: int,
    crops: int,
    lr_crop_size: int,
) -> list[Crop]:
    """`crops` squares of equal size, spread evenly over the pictures; the same ones for the same pictures.

    The side is `lr_crop_size`, or that of the largest square which every picture holds. With at least as many
    crops as pictures they go to the pictures in turn; with fewer, to pictures at even distances in the list.
    Within a picture the places are those of `crop_places`; a picture that has fewer places than its share gives
    what it has, so that no crop comes twice.

    Args:
        lr: (h, w, 3), uint8.
        hr: (scale · h, scale · w, 3), uint8, in the same order.
    Raises:
        ImageError: there is no picture, or one that is too small to be scored.
    """
    side = min(lr_crop_size, crop_side(names, [image.shape[:2] for image in lr], scale))
    turns = range(crops)
    owners = [j * len(names) // crops if crops < len(names) else j % len(names) for j in turns]
    places = {i: crop_places(lr[i].shape[0], lr[i].shape[1], side, owners.count(i)) for i in set(owners)}
    found = []
    for j in turns:
        i, number = owners[j], owners[:j].count(owners[j])
        if number < len(places[i]):
            y, x = places[i][number]
            lr_crop = lr[i][y : y + side, x : x + side].copy()
            hr_crop = hr[i][y * scale : (y + side) * scale, x * scale : (x + side) * scale].copy()
            found.append(Crop(names[i], lr_crop, hr_crop))
    return found


def crop_side(names: Sequence[str], sizes: Sequence[tuple[int, ...]], scale: int) -> int:
    """Side of the largest LR square that every picture holds.

    Args:
        sizes: (h, w) of each picture's LR.
    Raises:
        ImageError: there is no picture, or one that is too small to be scored.
    """
    if not names:
        raise ImageError("there is no validation picture; expected at least one")
    (height, width), name = min(zip(sizes, names, strict=True), key=lambda sized: min(sized[0]))
    if min(height, width) < LEAST_LR_SIDE:
        raise ImageError(
            f"{name}: a validation picture needs at least {LEAST_LR_SIDE * scale} pixels a side at x{scale}, this one "
            f"has {width * scale}x{height * scale}; replace it by a larger one"
        )
    return min(height, width)


def crop_places(height: int, width: int, side: int, count: int) -> list[tuple[int, int]]:
    """(y, x) of at most `count` distinct squares of one picture, well spread; fewer crops are a prefix of more.

    The first is centred. Each next one is that which overlaps the earlier ones least (in pixels, summed), among
    those the one farthest from the nearest earlier one, among those the topmost, then the leftmost. Its place is
    sought on a grid: along each axis every eighth of a side from 0, and flush with the far edge.
    """
    step = max(1, side // 8)
    ys, xs = ([*range(0, free, step), free] for free in (height - side, width - side))
    candidates = np.array(list(product(ys, xs)), dtype=np.int64)
    overlap = np.zeros(len(candidates), dtype=np.int64)
    nearest = np.full(len(candidates), np.iinfo(np.int64).max)
    place = ((height - side) // 2, (width - side) // 2)
    places: list[tuple[int, int]] = []
    while len(places) < count and place not in places:
        places.append(place)
        away = np.abs(candidates - place)
        overlap += np.maximum(side - away, 0).prod(axis=1)
        nearest = np.minimum(nearest, (away**2).sum(axis=1))
        best = np.lexsort((-nearest, overlap, nearest == 0))[0]  # last key first; a place that is taken comes last
        place = (int(candidates[best, 0]), int(candidates[best, 1]))
    return places
