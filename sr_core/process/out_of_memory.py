"""Recognises that memory ran out, or that a GPU is taken, in whichever form a library says so."""

import errno
import sys

_TEXTS = (
    "out of memory",  # CUDA, its driver, HIP, Triton
    "can't allocate memory",  # torch's allocator for the CPU on Linux and macOS
    "not enough memory",  # the same on Windows
    "cannot allocate memory",  # the C library's words for ENOMEM, as torch and HDF5 quote them
    "unable to allocate",  # NumPy's and HDF5's
    "bad_alloc",  # C++
    "insufficient memory",  # OpenCV
    "outofmemoryerror",  # OpenCV before 4, and compilers that quote another error by its name
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    "_alloc_failed",  # cuBLAS, cuSOLVER, cuFFT, cuDNN before 9
    "allocation_failed",  # cuDNN since 9
)
"""Parts of messages, in lower case."""

_TAKEN = ("busy or unavailable", "cudaerrordevicesunavailable", "cudaerrordevicealreadyinuse")
"""The same for a GPU that another process has."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a GPU ran out: in this exception, or in one that led to it.

    An error while memory is short has others in its wake. A CUDA graph whose capture ran out of memory says at its end
    that the capture is invalid, and a compiler wraps what it met.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if _says_so(link):
            return True
        seen.add(id(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False


def is_taken(error: BaseException) -> bool:
    """Whether a GPU that lets in one process at a time (`nvidia-smi -c 3`) has let in another one.

    Says so of the error of a library, and of one that it led to.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, RuntimeError):
        link = link.__cause__
    text = str(link).lower()
    return link is not None and any(part in text for part in _TAKEN)


def reason_of(error: BaseException) -> str:
    """One line that says what ran out of memory."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "the machine is out of memory"


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # who raises an error of torch has loaded it
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        if error.errno is not None:
            return error.errno == errno.ENOMEM
    elif not (isinstance(error, RuntimeError) or _is_opencv(error)):
        return False  # a file may be called "out of memory.png"
    text = str(error).lower()
    return any(part in text for part in _TEXTS)


def _is_opencv(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "cv2"
