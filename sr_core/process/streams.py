"""Standard streams that accept any output, even if they are closed, have a limited encoding or lost their terminal."""

import errno
import io
import os
import sys
from collections.abc import Collection
from typing import Any, TextIO


def make_streams_safe() -> None:
    """Prevent that a message ends the work because it cannot be shown.

    - A stream that is closed from the start (`2>&-`, as under some daemons and cron) becomes the null device. Its
      descriptor is reserved too. Otherwise the next data file would get it, and libraries would print into that file.
    - A character that the encoding lacks is written as an escape.
    - Output to a terminal that is gone is lost, and so is everything that stderr cannot accept. Only stdout reports
      that the reader of its pipe is gone: see `sr_core.process.cli.run_command`.

    A second call has no effect.
    """
    for number in (0, 1, 2):
        _take_number(number)
    if sys.stdin is None:
        sys.stdin = _null("r")
    sys.stdout = _safe(sys.stdout, 1)
    sys.stderr = _safe(sys.stderr, 2)


def _take_number(number: int) -> None:
    """Open the null device under this descriptor if it is unused. Child processes inherit it."""
    try:
        os.fstat(number)
    except OSError:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor == number:
            os.set_inheritable(number, True)
        else:
            os.dup2(descriptor, number)
            os.close(descriptor)


def _safe(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return _null("w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if _is_open_as(stream, number) and not isinstance(stream, _Forgiving):
        if number == 2:
            return _Forgiving(number, stream.encoding, (errno.EIO, errno.EPIPE, errno.ENOSPC))
        if stream.isatty():
            return _Forgiving(number, stream.encoding, (errno.EIO,))
    stream.reconfigure(errors="backslashreplace")
    return stream


def _is_open_as(stream: io.TextIOWrapper, number: int) -> bool:
    try:
        return stream.fileno() == number
    except OSError:  # a stream in memory
        return False


def _null(mode: str) -> TextIO:
    return io.TextIOWrapper(io.FileIO(os.devnull, mode), "utf-8", "backslashreplace", write_through=True)


class _Forgiving(io.TextIOWrapper):
    """A line-buffered stream on which some errors only lose the output."""

    def __init__(self, number: int, encoding: str, forgiven: Collection[int]) -> None:
        device = io.BufferedWriter(_Device(number, forgiven))
        super().__init__(device, encoding, "backslashreplace", line_buffering=True)


class _Device(io.FileIO):
    def __init__(self, number: int, forgiven: Collection[int]) -> None:
        super().__init__(number, "w", closefd=False)
        self._forgiven = forgiven

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            if exc.errno not in self._forgiven:
                raise
            return memoryview(data).nbytes
