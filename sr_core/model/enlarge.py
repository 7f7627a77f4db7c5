"""Enlarges one image file and writes the result atomically."""

import errno
from collections.abc import Callable
from pathlib import Path

import torch

from sr_core.errors import ImageError, SuiteError
from sr_core.images.own_images import enlarged_png, read_own_image
from sr_core.metrics.evaluate import require_finite
from sr_core.model.inference import InferencePrecision, peak_bytes, super_resolve
from sr_core.model.network import A2N
from sr_core.process.machine import available_memory
from sr_core.process.out_of_memory import is_out_of_memory
from sr_core.process.output import make_output_folder, write_output

_FOLDER_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Write errors that would also occur for the next image."""


def enlarge_file(
    model: A2N,
    source: Path,
    output: Path,
    *,
    self_ensemble: bool = False,
    precision: InferencePrecision = "fp32",
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Enlarge the image `source` and write it to the PNG file `output`.

    `sr_core.images.own_images` defines how alpha, greyscale, orientation and colour profiles are handled.

    Args:
        model: the network, on the device to use.
        progress: called with the completed fraction of the work, from 0 to 1.
    Raises:
        ImageError: this image cannot be read, needs too much memory, makes the network overflow, or cannot be written
            under its name.
        SuiteError: the output folder cannot be written to.
    """
    _check_name(source, output)
    image = read_own_image(source)
    height, width = image.rgb.shape[:2]
    device = next(model.parameters()).device
    needed = peak_bytes(model, height, width, self_ensemble=self_ensemble)
    available = _available_bytes(device)
    if needed > available:  # otherwise the system might kill this process, and the waiting images with it
        raise _too_large(source, width, height, f"about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available")

    try:
        sr = super_resolve(model, image.rgb, self_ensemble=self_ensemble, precision=precision, progress=progress)
        remedy = "use other weights" if precision == "fp32" else "use --precision fp32 or other weights"
        require_finite(sr, source, remedy)
        content = enlarged_png(image, sr, model.scale)
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        raise _too_large(source, width, height, f"more than is free on {device}") from exc

    try:
        make_output_folder(output.parent)
        _check_name(source, output)  # a second time, because the folder may not have existed before
        write_output(output, content)
    except OSError as exc:
        file_is_protected = exc.errno in (errno.EACCES, errno.EPERM) and output.exists()  # the file, not its folder
        kind = SuiteError if exc.errno in _FOLDER_ERRORS and not file_is_protected else ImageError
        raise kind(f"{output}: cannot be written ({exc.strerror}); make room or choose another --out") from exc


def _available_bytes(device: torch.device) -> int:
    """Memory in bytes that an enlargement can use on this device now."""
    if device.type == "cpu":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached from former images
    return free + reusable


def _check_name(source: Path, output: Path) -> None:
    """Check, before the image is enlarged, that the file system allows an output name of this length.

    Raises:
        ImageError: the name is too long.
    """
    try:
        output.lstat()
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise ImageError(
                f"{source}: {output.name} is too long a name for the file system of {output.parent}; give the image a "
                "shorter name"
            ) from exc


def _too_large(source: Path, width: int, height: int, amount: str) -> ImageError:
    return ImageError(f"{source}: enlarging {width}x{height} pixels takes {amount}; cut it into several images")
