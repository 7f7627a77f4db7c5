"""A thread that computes under settings of its own, and leaves those of the thread that waits for it as they are."""

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
"""What to do, and where its result goes."""

_INTERRUPTED_SECONDS = 5.0
"""What an interruption waits for the work to stop; a compiler that it started may take longer."""


class OwnThread:
    """Runs one call at a time, which the caller waits for.

    A new thread gets new OpenMP threads, so settings that threads inherit reach all of them, whatever ran before. Its
    GPU is the one of the thread that makes it, where a new thread's would be the first.
    """

    def __init__(self, settings: Callable[[], None]) -> None:
        """
        Args:
            settings: makes the thread that calls it compute under them; for a training `Runtime.apply`.
        Raises:
            SuiteError: the thread and those that work for it would not compute alike.
        """
        share_one_heap()  # before the thread's first allocation, which decides where its memory comes from
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="own settings", daemon=True)
        self.ended = False
        """Whether it takes no more work: it was closed or interrupted."""
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
        """The result of the work, or its error.

        If the wait is interrupted (Ctrl-C), the work is too, at its next line of Python, and the thread ends.
        """
        assert not self.ended
        outcome: Future[T] = Future()
        self._jobs.put((outcome, partial(work, *args, **kwargs)))
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():  # it was raised here, by a signal's handler
                self._interrupt()
            raise
        finally:
            del outcome  # or an error would hold itself, and through its frames the work's memory

    def __enter__(self) -> "OwnThread":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread. It may be closed again."""
        self.ended = True
        self._jobs.put(None)
        self._thread.join(_INTERRUPTED_SECONDS)

    def _work(self) -> None:
        with suppress(KeyboardInterrupt):
            while (job := self._jobs.get()) is not None:
                _carry_out(*job)
                del job  # or its result lives on until the next one comes

    def _interrupt(self) -> None:
        assert self._thread.ident is not None
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in(ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt))
        self.close()


def _carry_out(outcome: Future[Any], work: Callable[[], Any]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as exc:  # an interruption too, for the caller that waits
        if not outcome.done():
            outcome.set_exception(exc)


def inference_thread(*, flush: bool = True) -> OwnThread:
    """A thread that only runs a network.

    Args:
        flush: subnormal numbers, if the CPU can: a sample changes by 1e-38 at most.
    """

    def settings() -> None:
        settle_vector_math()
        flush_subnormals(flush and can_flush())

    return OwnThread(settings)
