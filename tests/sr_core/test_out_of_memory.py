"""All kinds of out-of-memory errors of libraries, and errors that only look like one."""

import errno
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sr_core.errors import StoreError
from sr_core.process import cli
from sr_core.process.out_of_memory import is_out_of_memory, is_taken, reason_of


class WrappedError(RuntimeError):
    """An error that wraps another, as a compiler raises it."""


def raised(error: BaseException, by: BaseException | None = None, during: BaseException | None = None) -> BaseException:
    """The error, raised from another error or while another error was handled."""
    try:
        if by is not None:
            raise error from by
        try:
            assert during is not None
            raise during
        except BaseException:
            raise error  # noqa: B904
    except BaseException as exc:
        return exc


CUDA = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"

FORMS = [
    MemoryError(),
    MemoryError("std::bad_alloc"),
    torch.OutOfMemoryError("no room"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(CUDA),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("unable to mmap 400 bytes from file <weights>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("Can't read data (unable to allocate chunk buffer: Cannot allocate memory)"),
    cv2.error(
        "OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 6291456 bytes in function "
        "'OutOfMemoryError'"
    ),
    WrappedError("backend='inductor' raised: RuntimeError: Triton Error [CUDA]: out of memory"),
    raised(WrappedError("compilation failed"), by=torch.OutOfMemoryError("no room")),
    raised(RuntimeError("operation failed due to a previous error during capture"), during=RuntimeError(CUDA)),
    raised(StoreError("the store cannot be read"), by=MemoryError()),
]


@pytest.mark.parametrize("error", FORMS, ids=lambda error: f"{type(error).__name__}: {error}"[:60])
def test_a_lack_of_memory_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_the_accelerator_s_own_error_is_recognised_if_torch_has_it() -> None:
    assert is_out_of_memory(torch.AcceleratorError(CUDA))
    assert not is_out_of_memory(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError("out of memory"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.png"),
        StoreError("out of memory.h5: not a store"),
        cv2.error("OpenCV(4.10.0) resize.cpp: error: (-215:Assertion failed) !ssize.empty() in function 'resize'"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_another_error_is_not_taken_for_one(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_an_error_that_says_that_it_has_nothing_to_do_with_the_one_before_is_taken_at_its_word() -> None:
    error = KeyError("x")
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise error from None
    except KeyError:
        pass
    assert not is_out_of_memory(error)


def test_a_chain_of_errors_that_bites_its_tail_ends() -> None:
    one = KeyError("x")
    other = ValueError("y")
    one.__cause__ = other
    other.__cause__ = one
    assert not is_out_of_memory(one)
    assert not is_taken(one)


def test_what_the_cpu_s_allocators_really_raise_is_recognised() -> None:
    with pytest.raises(RuntimeError) as by_torch:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as by_numpy:
        np.empty(1 << 60, np.uint8)
    assert is_out_of_memory(by_torch.value) and "allocate" in reason_of(by_torch.value)
    assert is_out_of_memory(by_numpy.value)


def test_the_reason_is_one_line() -> None:
    assert reason_of(RuntimeError(CUDA)) == "CUDA error: out of memory"
    assert reason_of(MemoryError()) == "the machine is out of memory"


def test_a_command_without_memory_ends_with_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        torch.empty(1 << 60, dtype=torch.uint8)
        return 0

    assert cli.run_command(work) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory: ") and error.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
def test_a_process_that_may_have_no_more_memory_recognises_it(tmp_path: Path) -> None:
    code = (
        "import mmap, resource\n"
        "from sr_core.process.out_of_memory import is_out_of_memory\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)\n"
        "found = []\n"
        "for work in (lambda: bytearray(1 << 28), lambda: mmap.mmap(-1, 1 << 28)):\n"
        "    try:\n"
        "        work()\n"
        "    except Exception as exc:\n"
        "        found.append((type(exc).__name__, is_out_of_memory(exc)))\n"
        "print(found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[('MemoryError', True), ('OSError', True)]"
