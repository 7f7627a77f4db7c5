"""Enlarges one image with the network, as a whole or in strips, depending on its size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_core.images.files import Image
from sr_core.model.network import A2N
from sr_core.model.strips import forward_in_strips, most_rows
from sr_core.process.floats import settle_vector_math
from sr_core.process.out_of_memory import is_out_of_memory, is_taken
from sr_core.process.precision import exact_multiplication

InferencePrecision = Literal["fp32", "bf16"]

STRIP_BYTES: Final = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Memory limit for the activations of one strip, by device type. On a CPU larger strips are slower, because they exceed
the caches and the allocator's pool. A GPU needs larger strips to be fully used."""
_MAX_STRIPS_AS_WHOLE = 4
"""An image is computed as a whole if its activations need at most this multiple of `STRIP_BYTES`."""
_MIN_STRIP_ROWS = 8
"""Strips with fewer rows would compute mostly their halos."""
_SYMMETRIES = 8
"""Number of flips and quarter turns of a square."""


def super_resolve(
    model: A2N,
    lr: Image,
    *,
    self_ensemble: bool = False,
    precision: InferencePrecision = "fp32",
    strip_rows: int | Literal["auto", "whole"] = "auto",
    progress: Callable[[float], None] = lambda _: None,
) -> NDArray[np.float32]:
    """The enlarged image, (s*H, s*W, 3) in 0..255, neither rounded nor clipped.

    Args:
        model: the network, on any device. Its training flag is restored afterwards.
        lr: (H, W, 3), RGB, uint8.
        self_ensemble: average the results for all eight flips and quarter turns of the image. This takes eight times as
            long. The network is not equivariant to them, so their errors partly cancel.
        precision: "bf16" runs the convolutions in bfloat16 (autocast). It is faster on hardware that supports it, with
            errors of about a tenth of a grey level. strip_rows: number of LR rows that are computed at a time. "auto"
        computes small images as a whole and large ones
            in strips. Strips need an eighth of the memory and differ only by rounding (`sr_core.model.strips`).
        progress: called with the completed fraction of the work, from 0 to 1.
    """
    settle_vector_math()
    device = next(model.parameters()).device
    passes = _SYMMETRIES if self_ensemble else 1
    done = 0

    def enlarge(x: Tensor) -> Tensor:
        nonlocal done
        rows = automatic_strip_rows(model, *x.shape[2:]) if strip_rows == "auto" else strip_rows
        if rows == "whole":
            sr: Tensor = model(x)
        else:
            sr = forward_in_strips(model, x, rows, progress=lambda part: progress((done + part) / passes))
        done += 1
        progress(done / passes)
        return sr

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with _evaluating(model), torch.inference_mode(), autocast, exact_multiplication():
        pixels = np.require(lr, requirements=("C", "W"))  # torch warns about read-only arrays
        x = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None] / 255
        sr = _mean_over_symmetries(enlarge, x) if self_ensemble else enlarge(x)
        return np.asarray(sr[0].mul_(255).permute(1, 2, 0).contiguous().cpu().numpy(), dtype=np.float32)


def on_device(model: A2N, device: str) -> tuple[A2N, str]:
    """The network on the requested device, and a name for the device.

    The CPU is used instead if the device does not exist, lacks memory, or is used exclusively by another process.

    Args:
        device: "cpu", "cuda" or "cuda:N".
    """
    if device != "cpu" and torch.cuda.is_available():
        try:
            return model.to(device), f"cuda: {torch.cuda.get_device_name(device)}"
        except Exception as exc:
            if not is_out_of_memory(exc) and not is_taken(exc):
                raise
    return model.to("cpu"), "cpu"


def automatic_strip_rows(model: A2N, height: int, width: int) -> int | Literal["whole"]:
    """The number of LR rows to compute at a time for an LR image of height x width pixels, or "whole"."""
    per_row = width * _tail_bytes_per_pixel(model)
    device = next(model.parameters()).device
    strip_bytes = STRIP_BYTES.get(device.type, STRIP_BYTES["cpu"])
    if height * per_row <= _MAX_STRIPS_AS_WHOLE * strip_bytes:
        return "whole"
    return min(max(_MIN_STRIP_ROWS, strip_bytes // per_row), most_rows(model, width, device))


def peak_bytes(model: A2N, height: int, width: int, *, self_ensemble: bool = False) -> int:
    """The approximate peak memory of `super_resolve` for an LR image of height x width pixels, in bytes.

    It counts one feature map of the trunk, the image, its enlargements and three strips for activations, workspaces and
    fragmentation. The weights of the network are not included.
    """
    pixels = height * width
    per_pixel = _tail_bytes_per_pixel(model)
    rows = automatic_strip_rows(model, height, width)
    enlargements = 3 if self_ensemble else 1
    images_and_features = pixels * (model.config.n_feats + 3 + 3 * model.scale**2 * enlargements) * 4
    pixels_at_once = 2 * pixels if rows == "whole" else 3 * rows * width
    return images_and_features + pixels_at_once * per_pixel


def _tail_bytes_per_pixel(model: A2N) -> int:
    """Bytes per LR pixel that the last upsampler stage needs, where memory use peaks.

    The stage holds its enlarged input and three results at the same time.
    """
    n_in = model.config.n_feats if len(model.tail) == 1 else model.config.upsampler_feats
    return model.scale**2 * (n_in + 3 * model.config.upsampler_feats) * 4


def _mean_over_symmetries(enlarge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of enlarge(x) over the eight flips and quarter turns, computed one at a time to save memory."""
    total: Tensor | None = None
    for quarter_turns in range(4):
        for flip in (False, True):
            turned = torch.rot90(x.flip(3) if flip else x, quarter_turns, (2, 3))
            sr = torch.rot90(enlarge(turned.contiguous()), -quarter_turns, (2, 3))
            if flip:
                sr = sr.flip(3)
            total = sr.clone() if total is None else total.add_(sr)
    assert total is not None
    return total / _SYMMETRIES


@contextmanager
def _evaluating(model: A2N) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
