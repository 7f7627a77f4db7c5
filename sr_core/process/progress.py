"""How far, how fast, how long still: one line about work that is counted."""

import time
from collections import deque
from collections.abc import Callable
from typing import Self

from sr_core.process.cli import has_status_line, show_progress

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0
_WINDOW_SECONDS = 10.0  # the rate is of this long: steady enough to read, quick to notice a stall
_BAR = 20


class ProgressBar:
    """The status line of a terminal, redrawn ten times a second; elsewhere a plain line every half minute.

    Args:
        title: what is being worked on; begins the line.
        text: an amount in words, e.g. "3.53 GB"; followed by "/s" it is the rate.
    """

    def __init__(
        self,
        title: str,
        *,
        text: Callable[[float], str] = "{:.3g}".format,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._text, self._clock = title, text, clock
        self._total = 1
        self._marks: deque[tuple[float, int]] = deque()
        self._shown = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        show_progress("")

    def at(self, done: int, total: int) -> None:
        """So much is done now. What was done before the first call counts for no rate; less than before starts anew."""
        now, self._total = self._clock(), total
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW_SECONDS:
            self._marks.popleft()
        on_terminal = has_status_line()
        if now - self._shown >= (_REDRAW_SECONDS if on_terminal else _LINE_SECONDS):
            self._shown = now
            if on_terminal:
                filled = _BAR * done // max(1, total)
                show_progress(f"[{'#' * filled}{'-' * (_BAR - filled)}] {self.line()}")
            else:
                print(self.line(), flush=True)

    def line(self) -> str:
        """E.g. "DIV2K_train_HR.zip: 12 % of 3.53 GB, 11.2 MB/s, 4:36 left"."""
        (began, first), (now, done) = self._marks[0], self._marks[-1]
        line = f"{self._title}: {100 * done // max(1, self._total)} % of {self._text(self._total)}"
        rate = (done - first) / (now - began) if now > began else 0.0
        if rate == 0:
            return line
        speed = f", {self._text(rate)}/s" if rate >= 0.5 else ""  # less would be told as nothing
        return f"{line}{speed}, {_duration((self._total - done) / rate)} left"


def bytes_text(count: float) -> str:
    """Three digits and a decimal unit: "999 B", "11.2 MB", "3.53 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count:.0f} GB"


def pixels_text(count: float) -> str:
    """Three digits in megapixels: "41.4 Mpx"."""
    return f"{count / 1e6:.3g} Mpx" if count < 999.5e6 else f"{count / 1e6:.0f} Mpx"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
