"""What a training process may do with memory: what it frees on a CPU, how much it takes of a GPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sr_core.errors import ConfigError
from sr_core.process.out_of_memory import is_taken

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt's names for them, in malloc.h
_LARGE = 1 << 30

GPU_SHARE = 0.9
"""Of a GPU's memory, what trainings may take in all; the rest is for CUDA itself in every process."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 1 GiB, for its next allocation; whether the C library can (glibc).

    Otherwise glibc gives large blocks back to the system, which hands out the next step's activations as new pages
    and zeroes each of them: a tenth of a training step on a CPU. Changes no result.
    """
    return _tell_malloc({_MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: _LARGE})


def share_one_heap() -> bool:
    """Let threads that allocate from now on take memory from the main thread's heap; whether the C library can.

    Otherwise glibc gives each thread a heap of its own, which keeps less of what is freed. Changes no result.
    """
    return _tell_malloc({_ARENA_MAX: 1})


def _tell_malloc(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, musl's for one
        return False
    return all(mallopt(option, value) for option, value in options.items())


def share_of_each(device: str, beside: int) -> float:
    """The part of a GPU's whole memory that each of `beside` equal trainings may take, of what is free now."""
    free, total = torch.cuda.mem_get_info(device)
    return GPU_SHARE * free / total / beside


@contextmanager
def needing_gpu(device: str) -> Iterator[None]:
    """Work that uses a GPU, perhaps as the first of this process.

    Raises:
        ConfigError: the GPU lets in one process at a time, and another one has it.
    """
    try:
        yield
    except Exception as exc:
        if not is_taken(exc):
            raise
        raise ConfigError(
            f"device {device} is taken: expected a free GPU, but this one lets in a single process (compute mode "
            "exclusive) and another has it; nvidia-smi says which; wait for it, or take another GPU"
        ) from exc


def keep_to_share(share: float) -> None:
    """Let this process allocate no more than this part of its GPU's memory.

    So a training that is started first cannot take what another was measured to need.
    """
    torch.cuda.set_per_process_memory_fraction(share)
