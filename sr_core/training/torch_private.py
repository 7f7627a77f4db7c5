"""The parts of torch that torch does not document, and that no documented part replaces bit for bit.

No other module of this project touches such a part; a test reads every file for it. Each function says what it leans
on and what happens without it. docs/ARCHITECTURE.md, "Libraries we lean on", has the table.
"""

import torch
from torch import Tensor


def has_cpp_compiler() -> bool:
    """Returns whether torch finds the C++ compiler that `torch.compile` needs, on CUDA too.

    Leans on: `torch._inductor.cpp_builder.get_cpp_compiler` and `torch._inductor.exc.InvalidCxxCompiler`.
    Without it: the answer is no, so that `auto` takes an engine that compiles nothing. A study that began with compiled
    steps then says that its bits cannot be repeated.
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
    """Returns whether torch finds a Triton that works here; `torch.compile` needs it on CUDA.

    Leans on: `torch.utils._triton.has_triton`.
    Without it: the answer is no, so that `auto` captures the step on CUDA without compiling it.
    """
    try:
        from torch.utils import _triton
    except ImportError:
        return False
    return bool(_triton.has_triton())


def move_towards(values: list[Tensor], goals: list[Tensor], share: float | Tensor) -> None:
    """Move each tensor, in place, by this share of its distance to its goal, all of them in few kernels.

    `torch.optim.swa_utils.get_ema_multi_avg_fn` is the documented relative. It takes one minus the share and subtracts
    it from one again, which rounds differently, and it takes no share that is on the device.

    Leans on: `torch._foreach_lerp_`, `_foreach_sub`, `_foreach_mul_` and `_foreach_add_`.
    Without it: the first step of a training raises AttributeError. The trial fails, and the second such trial stops the
    study.
    """
    if isinstance(share, float):
        torch._foreach_lerp_(values, goals, share)
    else:
        steps = list(torch._foreach_sub(goals, values))
        torch._foreach_mul_(steps, share)
        torch._foreach_add_(values, steps)
