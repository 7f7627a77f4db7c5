"""Runs a server for a command, and ends it when that command ends, however it does.

A program of its own, of the standard library alone: `python -I server_guard.py FOLDER COMMAND…`. The command that
starts it holds the other end of its standard input. The end of that pipe means: end the server and all that it started,
remove the folder. A kill -9 of the command closes the pipe as well.
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
"""How long a server may take to end by itself."""
POLL_SECONDS = 0.2
LOCK, LOG = "lock", "log"
"""Files in the folder: the lock is held for as long as the guard lives; the log is what the server says."""
_PR_SET_PDEATHSIG = 1


def main(folder: Path, command: list[str]) -> int:
    """Run the server until it ends, or standard input does; the server's exit status."""
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
    _kill_group(server.pid)  # what it started and left
    return 0 if server.returncode is None else abs(server.returncode)


def _pipe_ended() -> bool:
    """Whether the command closed its end or is gone; looks for a moment."""
    ready, _, _ = select.select([sys.stdin.buffer], [], [], POLL_SECONDS)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


def _nothing(number: int, frame: object) -> None:
    """Go on: the pipe says when to end."""


def _end_with_guard() -> Callable[[], None] | None:
    """What the server's process does first: on Linux it ends when the guard is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server, by SIGTERM to its whole group, and by SIGKILL where that takes too long."""
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(STOP_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        _kill_group(server.pid)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the latter on macOS, of processes that have ended
        return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
