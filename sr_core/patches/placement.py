"""Where the pixels of a training live: on its device, in the memory of the host, or on the disk.

The same patches come out of all three, bit for bit, so the choice is one of speed and is made here by size alone.
"""

import logging
from typing import Any, Literal, Protocol

import torch

from sr_core.config import DataConfig
from sr_core.patches.device import DeviceCache
from sr_core.patches.disk import DiskReader
from sr_core.patches.host import HostCache
from sr_core.patches.shared_pixels import shareable_memory
from sr_core.process.machine import available_memory
from sr_core.store.hdf5 import PatchStore
from sr_core.store.layers import HR, Layer

logger = logging.getLogger(__name__)

PatchSourceName = Literal["device", "host", "disk"]

DEVICE_SHARE = 0.4
"""Of an accelerator's free memory, how much pixels may take: what is left holds a training's activations."""
HOST_SHARE = 0.5
"""Of the host's available memory, how much pixels may take."""


class Patches(Protocol):
    """The stream of training patches of one seed."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the images too small to train on."""

    def batch(self, first_k: int, n: int) -> tuple[Any, Any]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8; arrays or tensors."""


class PatchSource(Protocol):
    """The training images of one store at one scale."""

    @property
    def name(self) -> str: ...

    def patches(self, config: DataConfig, seed: int) -> Patches:
        """The patches of a seed, in [0, 2^63); raises ImageError where no image holds one."""


def open_patch_source(store: PatchStore, scale: int, device: str, name: PatchSourceName | None = None) -> PatchSource:
    """The home of that name for these pixels, by default the one of `choose_patch_source`.

    Pixels are read when the first patches are asked for.

    Raises:
        StoreError: the store cannot be read.
    """
    match name or choose_patch_source(store, scale, device):
        case "device":
            return DeviceCache(store, scale, device)
        case "host":
            return HostCache(store, scale)
        case "disk":
            return DiskReader(store, scale)


def choose_patch_source(
    store: PatchStore, scale: int, device: str, *, slots: int = 1, slots_per_device: int = 1
) -> PatchSourceName:
    """The first home with room for the pixels of HR and all LR of this scale; told in one line of the log.

    On an accelerator it is its own memory, if they fit into `DEVICE_SHARE` of what is free there as often as slots
    share it; else the host's, if they fit into `HOST_SHARE` of what is available there, once if it can be shared and
    once per slot otherwise; else the disk. Of several slots the second would find less memory free than the first, so
    whoever opens them chooses, and tells each.
    """
    size = pixel_bytes(store, scale)
    device_free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0
    host_free = available_memory()
    on_host = size if size <= shareable_memory() else size * slots
    name = choose_by_size(size * slots_per_device, on_host, device_free=device_free, host_free=host_free)
    room = f"{device_free / 1e9:.1f} GB free on {device}, " if device_free else ""
    logger.info(
        "pixels: %.2f GB, home %s (%s%.1f GB available in host memory)", size / 1e9, name, room, host_free / 1e9
    )
    return name


def choose_by_size(on_device: int, on_host: int, *, device_free: int, host_free: int) -> PatchSourceName:
    """The first home with room for the bytes that the pixels take there; what is no accelerator has 0 bytes free."""
    if on_device <= device_free * DEVICE_SHARE:
        return "device"
    return "host" if on_host <= host_free * HOST_SHARE else "disk"


def pixel_bytes(store: PatchStore, scale: int) -> int:
    """Bytes of the training images: HR, and LR of this scale by every kernel that the store has."""
    layers = [HR, *(Layer(s, kernel) for split, s, kernel in store.lr if split == "train" and s == scale)]
    shapes = (layer.shape(record) for record in store.records("train") for layer in layers)
    return sum(height * width * channels for height, width, channels in shapes)
