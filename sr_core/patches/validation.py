"""The fixed crops that every trial is scored on while it trains."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr_core.errors import ImageError
from sr_core.images.color import BT601_STUDIO, rgb_to_y
from sr_core.images.files import Image
from sr_core.metrics.evaluate import bicubic_baseline, bicubic_psnr
from sr_core.process.names import printable

LEAST_LR_SIDE = 8
"""Smaller squares leave no full 11x11 SSIM window inside the border at x2."""

MAX_BICUBIC_PSNR = 50.0
"""dB. A square that bicubic enlargement restores better than this is all but uniform: a few samples that are one level
off would move its PSNR, and with it the objective, more than any hyperparameter does."""

PEAK = 255.0

_MAX_CANDIDATES = 1 << 18
"""Places of one image that are compared; a finer grid is replaced by one of about 64 steps an axis."""
_COARSE_STEPS = 64
_ROWS = 256
"""LR rows of an image whose error is computed at a time."""

CropPlace = tuple[int, int]
"""(y, x) of a square's top left LR pixel."""


@dataclass(frozen=True)
class Crop:
    """One square of a validation image."""

    name: str
    """Of the image."""
    lr: Image
    """(side, side, 3), contiguous."""
    hr: Image
    """(scale · side, scale · side, 3), contiguous."""


@dataclass(frozen=True)
class Squares:
    """Which squares of which images the crops are."""

    side: int
    """In LR pixels."""
    places: tuple[tuple[int, CropPlace], ...]
    """Number of the image and place, for each crop."""
    without_detail: tuple[str, ...] = ()
    """Names of the images that would have given crops, and have no place with detail."""

    def cut(self, names: Sequence[str], lr: Sequence[Image], hr: Sequence[Image], scale: int) -> list[Crop]:
        """The crops as copies, so that the images can be freed."""
        crops = []
        for image, place in self.places:
            lr_crop, hr_crop = _cut(lr[image], hr[image], place, self.side, scale)
            crops.append(Crop(names[image], lr_crop.copy(), hr_crop.copy()))
        return crops


def validation_crops(
    names: Sequence[str],
    lr: Sequence[Image],
    hr: Sequence[Image],
    *,
    scale: int,
    crops: int,
    lr_crop_size: int,
    max_bicubic_psnr: float | None = MAX_BICUBIC_PSNR,
) -> list[Crop]:
    """The crops of `choose_squares`, cut out of the images."""
    squares = choose_squares(
        names, lr, hr, scale=scale, crops=crops, lr_crop_size=lr_crop_size, max_bicubic_psnr=max_bicubic_psnr
    )
    return squares.cut(names, lr, hr, scale)


def choose_squares(
    names: Sequence[str],
    lr: Sequence[Image],
    hr: Sequence[Image],
    *,
    scale: int,
    crops: int,
    lr_crop_size: int,
    max_bicubic_psnr: float | None = MAX_BICUBIC_PSNR,
) -> Squares:
    """`crops` squares of equal size, spread evenly over the images; the same ones for the same images.

    The side is `lr_crop_size`, or that of the largest square which every image holds. With at least as many
    crops as images they go to the images in turn; with fewer, to images at even distances in the list.
    Within an image the places are those of `crop_places`, without the places that have no detail; an image that has
    fewer places than its share gives what it has, so that no crop comes twice. If an image has no place with detail,
    the crops are shared out among the others.

    Args:
        lr: (h, w, 3), uint8.
        hr: (scale · h, scale · w, 3), uint8, in the same order.
        max_bicubic_psnr: a place has detail if the PSNR of bicubic enlargement [dB, canonical] is below this there.
            None takes every place, on a grid as fine as version 0.1 had it: the crops of studies that recorded no
            bound.
    Raises:
        ImageError: there is no image, one that is too small to be scored, or none with detail.
    """
    side = min(lr_crop_size, crop_side(names, [image.shape[:2] for image in lr], scale))
    usable = list(range(len(names)))
    places: dict[int, list[CropPlace]] = {}
    searched: dict[int, int] = {}
    while True:
        owners = _owners(usable, crops)
        for image, share in Counter(owners).items():
            if searched.get(image, 0) < share:
                places[image] = _places(lr[image], hr[image], side, share, scale, max_bicubic_psnr)
                searched[image] = share
        uniform = {image for image in owners if not places[image]}
        if not uniform:
            break
        usable = [image for image in usable if image not in uniform]
        if not usable:
            raise _no_detail(names, max_bicubic_psnr)
    found = []
    given: Counter[int] = Counter()
    for image in owners:
        if given[image] < len(places[image]):
            found.append((image, places[image][given[image]]))
        given[image] += 1
    left_out = tuple(name for image, name in enumerate(names) if image in searched and not places[image])
    return Squares(side, tuple(found), left_out)


def check_detail(images: Iterable[tuple[str, Image, Image]], *, scale: int, side: int, max_bicubic_psnr: float) -> None:
    """Raises ImageError if no image has a place with detail; the first image that has one ends the search.

    Args:
        images: name, LR and HR of each.
        side: of a square, in LR pixels.
    """
    names = []
    for name, lr, hr in images:
        if _places(lr, hr, side, 1, scale, max_bicubic_psnr):
            return
        names.append(name)
    raise _no_detail(names, max_bicubic_psnr)


def _owners(images: Sequence[int], crops: int) -> list[int]:
    """The image of each crop."""
    if crops < len(images):
        return [images[crop * len(images) // crops] for crop in range(crops)]
    return [images[crop % len(images)] for crop in range(crops)]


def _no_detail(names: Sequence[str], max_bicubic_psnr: float | None) -> ImageError:
    some = ", ".join(printable(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return ImageError(
        f"no validation image has detail to score ({some}): bicubic enlargement restores every square of them to "
        f"{max_bicubic_psnr:g} dB or better, expected less in some place; replace them by photographs"
    )


def crop_side(names: Sequence[str], sizes: Sequence[tuple[int, ...]], scale: int) -> int:
    """Side of the largest LR square that every image holds.

    Args:
        sizes: (h, w) of each image's LR.
    Raises:
        ImageError: there is no image, or one that is too small to be scored.
    """
    if not names:
        raise ImageError("there is no validation image; expected at least one")
    (height, width), name = min(zip(sizes, names, strict=True), key=lambda sized: min(sized[0]))
    if min(height, width) < LEAST_LR_SIDE:
        raise ImageError(
            f"{name}: a validation image needs at least {LEAST_LR_SIDE * scale} pixels a side at x{scale}, this one "
            f"has {width * scale}x{height * scale}; replace it by a larger one"
        )
    return min(height, width)


def crop_places(height: int, width: int, side: int, count: int) -> list[CropPlace]:
    """(y, x) of at most `count` distinct squares of one image, well spread; fewer crops are a prefix of more.

    The first is centred. Each next one is that which overlaps the earlier ones least (in pixels, summed), among
    those the one farthest from the nearest earlier one, among those the topmost, then the leftmost. Its place is
    sought on a grid: along each axis every eighth of a side from 0, and flush with the far edge. If that grid has more
    than 262,144 places, it has about 64 steps along each axis instead.
    """
    spread = _Spread(height, width, side)
    places: list[CropPlace] = []
    while len(places) < count and (place := spread.best()) is not None:
        places.append(place)
        spread.take(place)
    return places


def _places(lr: Image, hr: Image, side: int, count: int, scale: int, max_psnr: float | None) -> list[CropPlace]:
    """As `crop_places`, of the places at which bicubic enlargement stays below `max_psnr`.

    A place is enlarged when its turn comes, which for a photograph is all there is to do. Once one is refused, the
    error of the whole image says which others are worth a try.
    """
    spread = _Spread(lr.shape[0], lr.shape[1], side, coarse=max_psnr is not None)
    places: list[CropPlace] = []
    narrowed = False
    while len(places) < count and (place := spread.best()) is not None:
        if max_psnr is None or bicubic_psnr(*_cut(lr, hr, place, side, scale), scale) < max_psnr:
            places.append(place)
            spread.take(place)
            continue
        if not narrowed:
            least_error = PEAK**2 / 10 ** (max_psnr / 10)
            spread.keep(_errors(lr, hr, spread.ys, spread.xs, side, scale) > least_error)
            narrowed = True
        spread.refuse(place)
    return places


def _cut(lr: Image, hr: Image, place: CropPlace, side: int, scale: int) -> tuple[Image, Image]:
    y, x = place
    return lr[y : y + side, x : x + side], hr[y * scale : (y + side) * scale, x * scale : (x + side) * scale]


class _Spread:
    """The places of one image, in the order of `crop_places`."""

    def __init__(self, height: int, width: int, side: int, *, coarse: bool = True) -> None:
        """
        Args:
            coarse: use a coarser grid if the usual one has too many places.
        """
        self._side = side
        self._centre: CropPlace | None = ((height - side) // 2, (width - side) // 2)
        self._middle = self._centre
        step = max(1, side // 8)
        free = height - side, width - side
        steps = [step, step]
        if coarse and (free[0] // step + 2) * (free[1] // step + 2) > _MAX_CANDIDATES:
            steps = [max(step, length // _COARSE_STEPS) for length in free]
        self.ys, self.xs = (
            np.array([*range(0, length, every), length], np.int64) for length, every in zip(free, steps, strict=True)
        )
        shape = len(self.ys), len(self.xs)
        self._overlap = np.zeros(shape, np.int64)
        """Pixels that a candidate shares with the squares taken, summed."""
        self._nearest = np.full(shape, np.iinfo(np.int64).max)
        """Squared distance to the nearest square taken."""
        self._open = np.ones(shape, bool)
        self._taken = False

    def best(self) -> CropPlace | None:
        """The next place; None if there is none left."""
        if self._centre is not None:
            return self._centre
        if not self._open.any():
            return None
        if self._taken:
            least = self._overlap[self._open].min()
            rank = np.where(self._open & (self._overlap == least), self._nearest, -1)
        else:  # the centre was refused: the place nearest to it
            rank = np.where(self._open, -self._distance(self._middle), np.iinfo(np.int64).min)
        row, column = divmod(int(rank.argmax()), rank.shape[1])
        return int(self.ys[row]), int(self.xs[column])

    def take(self, place: CropPlace) -> None:
        """Count this place as one of the squares."""
        self._centre = None
        self._taken = True
        down = np.maximum(self._side - np.abs(self.ys - place[0]), 0)
        across = np.maximum(self._side - np.abs(self.xs - place[1]), 0)
        self._overlap += down[:, None] * across
        np.minimum(self._nearest, self._distance(place), out=self._nearest)
        self._open &= self._nearest > 0

    def refuse(self, place: CropPlace) -> None:
        """Never name this place again."""
        self._centre = None
        self._open &= self._distance(place) > 0

    def keep(self, good: NDArray[np.bool_]) -> None:
        """Name no other places of the grid than these; the centre, which need not lie on it, was named before."""
        self._open &= good

    def _distance(self, place: CropPlace) -> NDArray[np.int64]:
        """Squared, of each candidate."""
        down: NDArray[np.int64] = (self.ys - place[0]) ** 2
        return down[:, None] + (self.xs - place[1]) ** 2


def _errors(
    lr: Image, hr: Image, ys: NDArray[np.int64], xs: NDArray[np.int64], side: int, scale: int
) -> NDArray[np.float64]:
    """(len(ys), len(xs)): mean squared error of the whole image's bicubic enlargement in each square, less its border.

    A square that is enlarged by itself differs in a few pixels at its edges.
    """
    height, width = lr.shape[:2]
    table = np.zeros((height + 1, width + 1))
    """Sums of the squared error over all that lies above and to the left of an LR pixel."""
    sr = bicubic_baseline(lr, scale)
    for top in range(0, height, _ROWS):
        rows = slice(top * scale, (top + _ROWS) * scale)
        error = np.square(rgb_to_y(sr[rows], BT601_STUDIO) - rgb_to_y(hr[rows], BT601_STUDIO))
        table[top + 1 : top + _ROWS + 1, 1:] = error.reshape(-1, scale, width, scale).sum(axis=(1, 3))
    table.cumsum(axis=0, out=table)
    table.cumsum(axis=1, out=table)
    above, bottom = ys + 1, ys + side - 1  # `scale` pixels of HR, which the protocol drops, are one of LR
    left, right = xs + 1, xs + side - 1
    sums = table[bottom][:, right] - table[above][:, right] + table[above][:, left] - table[bottom][:, left]
    errors: NDArray[np.float64] = sums / ((side - 2) * scale) ** 2
    return errors
