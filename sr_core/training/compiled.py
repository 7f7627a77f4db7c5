"""Compiles networks with torch.compile: one static graph per shape, cached on disk across runs."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.compiler.config
from torch import Tensor, nn

from sr_core.training import torch_private

_MAX_SHAPES = 512
"""The most shapes of one network that are compiled."""


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward pass of the model, compiled together with its backward pass at the first call.

    All instances of the same network share the compiled code. The temperature is an input of the graph, and loss and
    learning rate are not part of it. Each shape of inputs or weights and each input range is compiled separately.
    """
    # By default the ninth shape would silently run uncompiled, with different bits.
    torch.compiler.config.recompile_limit = _MAX_SHAPES
    torch.compiler.config.accumulated_recompile_limit = 4 * _MAX_SHAPES
    # Torch recommends TF32 when it compiles, which happens later. `train.precision` decides about TF32.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    with warnings.catch_warnings():  # torch's compiler imports deprecated parts of torch
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.compile(model, dynamic=False)


def keep_compiled_in(folder: Path) -> None:
    """Store the compiled code of this process and its children in a folder.

    The environment variables TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR take precedence.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def can_compile(device: str) -> bool:
    """True if torch finds what it needs to compile: a C++ compiler, and on CUDA also Triton."""
    if not torch_private.has_cpp_compiler():
        return False
    return device == "cpu" or torch_private.has_triton()
