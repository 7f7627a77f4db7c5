"""The fixed validation crops on which every trial is scored during training."""

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
"""Minimum side of a square, in LR pixels. A smaller one has no full 11x11 SSIM window inside the border at x2."""

MAX_BICUBIC_PSNR = 50.0
"""Maximum PSNR of bicubic enlargement for a crop, in dB. A square above it is nearly uniform. A few samples that are
one level off would change its PSNR, and so the objective, more than any hyperparameter does."""

PEAK = 255.0
"""Largest sample value."""

_MAX_CANDIDATES = 1 << 18
"""Maximum number of places of one image to compare. A finer grid is replaced by one of about 64 steps per axis."""
_COARSE_STEPS = 64
_ROWS_AT_A_TIME = 256
"""Number of LR rows of an image whose error is computed at a time, to bound memory."""

CropPlace = tuple[int, int]
"""(y, x) of a square's top left LR pixel."""


@dataclass(frozen=True)
class Crop:
    """One square of a validation image."""

    name: str
    """Name of the image."""
    lr: Image
    """(side, side, 3), contiguous."""
    hr: Image
    """(scale · side, scale · side, 3), contiguous."""


@dataclass(frozen=True)
class Squares:
    """The squares of the images that are used as crops."""

    side: int
    """Side of a square, in LR pixels."""
    places: tuple[tuple[int, CropPlace], ...]
    """The number of the image and the place in it, for each crop."""
    without_detail: tuple[str, ...] = ()
    """Names of the images that have no place with detail and therefore give no crops."""

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
    """The crops at the squares of `choose_squares`. Arguments and errors are those of `choose_squares`."""
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
    """Choose `crops` squares of equal size, spread evenly over the images. Equal images give equal squares.

    The side is `lr_crop_size`, or less if a smaller square is the largest that fits into every image. If there are at
    least as many crops as images, the images get crops in turn. Otherwise the crops go to images at even distances in
    the list. Within an image, the places are those of `crop_places` that have detail. An image with fewer places than
    its share gives fewer crops, so that no crop occurs twice. If an image has no place with detail, its crops go to
    the other images.

    Args:
        lr: (h, w, 3) each, uint8.
        hr: (scale · h, scale · w, 3) each, uint8, in the same order.
        max_bicubic_psnr: a place has detail if the PSNR of bicubic enlargement [dB, canonical] is below this.
            None accepts every place, on the fine grid of version 0.1. Studies that recorded no bound use it.
    Raises:
        ImageError: there is no image, an image is too small to be scored, or no image has detail.
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

    squares = []
    used: Counter[int] = Counter()
    for image in owners:
        if used[image] < len(places[image]):
            squares.append((image, places[image][used[image]]))
        used[image] += 1
    without_detail = tuple(name for image, name in enumerate(names) if image in searched and not places[image])
    return Squares(side, tuple(squares), without_detail)


def check_detail(images: Iterable[tuple[str, Image, Image]], *, scale: int, side: int, max_bicubic_psnr: float) -> None:
    """Check that at least one image has a place with detail. The search ends at the first such image.

    Args:
        images: name, LR and HR of each image.
        side: side of a square, in LR pixels.
    Raises:
        ImageError: no image has detail.
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
        f"no validation image has enough detail ({some}): bicubic enlargement reaches {max_bicubic_psnr:g} dB or more "
        "in every square, expected less in at least one; replace the images by photographs"
    )


def crop_side(names: Sequence[str], sizes: Sequence[tuple[int, ...]], scale: int) -> int:
    """The side of the largest LR square that fits into every image, in pixels.

    Args:
        sizes: (h, w) of the LR of each image.
    Raises:
        ImageError: there is no image, or an image is too small to be scored.
    """
    if not names:
        raise ImageError("there is no validation image; expected at least one")
    (height, width), name = min(zip(sizes, names, strict=True), key=lambda sized: min(sized[0]))
    if min(height, width) < LEAST_LR_SIDE:
        raise ImageError(
            f"{name}: expected a validation image of at least {LEAST_LR_SIDE * scale} pixels a side at x{scale}, got "
            f"{width * scale}x{height * scale}; replace it by a larger one"
        )
    return min(height, width)


def crop_places(height: int, width: int, side: int, count: int) -> list[CropPlace]:
    """(y, x) of at most `count` distinct, well spread squares of one image. A smaller count gives a prefix of the list.

    The first square is centred. Each next one has the least overlap with the earlier ones (in pixels, summed). Ties go
    to the one farthest from its nearest earlier square, then to the topmost, then to the leftmost. Candidates are on a
    grid: along each axis every eighth of a side from 0, and the place at the far edge. If that grid has more than
    262,144 places, it has about 64 steps along each axis instead.
    """
    spread = _Spread(height, width, side)
    places: list[CropPlace] = []
    while len(places) < count:
        place = spread.best()
        if place is None:
            break
        places.append(place)
        spread.take(place)
    return places


def _places(lr: Image, hr: Image, side: int, count: int, scale: int, max_psnr: float | None) -> list[CropPlace]:
    """The places of `crop_places` at which bicubic enlargement stays below `max_psnr`.

    Each place is enlarged and scored in turn, which is enough for most photographs. After the first refusal, the error
    of the whole image shows which other places to try.
    """
    spread = _Spread(lr.shape[0], lr.shape[1], side, coarse=max_psnr is not None)
    places: list[CropPlace] = []
    narrowed = False
    while len(places) < count:
        place = spread.best()
        if place is None:
            break
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
            coarse: use a coarser grid if the fine one has too many places.
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
        """Pixels that each candidate shares with the chosen squares, summed over the squares."""
        self._nearest = np.full(shape, np.iinfo(np.int64).max)
        """Squared distance of each candidate to the nearest chosen square."""
        self._open = np.ones(shape, bool)
        self._taken = False

    def best(self) -> CropPlace | None:
        """The next place, or None if no place is left."""
        if self._centre is not None:
            return self._centre
        if not self._open.any():
            return None
        if self._taken:
            least = self._overlap[self._open].min()
            rank = np.where(self._open & (self._overlap == least), self._nearest, -1)
        else:  # the centre was refused: use the place nearest to it
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
        """Exclude this place."""
        self._centre = None
        self._open &= self._distance(place) > 0

    def keep(self, good: NDArray[np.bool_]) -> None:
        """Exclude all places of the grid except these. The centre may be off the grid, but was already used."""
        self._open &= good

    def _distance(self, place: CropPlace) -> NDArray[np.int64]:
        """The squared distance of each candidate to a place."""
        down: NDArray[np.int64] = (self.ys - place[0]) ** 2
        return down[:, None] + (self.xs - place[1]) ** 2


def _errors(
    lr: Image, hr: Image, ys: NDArray[np.int64], xs: NDArray[np.int64], side: int, scale: int
) -> NDArray[np.float64]:
    """The mean squared error of the image's bicubic enlargement inside the border of each square, (len(ys), len(xs)).

    It may differ from the error of a square that is enlarged separately, in a few pixels at the edges.
    """
    height, width = lr.shape[:2]
    table = np.zeros((height + 1, width + 1))
    """Sums of the squared error over all pixels above and to the left of an LR pixel."""
    sr = bicubic_baseline(lr, scale)
    for top in range(0, height, _ROWS_AT_A_TIME):
        rows = slice(top * scale, (top + _ROWS_AT_A_TIME) * scale)
        error = np.square(rgb_to_y(sr[rows], BT601_STUDIO) - rgb_to_y(hr[rows], BT601_STUDIO))
        table[top + 1 : top + _ROWS_AT_A_TIME + 1, 1:] = error.reshape(-1, scale, width, scale).sum(axis=(1, 3))
    table.cumsum(axis=0, out=table)
    table.cumsum(axis=1, out=table)
    # The border that the protocol drops, `scale` HR pixels, is one LR pixel.
    above = ys + 1
    bottom = ys + side - 1
    left = xs + 1
    right = xs + side - 1
    sums = table[bottom][:, right] - table[above][:, right] + table[above][:, left] - table[bottom][:, left]
    errors: NDArray[np.float64] = sums / ((side - 2) * scale) ** 2
    return errors
