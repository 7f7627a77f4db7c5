"""One picture through the network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_core.data.images import Image
from sr_core.model.network import A2N


def super_resolve(model: A2N, lr: Image, *, self_ensemble: bool = False) -> NDArray[np.float32]:
    """The picture `scale` times as large, (s*H, s*W, 3) in 0..255, neither rounded nor clipped.

    Args:
        model: on any device; its training flag is as before when this returns.
        lr: (H, W, 3) RGB.
        self_ensemble: average over the eight flips and quarter turns of the picture, each turned back (eight times
            the work; the network is not equivariant to them, so their errors differ).
    """
    device = next(model.parameters()).device
    with _evaluating(model), torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(lr)).to(device).permute(2, 0, 1)[None] / 255
        sr = _mean_over_symmetries(model, x) if self_ensemble else model(x)
        return np.asarray((sr[0] * 255).permute(1, 2, 0).contiguous().cpu().numpy(), dtype=np.float32)


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
    return total / 8


@contextmanager
def _evaluating(model: A2N) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
