"""What every command shares: usage errors, expected errors and interrupts as one line and an exit status."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sr_core.errors import SuiteError

BAD_INPUT = 2
"""Exit status of bad usage or input."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
READER_GONE = 141
"""Exit status where stdout was closed early, as `| head` does: what a shell reports for SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage error is one line that names --help; exit status 2. Flags are never abbreviated.

    Args:
        prog: what the user types, e.g. "python -m sr_core.evaluate".
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {_one_line(message)}; see {self.prog} --help\n")


def run_command(body: Callable[[], int]) -> int:
    """The exit status of a command's work.

    A SuiteError becomes one line on stderr and 2, Ctrl-C becomes 130, a reader that closed stdout ends it quietly.
    Anything else is a bug and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: what cannot be shown must not end the work
    try:
        status = body()
        sys.stdout.flush()  # a closed pipe shows here rather than in the interpreter's exit
    except SuiteError as exc:
        show_progress("")
        print(f"error: {_one_line(str(exc))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        show_progress("")
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit flushes into the pipe again
        return READER_GONE
    return status


def has_status_line() -> bool:
    """Whether stderr is a terminal on which a line can be replaced."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def show_progress(text: str) -> None:
    """Replace the terminal's status line, "" to clear it; nothing where there is none."""
    if has_status_line():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def say_note(text: str) -> None:
    """One line on stderr that is no error: what a command did that its reader may not expect."""
    show_progress("")
    print(f"note: {_one_line(text)}", file=sys.stderr, flush=True)


def _one_line(message: str) -> str:
    return " ".join(message.splitlines())
