"""Training patch k of seed s: its image, position and turn depend on (s, k) alone.

Not on batch size, workers, device or resumption: numbers come from a counter, not from a generator's state.
Everything here is integer arithmetic, so every machine draws the same patches.
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
"""A draw lies in [0, 2^31): small enough that its product with a count below 2^32 fits int64."""

IMAGE, ROW, COLUMN, TURN, WINDOW_ROW, WINDOW_COLUMN = range(6)
"""The lanes of a patch: each of its properties has its own draws."""
LANES = 8

# splitmix64 (Steele, Lea, Flood 2014), its three constants as int64
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def draw(seed: int, k: Integers, lane: Integers | int) -> Integers:
    """Uniform integers in [0, 2^31): the top 31 bits of output number 8 k + lane of splitmix64 started at `seed`.

    Written with operators that NumPy and torch share (int64 products and sums wrap in both), so both give the
    same bits, on any device.

    Args:
        seed: 0 ≤ seed < 2^63.
        k: int64 array of at least one dimension (NumPy warns where a scalar wraps), or int64 tensor; k ≥ 0.
        lane: 0 … 7, which of the patch's numbers; lanes of shape (lanes, 1) give draws of shape (lanes, n).
    """
    z = (k * LANES + (lane + 1)) * _GAMMA + seed
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return _shift(z ^ _shift(z, 31), 64 - BITS)


def _shift(z: Integers, by: int) -> Integers:
    """Logical shift right: int64's own repeats the sign bit, the mask takes the copies away."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def bounded(r: Integers, n: Integers | int) -> Integers:
    """Draws in [0, 2^31) mapped to 0 … n − 1, n < 2^32; no value is likelier than another by more than 2^-31."""
    return (r * n) >> BITS


class Places(NamedTuple, Generic[Integers]):
    """Where patches lie; one entry per patch."""

    image: Integers
    """Index of the image, in the order given to the sampler."""
    y: Integers
    """Upper edge, in LR pixels."""
    x: Integers
    """Left edge, in LR pixels."""
    turn: Integers
    """0 … 7, as `turned` reads it."""


class PatchSampler:
    """Finds patch k of one seed, from the images' sizes alone.

    How a patch finds its place (`data.sampling`):

    - "images": the image is uniform over the images, the position uniform inside it.
    - "pixels": the image is drawn in proportion to its LR pixels, the position is uniform inside it.
    - "subimages": uniform over all windows of all images, the position uniform inside the window. Along each
      axis of the HR image (cropped to a multiple of the scale) windows start at 0, step, 2 step, … while they
      fit; if anything remains behind the last one, one more lies flush with the edge. Each start is then rounded
      down to a multiple of the scale. (The usual extraction script does the same, with its threshold at 0.)

    An image that holds no patch, or no window, is left out.
    """

    left_out: tuple[str, ...]
    """Names of the images too small to train on."""

    def __init__(
        self, names: Sequence[str], lr_sizes: Sequence[tuple[int, int]], config: DataConfig, seed: int
    ) -> None:
        """Prepares the tables that `locate` reads.

        Args:
            names: of the images, for messages.
            lr_sizes: (height, width) of each image's LR.
            seed: of this stream of patches, in [0, 2^63); see `child_seed`.
        Raises:
            ImageError: no image is large enough.
        """
        self._config, self._seed = config, seed
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
        """The same sampler with its tables on a torch device: there `locate` takes and gives tensors.

        It only queues work on that device and waits for none of it.
        """
        import torch

        moved = copy.copy(self)
        for table in ("_sizes", "_windows", "_thresholds", "_lanes"):
            setattr(moved, table, torch.from_numpy(getattr(self, table)).to(device))
        moved._xp = torch
        return moved

    def locate(self, k: Integers) -> Places[Integers]:
        """The place of each patch number in `k` (int64, one dimension, ≥ 0)."""
        config, xp = self._config, self._xp
        # Both axes and all lanes in the same operations: on a GPU each is a kernel, whatever its size.
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
        """First LR pixel of the window of that number along each axis."""
        config = self._config
        last = lr_side * config.scale - config.subimage_window
        return self._xp.minimum(number * config.subimage_step, last) // config.scale


def sampler_for(records: Sequence[ManifestEntry], config: DataConfig, seed: int) -> PatchSampler:
    """The sampler for images that a store's manifest describes; raises ImageError as `PatchSampler` does."""
    sizes = [(record.height // config.scale, record.width // config.scale) for record in records]
    return PatchSampler([record.name for record in records], sizes, config, seed)


def _thresholds(weights: Indices) -> Indices:
    """Upper ends of the images' shares of [0, 2^31), so that `searchsorted(…, side="right")` finds the image.

    Share i is [cumulated weights before i, up to i) · 2^31 / total, its ends rounded up: exact in whole numbers
    (Python's, as the products pass 2^63 for large sets). A weight of 0 has an empty share.
    """
    total, upto, ends = int(weights.sum()), 0, []
    for weight in weights.tolist():
        upto += weight
        ends.append(-(-(upto << BITS) // total))
    return np.array(ends, dtype=np.int64)


def _nothing_fits(names: Sequence[str], hr_sizes: Indices, hr_side: int, config: DataConfig) -> str:
    if config.sampling == "subimages":
        need, remedy = "data.subimage_window", "lower data.subimage_window"
    else:
        need, remedy = "data.lr_patch_size × data.scale", "lower data.lr_patch_size"
    if not len(names):
        return "there is no training image; expected at least one"
    largest = int(hr_sizes.min(axis=1).argmax())
    height, width = hr_sizes[largest].tolist()
    return (
        f"no training image holds a square of {hr_side} HR pixels ({need}); the largest, {names[largest]}, "
        f"has {width}x{height}: use larger images, or {remedy}"
    )


class Crops(Protocol):
    """Where a gatherer gets its pixels from."""

    def __call__(self, image: int, y: int, x: int, side: int, /) -> Image:
        """The square of an image whose upper left pixel is (y, x): (side, side, 3), to be copied before the next."""


class GatheredPatches:
    """Batches of training patches, put together one by one by the processor."""

    def __init__(self, sampler: PatchSampler, config: DataConfig, lr: Crops, hr: Crops) -> None:
        self._sampler, self._config, self._lr, self._hr = sampler, config, lr, hr

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the images too small to train on."""
        return self._sampler.left_out

    def batch(self, first_k: int, n: int) -> tuple[Image, Image]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8.

        Channels lie innermost in memory, as in the images and in torch's channels_last.
        """
        p, s = self._config.lr_patch_size, self._config.scale
        lr_batch = np.empty((n, p, p, 3), np.uint8)
        hr_batch = np.empty((n, p * s, p * s, 3), np.uint8)
        places = self._sampler.locate(np.arange(first_k, first_k + n, dtype=np.int64))
        rows = zip(*(column.tolist() for column in places), strict=True)
        for lr_patch, hr_patch, (image, y, x, turn) in zip(lr_batch, hr_batch, rows, strict=True):
            copy_turned(self._lr(image, y, x, p), turn, lr_patch)
            copy_turned(self._hr(image, y * s, x * s, p * s), turn, hr_patch)
        return lr_batch.transpose(0, 3, 1, 2), hr_batch.transpose(0, 3, 1, 2)


class HostPatches(GatheredPatches):
    """Batches of training patches from images that are resident in host memory."""

    def __init__(
        self, names: Sequence[str], lr: Sequence[Image], hr: Sequence[Image], config: DataConfig, seed: int
    ) -> None:
        """Keeps references to the images, copies nothing.

        Args:
            lr: (h, w, 3), uint8.
            hr: (scale · h, scale · w, 3), uint8, in the same order, or larger at the bottom and right.
            seed: of this stream of patches, in [0, 2^63); see `child_seed`.
        Raises:
            ImageError: no image holds a patch; the message says what is needed.
        """
        sampler = PatchSampler(names, [(image.shape[0], image.shape[1]) for image in lr], config, seed)
        super().__init__(sampler, config, _views(lr), _views(hr))


def _views(images: Sequence[Image]) -> Crops:
    return lambda image, y, x, side: images[image][y : y + side, x : x + side]
