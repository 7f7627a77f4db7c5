"""From an image file to its enlargement, in place only when it is whole."""

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

_FOLDER_IS_UNUSABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of writing that the next image would meet as well."""


def enlarge_file(
    model: A2N,
    source: Path,
    output: Path,
    *,
    self_ensemble: bool = False,
    precision: InferencePrecision = "fp32",
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Write `source`, enlarged, to `output`, a PNG file; by the rules of `own_images`.

    Args:
        model: on the device to use.
        progress: as of `super_resolve`.
    Raises:
        ImageError: this image cannot be read, enlarged in the memory there is or without overflow, or written under
            this name.
        SuiteError: nothing can be written there.
    """
    _check_name(source, output)
    image = read_own_image(source)
    height, width = image.rgb.shape[:2]
    device, needed = next(model.parameters()).device, peak_bytes(model, height, width, self_ensemble=self_ensemble)
    room = _room(device)
    if needed > room:  # the system would end this process, without a word and with all images that wait
        raise _too_large(source, width, height, f"about {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are there")
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
        _check_name(source, output)  # again: its folder may be new
        write_output(output, content)
    except OSError as exc:
        is_closed = exc.errno in (errno.EACCES, errno.EPERM) and output.exists()  # this file, and not its folder
        kind = SuiteError if exc.errno in _FOLDER_IS_UNUSABLE and not is_closed else ImageError
        raise kind(f"{output}: cannot be written ({exc.strerror}); make room or choose another --out") from exc


def _room(device: torch.device) -> int:
    """Bytes that an enlargement could take there now."""
    if device.type == "cpu":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # of images before, for the next
    return free + kept


def _check_name(source: Path, output: Path) -> None:
    """Raises ImageError, before the work, if the file system takes no name of that length."""
    try:
        output.lstat()
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise ImageError(
                f"{source}: {output.name} is too long a name for the file system of {output.parent}; give the image a "
                "shorter name"
            ) from exc


def _too_large(source: Path, width: int, height: int, lacking: str) -> ImageError:
    return ImageError(f"{source}: enlarging {width}x{height} pixels takes {lacking}; cut it into several images")
