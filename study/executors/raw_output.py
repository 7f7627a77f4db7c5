"""Turns what a child process writes to its stderr into log lines, because the live view owns the terminal."""

import logging
import os
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

logger = logging.getLogger(__name__)

Output = Connection
"""The write end of a pipe that replaces a child process's stderr."""


def followed_output(context: SpawnContext, label: str) -> "Output[bytes, bytes]":
    """Return a stderr for a new process. Each line written to it is logged as a warning, even if the process crashes.

    Close the returned end in this process once the new process has started.

    Args:
        label: precedes each logged line.
    """
    reader, writer = context.Pipe(duplex=False)
    threading.Thread(target=_follow, args=(reader, label), name=f"output of {label}", daemon=True).start()
    return writer


def write_to(output: "Output[bytes, bytes]") -> None:
    """Replace this process's stderr, including for its libraries and child processes. Call it in the new process."""
    os.dup2(output.fileno(), 2)
    output.close()


def _follow(reader: "Connection[bytes, bytes]", label: str) -> None:
    """Log each line until the process and its children have closed their ends."""
    with reader, os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if line.strip():
                logger.warning("%s: %s", label, line.rstrip())
