"""Pixels that live where the training runs: patches are gathered by the training device itself."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sr_core.config import DataConfig
from sr_core.data.layers import HR, Layer
from sr_core.data.patches import PatchSampler, Places, sampler_for
from sr_core.data.store import HeldStore, PatchStore


class DeviceHome:
    """The training pictures of a store, in the memory of a torch device: HR once, LR of each kernel asked for."""

    name = "device"

    def __init__(self, store: PatchStore, scale: int, device: str) -> None:
        self._store, self._scale, self._device = HeldStore(store), scale, device
        self._records = store.records("train")
        self._layers: dict[Layer, _Flat] = {}

    def patches(self, config: DataConfig, seed: int) -> "DevicePatches":
        """The stream of training patches of a seed; raises ImageError where no picture holds one."""
        sampler = sampler_for(self._records, config, seed).on(self._device)
        lr, hr = self._layer(Layer(self._scale, config.train_kernel)), self._layer(HR)
        return DevicePatches(sampler, config, lr, hr)

    def _layer(self, layer: Layer) -> "_Flat":
        if layer not in self._layers:
            shapes = [layer.shape(record) for record in self._records]
            starts = np.cumsum([0, *(height * width for height, width, _ in shapes)])
            pixels = torch.empty((int(starts[-1]), 3), dtype=torch.uint8, device=self._device)
            for start, image in zip(starts.tolist(), self._store.images("train", layer), strict=False):
                flat = image.reshape(-1, 3)
                pixels[start : start + len(flat)] = torch.from_numpy(flat)
            widths = torch.tensor([width for _, width, _ in shapes], dtype=torch.int64)
            self._layers[layer] = _Flat(
                pixels, torch.from_numpy(starts[:-1].astype(np.int64)).to(self._device), widths.to(self._device)
            )
        return self._layers[layer]


class _Flat(NamedTuple):
    """Pictures one behind the other."""

    pixels: Tensor
    """(pixels of all pictures, 3), uint8."""
    starts: Tensor
    """Of each picture, in pixels."""
    widths: Tensor
    """Of each picture, in pixels."""

    def crops(self, image: Tensor, y: Tensor, x: Tensor, turn: Tensor, side: int) -> Tensor:
        """The squares of these pictures at (y, x), turned as `turned` does it: (n, 3, side, side), channels last."""
        down, across = self.widths[image], torch.ones_like(image)  # from a pixel to the one below, and beside it
        corner = self.starts[image] + y * down + x
        for bit, step in ((1, across), (2, down)):  # a flip starts at the far end and goes backwards
            flip = (turn & bit) // bit
            corner = corner + flip * (side - 1) * step
            step *= 1 - 2 * flip
        swap = turn >= 4
        row, column = torch.where(swap, across, down), torch.where(swap, down, across)
        steps = torch.arange(side, device=image.device)
        index = corner[:, None, None] + row[:, None, None] * steps[:, None] + column[:, None, None] * steps
        return self.pixels[index].permute(0, 3, 1, 2)


class DevicePatches:
    """Batches of training patches that are made on the training device; nothing waits for them."""

    def __init__(self, sampler: PatchSampler, config: DataConfig, lr: _Flat, hr: _Flat) -> None:
        self._sampler, self._config, self._lr, self._hr = sampler, config, lr, hr

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the pictures too small to train on."""
        return self._sampler.left_out

    def batch(self, first_k: int, n: int) -> tuple[Tensor, Tensor]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8, channels last."""
        p, s = self._config.lr_patch_size, self._config.scale
        k = torch.arange(first_k, first_k + n, dtype=torch.int64, device=self._lr.pixels.device)
        places: Places[Tensor] = self._sampler.locate(k)
        image, y, x, turn = places
        return self._lr.crops(image, y, x, turn, p), self._hr.crops(image, y * s, x * s, turn, p * s)
