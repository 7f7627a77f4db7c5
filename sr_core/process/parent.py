"""Checks whether processes are alive, and the rule that a child process ends together with its parent."""

import ctypes
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that the kernel sends when the thread that started this process has ended."""


def end_with_parent() -> None:
    """Let this process, which multiprocessing started, end at once when its parent ends for any reason.

    On Linux the kernel ends it, even while it computes or is stopped. On other systems a thread ends it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The thread is needed on Linux too, because the parent may have ended before the line above.
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def is_dead(pid: str) -> bool:
    """True if the text, from a file name, is the id of a process of this host that has ended.

    Any user may create files in a shared folder, so a text that is not a process id gives False.
    """
    if os.name != "posix" or not (pid.isascii() and pid.isdecimal()):  # on Windows os.kill(pid, 0) ends the process
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # a live process of another user; a number that is too large for a process id
        return False
    return False
