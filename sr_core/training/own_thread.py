"""A thread with arithmetic settings of its own, which leaves the settings of the calling thread unchanged."""

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import torch

from sr_core.process.floats import can_flush, check_that_threads_agree, flush_subnormals, settle_vector_math
from sr_core.training.memory import share_one_heap

P = ParamSpec("P")
T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]
"""A future for the result, and the work that computes it."""

_MAX_STOP_SECONDS = 5.0
"""How long an interruption waits for the work to stop. A compiler that the work started may take longer."""


class OwnThread:
    """Runs one call at a time, while the caller waits.

    A new thread has new OpenMP threads, so inherited settings apply to all of them, whatever ran before. Its current
    GPU is that of the thread that creates it, whereas torch would select the first GPU.
    """

    def __init__(self, settings: Callable[[], None]) -> None:
        """
        Args:
            settings: a function that applies the settings to the calling thread, for example `Runtime.apply`.
        Raises:
            SuiteError: the thread and its OpenMP threads would not compute in the same way.
        """
        share_one_heap()  # must precede the thread's first allocation, which selects its heap
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="own settings", daemon=True)
        self.ended = False
        """True after the thread was closed or interrupted. It then accepts no more work."""
        self._thread.start()
        try:
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                self(torch.cuda.set_device, torch.cuda.current_device())
            self(settings)
            self(check_that_threads_agree)
        except BaseException:
            self.close()
            raise

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the work in the thread and return its result or raise its error.

        If the wait is interrupted (Ctrl-C), the work is interrupted at its next line of Python, and the thread ends.
        """
        assert not self.ended
        outcome: Future[T] = Future()
        self._jobs.put((outcome, partial(work, *args, **kwargs)))
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():  # raised in this thread, by a signal handler
                self._interrupt()
            raise
        finally:
            del outcome  # otherwise an error would refer to itself, and its frames would keep the work's memory

    def __enter__(self) -> "OwnThread":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread. Further calls have no effect."""
        self.ended = True
        self._jobs.put(None)
        self._thread.join(_MAX_STOP_SECONDS)

    def _work(self) -> None:
        with suppress(KeyboardInterrupt):
            while (job := self._jobs.get()) is not None:
                _carry_out(*job)
                del job  # otherwise its result stays in memory until the next job

    def _interrupt(self) -> None:
        assert self._thread.ident is not None
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in(ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt))
        self.close()


def _carry_out(outcome: Future[Any], work: Callable[[], Any]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as exc:  # including an interruption, which the waiting caller receives
        if not outcome.done():
            outcome.set_exception(exc)


def inference_thread(*, flush: bool = True) -> OwnThread:
    """A thread for inference with a network.

    Args:
        flush: treat subnormal numbers as 0, if the CPU supports it. This changes a sample by at most 1e-38.
    """

    def settings() -> None:
        settle_vector_math()
        flush_subnormals(flush and can_flush())

    return OwnThread(settings)
