"""What the allocator of the C library does with memory that a training step frees."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, in malloc.h
_LARGE = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 1 GiB, for its next allocation; whether the C library can (glibc).

    Otherwise glibc gives large blocks back to the system, which hands out the next step's activations as new pages
    and zeroes each of them: a tenth of a training step on a CPU. Changes no result.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, musl's for one
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, _LARGE))
