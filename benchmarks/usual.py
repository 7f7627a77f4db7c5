"""The usual way to train a super-resolution network, as a baseline: sub-images in HDF5 behind a DataLoader."""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sr_core.store.hdf5 import PatchStore

WINDOW = 480
STEP = 200
MAX_SUB_IMAGES = 200
"""This many sub-images take 0.7 GB. All of DIV2K give 32,096."""


class UsualWay(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of sub-images at x2. Each item opens the float32 HDF5 file again."""

    def __init__(self, path: Path, side: int) -> None:
        self._path, self._side = path, side
        with h5py.File(path) as file:
            self._count = len(file["hr"])

    def __len__(self) -> int:
        return 1_000_000  # an epoch never ends within a measurement

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        side = self._side
        with h5py.File(self._path) as file:
            lr, hr = (file[kind][str(number % self._count)][()] for kind in ("lr", "hr"))
        y, x = np.random.randint(0, lr.shape[0] - side + 1, 2)
        lr = lr[y : y + side, x : x + side]
        hr = hr[2 * y : 2 * (y + side), 2 * x : 2 * (x + side)]
        for axis in (0, 1):
            if np.random.random() < 0.5:
                lr, hr = np.flip(lr, axis), np.flip(hr, axis)
        if np.random.random() < 0.5:
            lr, hr = lr.swapaxes(0, 1), hr.swapaxes(0, 1)
        low, high = (torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))) / 255 for i in (lr, hr))
        return low, high


def write_usual_file(path: Path, store: PatchStore) -> int:
    """Writes sub-images of the training images as the usual extraction script cuts them. Returns their number."""
    count = 0
    with h5py.File(path, "w") as file:
        pixels = store.training_pixels(2, "matlab_bicubic")
        for lr, hr in zip(pixels.lr, pixels.hr, strict=True):
            for y in range(0, hr.shape[0] - WINDOW + 1, STEP):
                for x in range(0, hr.shape[1] - WINDOW + 1, STEP):
                    if count < MAX_SUB_IMAGES:
                        part = lr[y // 2 : (y + WINDOW) // 2, x // 2 : (x + WINDOW) // 2]
                        file[f"lr/{count}"] = part.astype(np.float32)
                        file[f"hr/{count}"] = hr[y : y + WINDOW, x : x + WINDOW].astype(np.float32)
                        count += 1
    return count
