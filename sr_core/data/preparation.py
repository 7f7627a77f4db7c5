"""From picture files to a patch store."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sr_core.config import Kernel
from sr_core.data.degrade import crop_to_multiple, downsample
from sr_core.data.images import Image, read_image
from sr_core.data.layers import HR, Entry, Layer, Lr
from sr_core.data.manifest import Split, in_order, record_of
from sr_core.data.sources import Pictures
from sr_core.data.store import write_store
from sr_core.errors import ImageError


def build_store(
    path: Path,
    pictures: Pictures,
    *,
    scale: int,
    train_kernels: Sequence[Kernel],
    evaluation_kernel: Kernel,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a store: training pictures with LR by every train kernel, validation pictures by the evaluation kernel.

    One picture is in memory at a time. Whatever happens on the way, the final name holds the complete new store or
    what was there before.

    Args:
        progress: is told (pictures done, pictures in all) after each.
    Raises:
        ImageError: a picture cannot be read, or is smaller than one LR pixel.
        StoreError: the file cannot be written, for example because the disk is full.
    """
    kernels: dict[Split, list[Kernel]] = {"train": list(dict.fromkeys(train_kernels)), "valid": [evaluation_kernel]}
    todo = list(in_order(pictures))

    def entries() -> Iterator[Entry]:
        for done, (split, picture) in enumerate(todo, 1):
            hr = read_image(picture.path)
            record = record_of(split, picture, hr)
            if min(hr.shape[:2]) < scale:
                raise ImageError(
                    f"{picture.path}: a picture needs at least {scale}x{scale} pixels at x{scale}, this one has "
                    f"{record.width}x{record.height}; remove it from the folder"
                )
            layers: dict[Layer, Image] = {HR: hr}
            for kernel in kernels[split]:
                layers[Layer(scale, kernel)] = downsample(crop_to_multiple(hr, scale), scale, kernel)
            yield Entry(record, layers)
            if progress is not None:
                progress(done, len(todo))

    lr: list[Lr] = [(split, scale, kernel) for split in kernels for kernel in kernels[split]]
    write_store(path, entries(), lr)
