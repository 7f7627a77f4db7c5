"""Worker processes for work on images. Each has one image at a time, and all end together with their parent."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from sr_core.errors import SuiteError
from sr_core.process.machine import cores
from sr_core.process.parent import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")

_BYTES_PER_PROCESS = 8 << 20
"""Bytes of image files that take about as long to read as a process takes to start."""

_TASKS_PER_PROCESS = 4
"""Tasks per process that are submitted at a time: enough that no process waits, and few results are in memory."""


class Workers:
    """A pool of worker processes. With a count of 1, the work runs in this process."""

    def __init__(self, count: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._at_once = _TASKS_PER_PROCESS * count
        if count > 1:
            spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of running threads
            self._pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def results(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (number of the task, result) in order of completion.

        Raises:
            SuiteError: a worker process was ended from outside.
            Exception: any error that the work raises.
        """
        if self._pool is None:
            yield from ((number, work(task)) for number, task in enumerate(tasks))
            return
        waiting = iter(enumerate(tasks))
        pending: dict[Future[Result], int] = {}
        try:
            while True:
                for number, task in islice(waiting, self._at_once - len(pending)):
                    pending[self._pool.submit(work, task)] = number
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as exc:
            raise SuiteError(
                "a worker process was ended from outside, perhaps for lack of memory; run again with fewer --workers"
            ) from exc


def share_out(files: Iterable[Path]) -> int:
    """The number of processes for work on these image files: one per core, fewer for a few small files."""
    size = sum(path.stat().st_size for path in files if path.exists())
    return max(1, min(cores(), size // _BYTES_PER_PROCESS))


def _begin() -> None:
    """Prepare a new worker: it ignores Ctrl-C and SIGHUP, which its parent handles, and ends if its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ["OPENCV_FOR_THREADS_NUM"] = "1"  # read when cv2 is imported, with the first task
    end_with_parent()
