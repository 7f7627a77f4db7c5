"""Training patches from pixels in host memory, which all processes of a machine share."""

import numpy as np
from numpy.typing import NDArray

from sr_core.config import DataConfig
from sr_core.images.files import Image
from sr_core.patches.sampler import HostPatches
from sr_core.patches.shared_pixels import SharedPixels
from sr_core.store.hdf5 import HeldStore, PatchStore
from sr_core.store.layers import HR, Layer


class HostCache:
    """The training images of a store in host memory: the HR, and the LR of each requested kernel."""

    name = "host"

    def __init__(self, store: PatchStore, scale: int) -> None:
        self._store = HeldStore(store)
        self._scale = scale
        self._records = store.records("train")
        self._fingerprint = store.fingerprint
        self._layers: dict[Layer, list[Image]] = {}
        self._memory: list[SharedPixels] = []

    @property
    def shared(self) -> bool:
        """True if other processes can use the same memory, False if it had to be private."""
        return all(memory.shared for memory in self._memory)

    def patches(self, config: DataConfig, seed: int) -> HostPatches:
        """The stream of training patches of a seed. Raises ImageError if no image is large enough for a patch."""
        lr = self._layer(Layer(self._scale, config.train_kernel))
        hr = self._layer(HR)
        return HostPatches([record.name for record in self._records], lr, hr, config, seed)

    def _layer(self, layer: Layer) -> list[Image]:
        if layer not in self._layers:
            shapes = [layer.shape(record) for record in self._records]
            ends = np.cumsum([height * width * 3 for height, width, _ in shapes]).tolist()

            def fill(memory: NDArray[np.uint8]) -> None:
                for end, image in zip(ends, self._store.images("train", layer), strict=True):
                    memory[end - image.size : end] = image.reshape(-1)

            memory = SharedPixels(f"{self._fingerprint} {layer.path}", ends[-1] if ends else 0, fill)
            self._memory.append(memory)
            self._layers[layer] = [
                memory.pixels[end - height * width * 3 : end].reshape(height, width, 3)
                for end, (height, width, _) in zip(ends, shapes, strict=True)
            ]
        return self._layers[layer]
