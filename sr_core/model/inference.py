"""One image through the network, whole or in strips, whichever its size asks for."""

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
"""What one strip's activations may take. On a CPU larger ones are slower (they leave the caches and the allocator's
pool); a GPU needs enough rows at a time to be busy."""
_STRIPS_WORTHWHILE = 4
"""Strips are used where the whole image takes more than so many strips' bytes."""
_FEWEST_ROWS = 8  # fewer would mostly compute their halos
_SYMMETRIES = 8


def super_resolve(
    model: A2N,
    lr: Image,
    *,
    self_ensemble: bool = False,
    precision: InferencePrecision = "fp32",
    strip_rows: int | Literal["auto", "whole"] = "auto",
    progress: Callable[[float], None] = lambda _: None,
) -> NDArray[np.float32]:
    """The image `scale` times as large, (s*H, s*W, 3) in 0..255, neither rounded nor clipped.

    Args:
        model: on any device; its training flag is as before when this returns.
        lr: (H, W, 3) RGB.
        self_ensemble: average over the eight flips and quarter turns of the image, each turned back (eight times
            the work; the network is not equivariant to them, so their errors differ).
        precision: bf16 runs the convolutions in bfloat16 (autocast): faster where the hardware has it, and about a
            tenth of a level off.
        strip_rows: rows of LR that are computed at a time. "auto" takes small images whole and large ones in strips,
            for an eighth of the memory and the same result but for rounding (`sr_core.model.strips`).
        progress: told now and then which part, 0..1, of the work is done.
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
        given = np.require(lr, requirements=("C", "W"))  # torch warns of arrays that nobody may write
        x = torch.from_numpy(given).to(device).permute(2, 0, 1)[None] / 255
        sr = _mean_over_symmetries(enlarge, x) if self_ensemble else enlarge(x)
        return np.asarray(sr[0].mul_(255).permute(1, 2, 0).contiguous().cpu().numpy(), dtype=np.float32)


def on_device(model: A2N, device: str) -> tuple[A2N, str]:
    """The network on that device and what the device is called.

    It goes to the CPU if the device is not here, has no room, or belongs to another process alone.

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
    """How many rows of an image of LR size height x width to compute at a time."""
    per_row = width * _tail_bytes_per_pixel(model)
    device = next(model.parameters()).device
    strip_bytes = STRIP_BYTES.get(device.type, STRIP_BYTES["cpu"])
    if height * per_row <= _STRIPS_WORTHWHILE * strip_bytes:
        return "whole"
    return min(max(_FEWEST_ROWS, strip_bytes // per_row), most_rows(model, width, device))


def peak_bytes(model: A2N, height: int, width: int, *, self_ensemble: bool = False) -> int:
    """About what `super_resolve` takes at its peak, beyond the network itself, for an image of LR size height x width.

    That is one feature map of the trunk, the image, its enlargement, once more for the mean over symmetries, and
    three strips (activations, their workspaces, fragments).
    """
    pixels, per_pixel = height * width, _tail_bytes_per_pixel(model)
    rows = automatic_strip_rows(model, height, width)
    enlargements = 3 if self_ensemble else 1
    kept = pixels * (model.config.n_feats + 3 + 3 * model.scale**2 * enlargements) * 4
    return kept + (2 * pixels if rows == "whole" else 3 * rows * width) * per_pixel


def _tail_bytes_per_pixel(model: A2N) -> int:
    """Of LR: what the tail's last stage holds at once, where memory peaks; its input, enlarged, and three results."""
    n_in = model.config.n_feats if len(model.tail) == 1 else model.config.upsampler_feats
    return model.scale**2 * (n_in + 3 * model.config.upsampler_feats) * 4


def _mean_over_symmetries(enlarge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of enlarge(x) over the square's eight symmetries; one at a time, for the memory of one."""
    total: Tensor | None = None
    for quarter_turns in range(4):
        for flip in (False, True):
            seen = torch.rot90(x.flip(3) if flip else x, quarter_turns, (2, 3))
            back = torch.rot90(enlarge(seen.contiguous()), -quarter_turns, (2, 3))
            back = back.flip(3) if flip else back
            total = back.clone() if total is None else total.add_(back)
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
