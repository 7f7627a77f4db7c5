"""The choice of training patches: the image, position and turn of patch k of seed s depend only on (s, k).

They do not depend on batch size, workers, device or resumption, because the numbers come from a counter and not from
the state of a generator. All arithmetic is on integers, so every machine draws the same patches.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sr_core.config import DataConfig
from sr_core.errors import ImageError
from sr_core.images.files import Image
from sr_core.images.turns import copy_turned
from sr_core.store.manifest import ManifestEntry

if TYPE_CHECKING:
    import torch

Indices = NDArray[np.int64]
Integers = TypeVar("Integers", Indices, "torch.Tensor")

BITS = 31
"""Bits of a draw. Its product with a count below 2^32 fits into int64."""

IMAGE, ROW, COLUMN, TURN, WINDOW_ROW, WINDOW_COLUMN = range(6)
"""The lanes of a patch. Each of its properties has its own draws."""
LANES = 8
"""Number of lanes reserved for each patch."""

# splitmix64 (Steele, Lea, Flood 2014), its three constants as int64
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def draw(seed: int, k: Integers, lane: Integers | int) -> Integers:
    """Uniform integers in [0, 2^31): the top 31 bits of output number 8 k + lane of splitmix64 started at `seed`.

    The code uses operators that NumPy and torch share (int64 products and sums wrap in both), so both give the same
    bits on any device. splitmix64: Steele, Lea and Flood, OOPSLA 2014.

    Args:
        seed: 0 ≤ seed < 2^63.
        k: numbers of patches, ≥ 0: int64 array of at least one dimension (a wrapping scalar makes NumPy warn), or
            int64 tensor.
        lane: 0 … 7, the property of the patch. Lanes of shape (lanes, 1) give draws of shape (lanes, n).
    """
    z = (k * LANES + (lane + 1)) * _GAMMA + seed
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return _shift(z ^ _shift(z, 31), 64 - BITS)


def _shift(z: Integers, by: int) -> Integers:
    """Logical shift right. The shift of int64 repeats the sign bit, and the mask removes the copies."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def bounded(r: Integers, n: Integers | int) -> Integers:
    """Draws in [0, 2^31) mapped to 0 … n − 1, n < 2^32. The probabilities of two values differ by at most 2^-31."""
    return (r * n) >> BITS


class Places(NamedTuple, Generic[Integers]):
    """The positions of patches, one entry per patch."""

    image: Integers
    """Index of the image, in the order given to the sampler."""
    y: Integers
    """Upper edge, in LR pixels."""
    x: Integers
    """Left edge, in LR pixels."""
    turn: Integers
    """0 … 7, as defined by `turned`."""


class PatchSampler:
    """Finds the position of patch k of one seed, given only the sizes of the images.

    `data.sampling` decides how a position is drawn:

    - "images": the image is uniform over the images, the position uniform inside it.
    - "pixels": the image is drawn with a probability proportional to its LR pixels, the position uniform inside it.
    - "subimages": the window is uniform over all windows of all images, the position uniform inside the window. Along
      each axis of the HR image (cropped to a multiple of the scale), windows start at 0, step, 2 step, … as long as
      they fit. If pixels remain after the last one, one more window ends at the edge. Each start is then rounded down
      to a multiple of the scale. (The usual extraction script does the same with a threshold of 0.)

    An image that is too small for a patch or a window is left out.
    """

    left_out: tuple[str, ...]
    """Names of the images that are too small for training."""

    def __init__(
        self, names: Sequence[str], lr_sizes: Sequence[tuple[int, int]], config: DataConfig, seed: int
    ) -> None:
        """Prepare the tables for `locate`.

        Args:
            names: names of the images, for messages.
            lr_sizes: (height, width) of the LR of each image, in pixels.
            seed: seed of this stream of patches, in [0, 2^63); see `child_seed`.
        Raises:
            ImageError: no image is large enough.
        """
        self._config = config
        self._seed = seed
        self._sizes: Indices = np.array(lr_sizes, dtype=np.int64).reshape(-1, 2)
        by_window = config.sampling == "subimages"
        hr_side = config.subimage_window if by_window else config.lr_patch_size * config.scale
        room = self._sizes * config.scale - hr_side
        fits = np.logical_and(*(room >= 0).T)
        self.left_out = tuple(name for name, fit in zip(names, fits, strict=True) if not fit)
        if not fits.any():
            raise ImageError(_nothing_fits(names, self._sizes * config.scale, hr_side, config))

        self._windows: Indices = -(-room // config.subimage_step) + 1  # along each axis; "subimages" only
        match config.sampling:
            case "images":
                weights = fits.astype(np.int64)
            case "pixels":
                weights = np.where(fits, np.multiply(*self._sizes.T), 0)
            case "subimages":
                weights = np.where(fits, np.multiply(*self._windows.T), 0)
        self._thresholds = _thresholds(weights)
        lanes = WINDOW_COLUMN + 1 if by_window else TURN + 1
        self._lanes: Any = np.arange(lanes, dtype=np.int64)[:, None]
        self._xp: Any = np

    def on(self, device: "str | torch.device") -> "PatchSampler":
        """The same sampler with its tables on a torch device. Its `locate` takes and returns tensors.

        It queues work on the device and never waits for it.
        """
        import torch

        moved = copy.copy(self)
        for table in ("_sizes", "_windows", "_thresholds", "_lanes"):
            setattr(moved, table, torch.from_numpy(getattr(self, table)).to(device))
        moved._xp = torch
        return moved

    def locate(self, k: Integers) -> Places[Integers]:
        """The position of each patch number in `k` (int64, one dimension, ≥ 0)."""
        config = self._config
        xp = self._xp
        # Each operation handles both axes and all lanes, because on a GPU each operation is one kernel.
        draws = draw(self._seed, k, self._lanes)
        image = xp.searchsorted(self._thresholds, draws[IMAGE], side="right")
        sides = self._sizes[image].T  # (2, n): heights, widths
        if config.sampling == "subimages":
            windows = bounded(draws[WINDOW_ROW:], self._windows[image].T)
            corner = self._window_start(windows, sides)
            free = config.subimage_window // config.scale - config.lr_patch_size + 1
        else:
            corner = 0
            free = sides - (config.lr_patch_size - 1)
        y, x = bounded(draws[ROW:TURN], free) + corner
        turn = bounded(draws[TURN], 8) if config.augmentation == "dihedral" else xp.zeros_like(k)
        return Places(image, y, x, turn)

    def _window_start(self, number: Any, lr_side: Any) -> Any:
        """The first LR pixel of the window of that number, along each axis."""
        config = self._config
        last = lr_side * config.scale - config.subimage_window
        return self._xp.minimum(number * config.subimage_step, last) // config.scale


def sampler_for(records: Sequence[ManifestEntry], config: DataConfig, seed: int) -> PatchSampler:
    """The sampler for the images in a store's manifest. Raises ImageError as `PatchSampler` does."""
    sizes = [(record.height // config.scale, record.width // config.scale) for record in records]
    return PatchSampler([record.name for record in records], sizes, config, seed)


def _thresholds(weights: Indices) -> Indices:
    """The upper ends of the images' shares of [0, 2^31), so that `searchsorted(…, side="right")` finds the image.

    Share i is [sum of the weights before i, sum up to i) · 2^31 / total, with its ends rounded up. Python's integers
    keep it exact, because the products exceed 2^63 for large sets. A weight of 0 gives an empty share.
    """
    total = int(weights.sum())
    cumulative = 0
    ends = []
    for weight in weights.tolist():
        cumulative += weight
        ends.append(-(-(cumulative << BITS) // total))
    return np.array(ends, dtype=np.int64)


def _nothing_fits(names: Sequence[str], hr_sizes: Indices, hr_side: int, config: DataConfig) -> str:
    if config.sampling == "subimages":
        need = "data.subimage_window"
        remedy = "lower data.subimage_window"
    else:
        need = "data.lr_patch_size × data.scale"
        remedy = "lower data.lr_patch_size"
    if not len(names):
        return "there is no training image; expected at least one"
    largest = int(hr_sizes.min(axis=1).argmax())
    height, width = hr_sizes[largest].tolist()
    return (
        f"no training image is large enough: expected a side of at least {hr_side} HR pixels ({need}), got "
        f"{width}x{height} for the largest, {names[largest]}; use larger images, or {remedy}"
    )


class Crops(Protocol):
    """A function that cuts squares out of images."""

    def __call__(self, image: int, y: int, x: int, side: int, /) -> Image:
        """The square (side, side, 3) with its top left pixel at (y, x). Copy it before the next call."""


class GatheredPatches:
    """Batches of training patches, which the CPU cuts one by one."""

    def __init__(self, sampler: PatchSampler, config: DataConfig, lr: Crops, hr: Crops) -> None:
        self._sampler = sampler
        self._config = config
        self._lr = lr
        self._hr = hr

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the images that are too small for training."""
        return self._sampler.left_out

    def batch(self, first_k: int, n: int) -> tuple[Image, Image]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8.

        Channels are innermost in memory, as in the images and in torch's channels_last.
        """
        p = self._config.lr_patch_size
        s = self._config.scale
        lr_batch = np.empty((n, p, p, 3), np.uint8)
        hr_batch = np.empty((n, p * s, p * s, 3), np.uint8)
        places = self._sampler.locate(np.arange(first_k, first_k + n, dtype=np.int64))
        rows = zip(*(column.tolist() for column in places), strict=True)
        for lr_patch, hr_patch, (image, y, x, turn) in zip(lr_batch, hr_batch, rows, strict=True):
            copy_turned(self._lr(image, y, x, p), turn, lr_patch)
            copy_turned(self._hr(image, y * s, x * s, p * s), turn, hr_patch)
        return lr_batch.transpose(0, 3, 1, 2), hr_batch.transpose(0, 3, 1, 2)


class HostPatches(GatheredPatches):
    """Batches of training patches from images in host memory."""

    def __init__(
        self, names: Sequence[str], lr: Sequence[Image], hr: Sequence[Image], config: DataConfig, seed: int
    ) -> None:
        """Keep references to the images without copying them.

        Args:
            lr: (h, w, 3) each, uint8.
            hr: (scale · h, scale · w, 3) each or larger at the bottom and right, uint8, in the same order.
            seed: seed of this stream of patches, in [0, 2^63); see `child_seed`.
        Raises:
            ImageError: no image is large enough for a patch.
        """
        sampler = PatchSampler(names, [(image.shape[0], image.shape[1]) for image in lr], config, seed)
        super().__init__(sampler, config, _views(lr), _views(hr))


def _views(images: Sequence[Image]) -> Crops:
    return lambda image, y, x, side: images[image][y : y + side, x : x + side]
