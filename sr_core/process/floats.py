"""Equal floats in every process and thread. Two things affect the last bits and have no complete setting in torch.

**Vector math.** On a CPU, torch computes square roots, exponentials and similar functions with MKL. The first MKL call
in a process detects the processor and stores its number. It then replaces this number by that of the kernels for the
processor. A second thread whose first call comes between these two steps uses the kernels of another processor, and
their last bits differ. One call on one thread before all others prevents this.

**Subnormal numbers.** Below 1.2e-38 a float32 has fewer digits, and a CPU is up to a hundred times slower with it.
A CPU can replace such numbers by zero ("flush"). Each thread has its own mode. An OpenMP thread inherits the mode when
it is created, and keeps it.
"""

import threading
from functools import cache

import torch

from sr_core.errors import SuiteError

VECTOR_MATH = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin", "sqrt", "tan", "tanh",
    "trunc",
)  # fmt: skip
"""The functions that torch computes with MKL (ATen's cpu/vml.h), in float32 and float64. They share one detection of
the processor. All of them are called nevertheless, so that nothing depends on this detail."""

_UNSPLIT_ELEMENTS = 16
"""Number of elements that torch never splits among threads (it splits from 2,048 on)."""
_ELEMENTS_PER_THREAD = 1 << 16
"""Number of elements per thread that gives every thread a share (torch's smallest share is 32,768)."""

_settling = threading.Lock()


def settle_vector_math() -> None:
    """Let MKL detect the processor on one thread, before other threads call it. Takes 0.2 ms and changes no result."""
    with _settling:
        for dtype in (torch.float32, torch.float64):
            values = torch.full((_UNSPLIT_ELEMENTS,), 0.5, dtype=dtype)
            for name in VECTOR_MATH:
                getattr(torch, name)(values)


def flush_subnormals(flush: bool) -> bool:
    """Set the flush mode of this thread and of the OpenMP threads that it creates later.

    The mode also affects Python floats and NumPy arrays in this thread.

    Returns:
        True if the CPU can flush.
    """
    return torch.set_flush_denormal(flush)


@cache
def can_flush() -> bool:
    """True if a thread and all its OpenMP threads can flush. A separate thread tries it."""
    outcomes: list[bool] = []

    def probe() -> None:
        outcomes.append(flush_subnormals(True) and flushing() == {True})

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return outcomes == [True]


def flushing() -> set[bool]:
    """The flush modes of the threads that share this thread's operations; a single value if all agree."""
    elements = _ELEMENTS_PER_THREAD * torch.get_num_threads()
    product = torch.full((elements,), 1e-30) * 1e-10
    zero = product.view(torch.int32) == 0  # as integers: a thread that flushes would see every subnormal float as zero
    return {bool(zero.any()), bool(zero.all())}


def check_that_threads_agree() -> None:
    """Check that all threads that share this thread's operations have the same flush mode.

    Raises:
        SuiteError: some threads flush and some do not.
    """
    if len(flushing()) > 1:
        raise SuiteError(
            "some threads of this process flush subnormal numbers and some do not, so results would depend on the "
            "distribution of work; expected OpenMP threads that inherit the setting: set OMP_NUM_THREADS=1"
        )
