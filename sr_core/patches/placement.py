"""The choice of a patch source: pixels on the training device, in host memory or on the disk.

All three sources give the same patches, bit for bit. The choice only affects speed, and is made by size.
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
"""Maximum share of an accelerator's free memory for pixels. The rest is for the activations of the training."""
HOST_SHARE = 0.5
"""Maximum share of the host's available memory for pixels."""


class Patches(Protocol):
    """The stream of training patches of one seed."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the images that are too small for training."""

    def batch(self, first_k: int, n: int) -> tuple[Any, Any]:
        """Patches first_k … first_k + n − 1: LR (n, 3, p, p) and HR (n, 3, s p, s p), uint8; arrays or tensors."""


class PatchSource(Protocol):
    """The training images of one store at one scale."""

    @property
    def name(self) -> str:
        """The kind of the source: "device", "host" or "disk"."""

    def patches(self, config: DataConfig, seed: int) -> Patches:
        """The patches of a seed in [0, 2^63). Raises ImageError if no image is large enough for a patch."""


def open_patch_source(store: PatchStore, scale: int, device: str, name: PatchSourceName | None = None) -> PatchSource:
    """The patch source of that name for the store, by default the one that `choose_patch_source` names.

    Pixels are read when the first patches are requested.

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
    """The first patch source that has room for the HR and all LR of this scale. The choice is logged in one line.

    The source is the memory of the accelerator if the pixels, once per slot that shares it, fit into `DEVICE_SHARE` of
    its free memory. Else it is host memory if the pixels fit into `HOST_SHARE` of the available memory: once if they
    can be shared, once per slot otherwise. Else it is the disk. With several slots, the process that opens them makes
    the choice and passes it to each, because the second slot would find less free memory than the first.

    Args:
        slots: number of slots on this machine.
        slots_per_device: number of slots that share one device.
    """
    size = pixel_bytes(store, scale)
    device_free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0
    host_free = available_memory()
    on_host = size if size <= shareable_memory() else size * slots
    name = choose_by_size(size * slots_per_device, on_host, device_free=device_free, host_free=host_free)
    room = f"{device_free / 1e9:.1f} GB free on {device}, " if device_free else ""
    logger.info(
        "pixels: %.2f GB, source %s (%s%.1f GB available in host memory)", size / 1e9, name, room, host_free / 1e9
    )
    return name


def choose_by_size(on_device: int, on_host: int, *, device_free: int, host_free: int) -> PatchSourceName:
    """The first patch source that has room for the pixels.

    Args:
        on_device: bytes that the pixels take on the device.
        on_host: bytes that the pixels take in host memory.
        device_free: free bytes on the device; 0 if it is not an accelerator.
        host_free: available bytes of host memory.
    """
    if on_device <= device_free * DEVICE_SHARE:
        return "device"
    if on_host <= host_free * HOST_SHARE:
        return "host"
    return "disk"


def pixel_bytes(store: PatchStore, scale: int) -> int:
    """The size of the training images in bytes: HR, and LR of this scale for every kernel in the store."""
    layers = [HR, *(Layer(s, kernel) for split, s, kernel in store.lr if split == "train" and s == scale)]
    shapes = (layer.shape(record) for record in store.records("train") for layer in layers)
    return sum(height * width * channels for height, width, channels in shapes)
