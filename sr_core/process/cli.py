"""Shared behaviour of all commands: usage errors, expected errors and interrupts become one line and an exit status."""

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from sr_core.errors import SuiteError
from sr_core.process.out_of_memory import is_out_of_memory, reason_of
from sr_core.process.streams import make_streams_safe

BAD_INPUT = 2
"""Exit status for bad usage or input."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READER_GONE = 141
"""Exit status if stdout was closed early, as by `| head`. A shell reports the same for SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a usage error as one line with exit status 2 and accepts no abbreviated flags.

    Args:
        prog: the command as the user types it, e.g. "python -m sr_core.evaluate".
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        make_streams_safe()  # must come before any output of a command
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {_one_line(message)}; see {self.prog} --help\n")


def run_command(body: Callable[[], int]) -> int:
    """Run a command's work and return its exit status.

    A SuiteError, a lack of memory and a full disk become one line on stderr and status 2. Ctrl-C becomes 130. If the
    reader of stdout has closed it, the command ends quietly. SIGTERM and SIGHUP become 143 and 129, as a shell reports
    them, after unfinished files are removed. Any other exception is a bug and keeps its traceback.
    """
    make_streams_safe()
    try:
        with _unwinding():
            status = body()
        sys.stdout.flush()  # a closed pipe shows here and not at the exit of the interpreter
    except SuiteError as exc:
        show_progress("")
        print(f"error: {_one_line(str(exc))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        show_progress("")
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except _EndedError as exc:
        show_progress("")
        print("terminated", file=sys.stderr)
        return 128 + exc.number
    except BrokenPipeError:
        _drop_stdout()
        return READER_GONE
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in _NO_ROOM:
            if not _can_flush_stdout():
                _drop_stdout()
            place = exc.filename or "standard output or a file"
            print(f"error: {place} cannot be written ({exc.strerror}); make room, then run again", file=sys.stderr)
            return BAD_INPUT
        if not is_out_of_memory(exc):
            raise
        show_progress("")
        print(f"error: out of memory: {_one_line(reason_of(exc))}; close other programs, or take a machine, device or "
              "batch job with more memory", file=sys.stderr)  # fmt: skip
        return BAD_INPUT
    return status


def _can_flush_stdout() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _drop_stdout() -> None:
    """Send unwritten output to the null device. Otherwise the exit would raise the same error again."""
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError):  # stdout is in memory, as in a notebook
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _EndedError(BaseException):
    """A signal that ends this process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block instead of ending the process at once.

    A second SIGTERM ends it at once. A signal that is ignored (SIGHUP under nohup) stays ignored, and a signal with a
    handler keeps its handler.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)  # SIGHUP comes twice
        raise _EndedError(number)

    ours: list[int] = []
    if threading.current_thread() is threading.main_thread():
        ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def has_status_line() -> bool:
    """True if stderr is a terminal on which a line can be replaced."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def show_progress(text: str) -> None:
    """Replace the status line of the terminal; "" clears it. Does nothing if stderr is not a terminal."""
    if has_status_line():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def say_note(text: str) -> None:
    """Print one note on stderr, about something that the user may not expect but that is not an error."""
    show_progress("")
    print(f"note: {_one_line(text)}", file=sys.stderr, flush=True)


def _one_line(message: str) -> str:
    return " ".join(message.splitlines())
