"""A progress line with the share done, the rate and the remaining time."""

import time
from collections import deque
from collections.abc import Callable
from typing import Self

from sr_core.process.cli import has_status_line, show_progress

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0
_WINDOW_SECONDS = 10.0  # the rate is averaged over this time: steady enough to read, quick to show a stall
_BAR_CHARACTERS = 20


class ProgressBar:
    """A status line on a terminal, redrawn ten times a second; without a terminal, a plain line every half minute.

    Args:
        title: the beginning of the line, which names the work.
        text: formats an amount, e.g. as "3.53 GB". With "/s" it becomes the rate.
    """

    def __init__(
        self,
        title: str,
        *,
        text: Callable[[float], str] = "{:.3g}".format,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._text = text
        self._clock = clock
        self._total = 1
        self._marks: deque[tuple[float, int]] = deque()
        self._shown = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        show_progress("")

    def at(self, done: int, total: int) -> None:
        """Report the amount done and the total.

        The rate ignores the amount done before the first call. If `done` decreases, the rate starts again from zero.
        """
        now = self._clock()
        self._total = total
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW_SECONDS:
            self._marks.popleft()
        on_terminal = has_status_line()
        pause = _REDRAW_SECONDS if on_terminal else _LINE_SECONDS
        if now - self._shown < pause:
            return

        self._shown = now
        if on_terminal:
            filled = _BAR_CHARACTERS * done // max(1, total)
            bar = "#" * filled + "-" * (_BAR_CHARACTERS - filled)
            show_progress(f"[{bar}] {self.line()}")
        else:
            print(self.line(), flush=True)

    def line(self) -> str:
        """The progress line, e.g. "DIV2K_train_HR.zip: 12 % of 3.53 GB, 11.2 MB/s, 4:36 left"."""
        began, first = self._marks[0]
        now, done = self._marks[-1]
        line = f"{self._title}: {100 * done // max(1, self._total)} % of {self._text(self._total)}"
        rate = (done - first) / (now - began) if now > began else 0.0
        if rate == 0:
            return line
        speed = f", {self._text(rate)}/s" if rate >= 0.5 else ""  # a lower rate would be shown as 0
        return f"{line}{speed}, {_duration((self._total - done) / rate)} left"


def bytes_text(count: float) -> str:
    """The number of bytes with three digits and a decimal unit: "999 B", "11.2 MB", "3.53 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count:.0f} GB"


def pixels_text(count: float) -> str:
    """The number of pixels in megapixels, with three digits: "41.4 Mpx"."""
    return f"{count / 1e6:.3g} Mpx" if count < 999.5e6 else f"{count / 1e6:.0f} Mpx"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
