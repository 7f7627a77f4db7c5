"""What every command shares: usage errors, expected errors and interrupts as one line and an exit status."""

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
"""Exit status of bad usage or input."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READER_GONE = 141
"""Exit status where stdout was closed early, as `| head` does: what a shell reports for SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage error is one line that names --help; exit status 2. Flags are never abbreviated.

    Args:
        prog: what the user types, e.g. "python -m sr_core.evaluate".
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        make_streams_safe()  # the first thing that a command does
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {_one_line(message)}; see {self.prog} --help\n")


def run_command(body: Callable[[], int]) -> int:
    """The exit status of a command's work.

    A SuiteError, a lack of memory and a full disk become one line on stderr and 2, Ctrl-C becomes 130, a reader that
    closed stdout ends it quietly. SIGTERM and SIGHUP end it as a shell reports them (143, 129), after unfinished files
    are removed. Anything else is a bug and keeps its traceback.
    """
    make_streams_safe()
    try:
        with _unwinding():
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
    """Send what is still to be written to the null device, or the exit would meet the same error."""
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError):  # in memory, as under a notebook
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _EndedError(BaseException):
    """A signal that ends this process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block instead of ending the process where it stands.

    A second SIGTERM does end it there. A signal that is ignored, as SIGHUP by nohup, stays ignored, and one that has a
    handler keeps it.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)  # that comes twice
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
