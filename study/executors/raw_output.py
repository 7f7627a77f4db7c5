"""What a process writes to its stderr without asking: lines of the coordinator's log, for the terminal is drawn on."""

import logging
import os
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

logger = logging.getLogger(__name__)

Output = Connection
"""The end of a pipe that a new process is given as its stderr."""


def followed_output(context: SpawnContext, whose: str) -> "Output[bytes, bytes]":
    """Where a new process may write to; its lines come up as warnings, also the last words of one that crashes.

    Close it here once the process has started.

    Args:
        whose: begins each line.
    """
    reader, writer = context.Pipe(duplex=False)
    threading.Thread(target=_follow, args=(reader, whose), name=f"output of {whose}", daemon=True).start()
    return writer


def write_to(output: "Output[bytes, bytes]") -> None:
    """In the new process: from now on its stderr is this, also for libraries and for the processes that it starts."""
    os.dup2(output.fileno(), 2)
    output.close()


def _follow(reader: "Connection[bytes, bytes]", whose: str) -> None:
    with reader, os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if line.strip():
                logger.warning("%s: %s", whose, line.rstrip())
