"""Undocumented parts of torch that no documented part can replace bit for bit.

No other module of this project uses such a part, and a test checks this. Each docstring names the parts that the
function uses, and what happens if a version of torch lacks them. The table is in docs/development/architecture.md,
"Libraries".
"""

import torch
from torch import Tensor


def has_cpp_compiler() -> bool:
    """True if torch finds the C++ compiler that `torch.compile` needs on a CPU and on CUDA.

    Relies on: `torch._inductor.cpp_builder.get_cpp_compiler` and `torch._inductor.exc.InvalidCxxCompiler`. Without it:
    the result is False, so `auto` selects an engine that does not compile. A study that started with compiled steps
    then reports that its bits cannot be reproduced.
    """
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler
    except ImportError:
        return False

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError, OSError):
        return False
    return True


def has_triton() -> bool:
    """True if torch finds a working Triton, which `torch.compile` needs on CUDA.

    Relies on: `torch.utils._triton.has_triton`.
    Without it: the result is False, so `auto` captures the step on CUDA without compiling it.
    """
    try:
        from torch.utils import _triton
    except ImportError:
        return False
    return bool(_triton.has_triton())


def move_towards(values: list[Tensor], goals: list[Tensor], share: float | Tensor) -> None:
    """Move each tensor in place by this share of its distance to its goal, using few kernels for all tensors.

    The documented alternative is `torch.optim.swa_utils.get_ema_multi_avg_fn`. It expects one minus the share and
    subtracts it from one again, which rounds differently. It does not accept a share on the device.

    Relies on: `torch._foreach_lerp_`, `_foreach_sub`, `_foreach_mul_` and `_foreach_add_`.
    Without it: the first step of a training raises AttributeError. The trial fails, and a second such trial stops
    the study.
    """
    if isinstance(share, float):
        torch._foreach_lerp_(values, goals, share)
    else:
        steps = list(torch._foreach_sub(goals, values))
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(values, steps)
