"""Training patches from pixels in the memory of the training device, which cuts the patches itself."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sr_core.config import DataConfig
from sr_core.patches.sampler import PatchSampler, Places, sampler_for
from sr_core.store.hdf5 import HeldStore, PatchStore
from sr_core.store.layers import HR, Layer


class DeviceCache:
    """The training images of a store in the memory of a torch device: the HR, and the LR of each requested kernel."""

    name = "device"

    def __init__(self, store: PatchStore, scale: int, device: str) -> None:
        self._store = HeldStore(store)
        self._scale = scale
        self._device = device
        self._records = store.records("train")
        self._layers: dict[Layer, _Flat] = {}

    def patches(self, config: DataConfig, seed: int) -> "DevicePatches":
        """The stream of training patches of a seed. Raises ImageError if no image is large enough for a patch."""
        sampler = sampler_for(self._records, config, seed).on(self._device)
        lr = self._layer(Layer(self._scale, config.train_kernel))
        hr = self._layer(HR)
        return DevicePatches(sampler, DeviceBatches(sampler, config, lr, hr))

    def _layer(self, layer: Layer) -> "_Flat":
        if layer not in self._layers:
            shapes = [layer.shape(record) for record in self._records]
            starts = np.cumsum([0, *(height * width for height, width, _ in shapes)])
            pixels = torch.empty((int(starts[-1]), 3), dtype=torch.uint8, device=self._device)
            for start, image in zip(starts.tolist(), self._store.images("train", layer), strict=False):
                flat = image.reshape(-1, 3)
                pixels[start : start + len(flat)] = torch.from_numpy(flat)
            rows = [(start, width) for start, (_, width, _) in zip(starts[:-1].tolist(), shapes, strict=True)]
            places = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2)
            self._layers[layer] = _Flat(pixels, places.to(self._device))
        return self._layers[layer]


class _Flat(NamedTuple):
    """The pixels of all images, one image after the other."""

    pixels: Tensor
    """(pixels of all images, 3), uint8."""
    places: Tensor
    """(images, 2): the start of each image and its width, in pixels."""

    def crops(self, image: Tensor, corner: Tensor, turned: "_Turned", side: int) -> Tensor:
        """The squares of the given images, turned as by `copy_turned`.

        Args:
            image: (n,) number of the image of each square.
            corner: (2, n) y and x of each square's top left pixel.
            side: of a square, in pixels.
        Returns:
            (n, 3, side, side), channels last.
        """
        start, width = self.places[image].T
        y, x = corner + turned.flipped * (side - 1)  # a flip starts at the far end and goes backwards
        first = start + y * width + x
        across = turned.direction[1]
        down = turned.direction[0] * width
        row = torch.where(turned.swapped, across, down)
        column = torch.where(turned.swapped, down, across)
        steps = torch.arange(side, device=image.device)
        rows = first[:, None] + row[:, None] * steps
        index = rows[:, :, None] + (column[:, None] * steps)[:, None, :]
        return self.pixels[index].permute(0, 3, 1, 2)


class _Turned(NamedTuple):
    """The flips and turns of the patches of a batch, equal for LR and HR."""

    flipped: Tensor
    """(2, n), bool: flipped up and down, flipped left and right."""
    direction: Tensor
    """(2, n): −1 if flipped, else 1."""
    swapped: Tensor
    """(n,), bool: rows and columns are exchanged."""

    @classmethod
    def by(cls, turn: Tensor, bits: Tensor) -> "_Turned":
        """The flips and turns for the numbers in `turn` (n,); `bits` (2, 1) selects the two flips."""
        flipped = (turn & bits) != 0
        return cls(flipped, 1 - 2 * flipped, turn >= 4)


class DeviceBatches:
    """Batches of training patches, made on the training device without synchronisation."""

    def __init__(self, sampler: PatchSampler, config: DataConfig, lr: _Flat, hr: _Flat) -> None:
        self._sampler = sampler
        self._config = config
        self._lr = lr
        self._hr = hr
        self._bits = torch.tensor([[2], [1]], device=lr.pixels.device)  # bits of a turn: up and down, left and right

    def __call__(self, first_k: int, n: int) -> tuple[Tensor, Tensor]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8, channels last."""
        return self.at(torch.full((), first_k, dtype=torch.int64, device=self._bits.device), n)

    def at(self, first_k: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The same batch from a first number that is on the device (int64, no dimension).

        Nothing is copied between host and device, so a CUDA graph can capture this call.
        """
        p = self._config.lr_patch_size
        s = self._config.scale
        k = torch.arange(n, dtype=torch.int64, device=first_k.device) + first_k
        places: Places[Tensor] = self._sampler.locate(k)
        corner = torch.stack((places.y, places.x))
        turned = _Turned.by(places.turn, self._bits)
        lr = self._lr.crops(places.image, corner, turned, p)
        return lr, self._hr.crops(places.image, corner * s, turned, p * s)


class DevicePatches:
    """The stream of training patches of one seed, made on the training device."""

    def __init__(self, sampler: PatchSampler, batch: DeviceBatches) -> None:
        self._sampler = sampler
        self.batch = batch
        """Returns patches by number. A captured training step also draws its patches from it."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the images that are too small for training."""
        return self._sampler.left_out
