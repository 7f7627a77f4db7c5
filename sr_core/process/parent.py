"""Which processes are alive; none that this suite starts outlives the one that started it."""

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


def is_dead(pid: str) -> bool:
    """Whether this text, from a file name, is the number of a process of this host that has ended.

    Anybody may choose a file name in a shared folder, so a text that is no process number is not taken for a dead one.
    """
    if os.name != "posix" or not (pid.isascii() and pid.isdecimal()):  # elsewhere os.kill(pid, 0) ends the process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # alive and another user's; no number that a process can have
        return False
    return False
