"""The same floats in every process and thread: two things that decide bits and that no setting of torch names.

**Vector math.** Torch computes square roots, exponentials and the like on a CPU through MKL. MKL's first call in a
process finds out which processor it runs on, stores the number that it found, and then replaces that number by the one
of its kernels for that processor. A second thread that makes its first call between the two stores takes the kernels
of another processor, whose last bits differ. One call on one thread before all others settles it.

**Subnormal numbers.** Below 1.2e-38 a float32 has fewer digits, and a CPU takes up to a hundred times as long for it.
A CPU can take such numbers for zero ("flush"). Each thread has this mode for itself: an OpenMP thread inherits it when
it is born, and keeps it.
"""

import threading
from functools import cache

import torch

from sr_core.errors import SuiteError

VECTOR_MATH = (
    "acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin", "sqrt", "tan", "tanh",
    "trunc",
)  # fmt: skip
"""What torch hands to MKL (ATen's cpu/vml.h), in float32 and float64. They share what the first call finds out; that
each is called does not rest on it."""

_FEW = 16
"""Elements that torch never splits among threads (it does from 2,048 on)."""
_EACH = 1 << 16
"""Elements a thread: so many that every thread gets some (torch gives none less than 32,768)."""

_settling = threading.Lock()


def settle_vector_math() -> None:
    """Have this process's vector math recognise the processor, on one thread; takes 0.2 ms. Changes no result."""
    with _settling:
        for dtype in (torch.float32, torch.float64):
            values = torch.full((_FEW,), 0.5, dtype=dtype)
            for name in VECTOR_MATH:
                getattr(torch, name)(values)


def flush_subnormals(flush: bool) -> bool:
    """Let this thread, and OpenMP threads that are born to it from now on, take subnormal numbers for zero, or not.

    Python's own floats and NumPy's arrays of this thread are concerned too. Returns whether the CPU can flush.
    """
    return torch.set_flush_denormal(flush)


@cache
def can_flush() -> bool:
    """Whether a thread can be made to flush, with all OpenMP threads that work for it; a thread of its own tries it."""
    found: list[bool] = []

    def probe() -> None:
        found.append(flush_subnormals(True) and flushing() == {True})

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return found == [True]


def flushing() -> set[bool]:
    """Whether the threads that share this thread's operations flush, from a product: one value where they agree."""
    elements = _EACH * torch.get_num_threads()
    product = torch.full((elements,), 1e-30) * 1e-10
    zero = product.view(torch.int32) == 0  # as numbers, a thread that flushes would call the others' products zero too
    return {bool(zero.any()), bool(zero.all())}


def check_that_threads_agree() -> None:
    """Raises SuiteError if some of the threads that share this thread's operations flush and some do not."""
    if len(flushing()) > 1:
        raise SuiteError(
            "some threads of this process flush subnormal numbers and some do not, so bits would depend on which "
            "thread computes what; expected OpenMP threads that inherit the setting: set OMP_NUM_THREADS=1"
        )
