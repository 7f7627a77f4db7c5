"""Runs a server for a command, and ends it when that command ends in any way.

This is a program of its own, `python -I server_guard.py FOLDER COMMAND…`, and uses only the standard library. The
command that starts it holds the other end of its standard input. When that pipe closes, the guard ends the server and
all processes that it started, and removes the folder. A kill -9 of the command closes the pipe as well.
"""

import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

STOP_SECONDS = 10.0
"""How long a server may take to end after SIGTERM."""
POLL_SECONDS = 0.2
LOCK = "lock"
"""The file in the folder that the guard holds locked as long as it lives."""
LOG = "log"
"""The file in the folder with the server's output."""
_PR_SET_PDEATHSIG = 1


def main(folder: Path, command: list[str]) -> int:
    """Runs the server until it or standard input ends, and returns the server's exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing)  # a handler, not SIG_IGN, which the server would inherit
    lock = (folder / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (folder / LOG).open("ab") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_guard(),
        )
    while server.poll() is None and not _pipe_ended():
        continue
    if server.poll() is None:
        _end(server)
        shutil.rmtree(folder, ignore_errors=True)
    _kill_group(server.pid)  # processes that the server started and left
    return 0 if server.returncode is None else abs(server.returncode)


def _pipe_ended() -> bool:
    """Returns True if the command closed its end of the pipe or is gone. Waits up to POLL_SECONDS."""
    ready, _, _ = select.select([sys.stdin.buffer], [], [], POLL_SECONDS)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


def _nothing(number: int, frame: object) -> None:
    """Ignores the signal, because the pipe says when to end."""


def _end_with_guard() -> Callable[[], None] | None:
    """Returns a function for the server's process to run first. On Linux it ends the server with the guard."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Ends the server's process group by SIGTERM, and by SIGKILL after STOP_SECONDS."""
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(STOP_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        _kill_group(server.pid)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS raises the latter if the processes have ended
        return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
