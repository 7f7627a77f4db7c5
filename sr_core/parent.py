"""No process that this suite starts outlives the one that started it."""

import ctypes
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that the kernel sends when the thread that started this process has ended."""


def end_with_parent() -> None:
    """In a process that multiprocessing started: end at once when the parent ends, however it does.

    On Linux the kernel sees to it, also while this process computes or is stopped; elsewhere a thread does.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Also on Linux: the parent may have ended before the line above.
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
