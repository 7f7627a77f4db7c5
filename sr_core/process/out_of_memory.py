"""Detection of errors about a lack of memory or a GPU in use, in the forms that the libraries use."""

import errno
import sys

_TEXTS = (
    "out of memory",  # CUDA, its driver, HIP, Triton
    "can't allocate memory",  # torch's allocator for the CPU on Linux and macOS
    "not enough memory",  # torch's allocator on Windows
    "cannot allocate memory",  # the C library's text for ENOMEM, quoted by torch and HDF5
    "unable to allocate",  # NumPy's and HDF5's
    "bad_alloc",  # C++
    "insufficient memory",  # OpenCV
    "outofmemoryerror",  # OpenCV before 4, and compilers that quote the name of another error
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    "_alloc_failed",  # cuBLAS, cuSOLVER, cuFFT, cuDNN before 9
    "allocation_failed",  # cuDNN since 9
)
"""Parts of messages about a lack of memory, in lower case."""

_TAKEN = ("busy or unavailable", "cudaerrordevicesunavailable", "cudaerrordevicealreadyinuse")
"""Parts of messages about a GPU that another process uses, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """True if this exception, or one that caused it, says that memory of the host or of a GPU ran out.

    A lack of memory often causes other errors. For example, a CUDA graph whose capture ran out of memory reports an
    invalid capture, and a compiler wraps the original error.
    """
    visited: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in visited:
        if _says_so(link):
            return True
        visited.add(id(link))
        if link.__cause__ is not None:
            link = link.__cause__
        elif link.__suppress_context__:
            link = None
        else:
            link = link.__context__
    return False


def is_taken(error: BaseException) -> bool:
    """True if the error says that a GPU in exclusive mode (`nvidia-smi -c 3`) is used by another process.

    The error may come directly from a library or be caused by such an error.
    """
    visited: set[int] = set()
    link: BaseException | None = error
    while link is not None and not isinstance(link, RuntimeError):
        visited.add(id(link))
        link = link.__cause__ if id(link.__cause__) not in visited else None
    text = str(link).lower()
    return link is not None and any(part in text for part in _TAKEN)


def reason_of(error: BaseException) -> str:
    """One line that describes what ran out of memory."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "the machine is out of memory"


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # an error of torch can only exist if torch is loaded
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        if error.errno is not None:
            return error.errno == errno.ENOMEM
    elif not (isinstance(error, RuntimeError) or _is_opencv(error)):
        return False  # a file may be named "out of memory.png"
    text = str(error).lower()
    return any(part in text for part in _TEXTS)


def _is_opencv(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "cv2"
