"""torch.compile as this project uses it: one exact graph a shape, kept on disk from run to run."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.compiler.config
from torch import Tensor, nn

from sr_core.training import torch_private

_MOST_SHAPES = 512


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model's forward pass (and with it the backward pass), compiled when it is first called.

    Another instance of the same network takes the same compiled code: temperature is a tensor to it, and neither loss
    nor learning rate belong to the graph. Another shape, of input or of weights, is compiled anew, and so is another
    input range.
    """
    # By default the ninth shape would silently run uncompiled, with other bits.
    torch.compiler.config.recompile_limit = _MOST_SHAPES
    torch.compiler.config.accumulated_recompile_limit = 4 * _MOST_SHAPES
    # Torch advises TF32, which `train.precision` decides, when it compiles, which is later.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    with warnings.catch_warnings():  # torch's compiler imports parts of torch that warn of themselves
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.compile(model, dynamic=False)


def keep_compiled_in(folder: Path) -> None:
    """Artifacts of this process and those it starts go there, unless the user's own variables say where."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def can_compile(device: str) -> bool:
    """Whether torch finds what it compiles with: a C++ compiler, and Triton for CUDA."""
    if not torch_private.has_cpp_compiler():
        return False
    return device == "cpu" or torch_private.has_triton()
