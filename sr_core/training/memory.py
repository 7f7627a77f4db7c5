"""Settings for the memory of a training process: how it reuses CPU memory, and its share of a GPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sr_core.errors import ConfigError
from sr_core.process.out_of_memory import is_taken

# Options of mallopt, from malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8

_MAX_KEPT_BYTES = 1 << 30

GPU_SHARE = 0.9
"""The fraction of a GPU's memory that all trainings together may use. The rest is for CUDA itself in every process."""


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for later allocations. Results do not change.

    By default glibc returns large blocks to the system. The system then zeroes new pages for the activations of each
    step, which takes a tenth of a training step on a CPU.

    Returns:
        True if the C library supports it (glibc).
    """
    return _set_malloc_options({_MMAP_THRESHOLD: _MAX_KEPT_BYTES, _TRIM_THRESHOLD: _MAX_KEPT_BYTES})


def share_one_heap() -> bool:
    """Let threads that have not yet allocated memory use the heap of the main thread. Results do not change.

    By default glibc gives each thread a heap of its own, which keeps less of the freed memory.

    Returns:
        True if the C library supports it (glibc).
    """
    return _set_malloc_options({_ARENA_MAX: 1})


def _set_malloc_options(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return all(mallopt(option, value) for option, value in options.items())


def share_of_each(device: str, trainings: int) -> float:
    """The fraction of a GPU's total memory that each of several equal trainings may use, given its free memory now."""
    free, total = torch.cuda.mem_get_info(device)
    return GPU_SHARE * free / total / trainings


@contextmanager
def needing_gpu(device: str) -> Iterator[None]:
    """Run a block of work that uses a GPU, and report a GPU that another process uses exclusively.

    Raises:
        ConfigError: the GPU allows one process at a time, and another process uses it.
    """
    try:
        yield
    except Exception as exc:
        if not is_taken(exc):
            raise
        raise ConfigError(
            f"device {device} is taken: expected a free GPU, but this one allows a single process (exclusive compute "
            "mode), and nvidia-smi shows which process uses it; wait until it ends or use another GPU"
        ) from exc


def keep_to_share(share: float) -> None:
    """Limit this process to a fraction of its GPU's memory.

    The limit reserves the memory that trainings started later need.
    """
    torch.cuda.set_per_process_memory_fraction(share)
