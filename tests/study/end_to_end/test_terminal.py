"""What a study shows on a terminal, and what it leaves there; plain lines elsewhere."""

import fcntl
import os
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;\d+)*m")


SLOWLY = """
import time
from sr_core.training.step import Step
step = Step.__call__
Step.__call__ = lambda self: (time.sleep(0.01), step(self))
"""
"""Makes a study so slow that every count is drawn, and that a signal finds it far from its end."""


@dataclass
class Screen:
    """A terminal that reads what a process writes, and knows as much of its language as rich uses."""

    width: int = 120
    height: int = 50
    written: str = ""
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    cursor_shown: bool = True
    main: tuple[list[str], int, int] | None = None
    """What is behind the alternate screen while that is shown."""
    screens: list[str] = field(default_factory=list)
    """The alternate screen before each redraw."""

    def __post_init__(self) -> None:
        self.master, self._slave = os.openpty()
        self.resize(self.width, self.height)
        self.name = os.ttyname(self._slave)

    def resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read_until(self, holds: Callable[[], object]) -> None:
        """Takes what is written until the condition holds, and then what is left."""
        done, deadline = False, time.monotonic() + 120
        while select.select([self.master], [], [], 0.02)[0] or not done:
            if select.select([self.master], [], [], 0)[0]:
                self._take(os.read(self.master, 65536).decode("utf-8", "replace"))
            elif done := bool(holds()):
                continue
            assert time.monotonic() < deadline, f"waited in vain; on the screen: {self.text}"

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)

    def _take(self, text: str) -> None:
        self.written += text
        for match in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b.|\r|\n|[^\x1b\r\n]+", text):
            piece = match[0]
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row, self.column = self.row + 1, self.column
                if self.row == len(self.lines):
                    self.lines.append("")
            elif match[2] == "A":
                self.row = max(0, self.row - int(match[1] or 1))
            elif match[2] == "K":
                remaining = "" if match[1] == "2" else self.lines[self.row][: self.column]
                self.lines[self.row] = remaining
            elif match[2] in ("h", "l") and match[1] == "?25":
                self.cursor_shown = match[2] == "h"
            elif match[2] == "h" and match[1] == "?1049":
                self.main, self.lines = (self.lines, self.row, self.column), [""]
                self.row = self.column = 0
            elif match[2] == "l" and match[1] == "?1049":
                if self.main is not None:
                    (self.lines, self.row, self.column), self.main = self.main, None
            elif match[2] == "H" and not match[1]:
                if self.main is not None:
                    self.screens.append(self.text)
                    self.lines = [line[: self.width] for line in self.lines[: self.height]]
                self.row = self.column = 0
            elif match[2] == "m":
                pass
            else:
                assert not piece.startswith("\x1b"), f"unknown to this terminal: {piece!r}"
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
                self.column += len(piece)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


@pytest.fixture
def screen() -> Iterator[Screen]:
    terminal = Screen()
    yield terminal
    terminal.close()


@pytest.mark.slow
def test_a_screen_is_drawn_while_a_study_runs_and_the_result_alone_stays(
    screen: Screen, tiny: Any, commands: Any, tmp_path: Path, finished: Any
) -> None:
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), terminal=screen.name, first=SLOWLY)
    screen.read_until(lambda: process.poll() is not None)
    assert process.wait().status == 0
    drawn = "\n".join(screen.screens)
    assert re.search(r"tiny: searching; [1-6] of 7 trials", drawn)
    assert re.search(r"\d+ s so far, about \d+ s left · \d+ patches/s", drawn)
    assert re.search(r"^0     0 +[▁-█·]{4} .*\d+/240  reference: authors$", drawn, re.MULTILINE), "a row for the slot"
    assert "best: trial" in drawn and "rank  trial  curve" in drawn
    assert "concluding: the winner on whole images" in drawn
    assert "\x1b[2K" not in screen.written.split("\x1b[?1049h")[1], "nothing is erased before a redraw"

    assert screen.cursor_shown and screen.main is None
    assert screen.text.count("ranking by PSNR") == 1
    assert "patches/s" not in screen.text and "searching" not in screen.text, "the live view stayed"
    for word in ("bicubic", "0 authors", "1 blog", "7 trials: 6 finished, 1 pruned"):
        assert word in screen.text
    best = finished.state.best()
    assert f"best of the search: trial {best.number}, {best.score:.3f} dB" in screen.text
    assert screen.text.rstrip().endswith(
        f"next: python -m study.reproduce best --root {tmp_path / 'root'} --study-name tiny"
    )
    assert COLOUR.search(screen.written), "on a terminal there is colour"


def test_no_color_is_respected(screen: Screen, tiny: Any, commands: Any, tmp_path: Path) -> None:
    process = commands.start(
        "study.run", *tiny.argv(tmp_path / "root", trials=1), terminal=screen.name, env={"NO_COLOR": "1"}
    )
    screen.read_until(lambda: process.poll() is not None)
    assert process.wait().status == 0
    assert not COLOUR.search(screen.written)
    assert "ranking by PSNR" in screen.text


@pytest.mark.slow
@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM", "two Ctrl-C", "a bug"])
def test_however_a_study_ends_the_terminal_is_as_it_was(
    end: str, screen: Screen, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    slow = "import time; from study.executors.inline import InlineExecutor as E\nE.suspend = lambda *_: time.sleep(60)"
    bug = "import study.search.policy as p\ndef fails(*_): raise RuntimeError('a bug of ours')\np._pruned = fails"
    first = SLOWLY + {"two Ctrl-C": slow, "a bug": bug}.get(end, "")
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), terminal=screen.name, first=first)
    if end != "a bug":
        screen.read_until(lambda: re.search(r"[1-5] of 7 trials", screen.written))
        assert not screen.cursor_shown and screen.main is not None
        if end == "SIGTERM":
            process.kill(signal.SIGTERM)
        else:
            os.write(screen.master, b"\x03")
        if end == "two Ctrl-C":
            screen.read_until(lambda: "Ctrl-C again to stop at once" in screen.written)
            os.write(screen.master, b"\x03")
    screen.read_until(lambda: process.poll() is not None)
    assert process.wait().status == {"Ctrl-C": 130, "SIGTERM": 75, "two Ctrl-C": 130, "a bug": 1}[end]
    assert screen.cursor_shown and screen.main is None
    assert "patches/s" not in screen.text, "the live view stayed"
    assert "images: 5 train, 3 validate" in screen.text, "what was there before is there again"
    assert ("Traceback" in screen.text) == (end == "a bug")
    if end in ("Ctrl-C", "SIGTERM"):
        assert "the same command continues from here" in screen.text
        assert "next: python -m study.run" in screen.text


@pytest.mark.slow
def test_a_terminal_that_is_resized_is_drawn_to_its_new_size(tiny: Any, commands: Any, tmp_path: Path) -> None:
    screen = Screen(width=120)
    hardly_moving = SLOWLY.replace("0.01", "0.2")  # on a busy machine too, it is far from its end when all is drawn
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), terminal=screen.name, first=hardly_moving)
    screen.read_until(lambda: screen.screens)
    for width, height in ((40, 6), (100, 1), (120, 40)):
        screen.resize(width, height)
        drawn = len(screen.screens)

        def fits() -> bool:  # drawings of before may still be in the pipe
            shown = screen.screens[-1].splitlines()[:height]  # noqa: B023  # used at once
            return len(screen.screens) >= drawn + 3 and max(map(len, shown)) <= width  # noqa: B023

        screen.read_until(fits)
        lines = screen.screens[-1].splitlines()[:height]
        assert lines[0].startswith("tiny: searching; ")
        assert any(line.startswith("slot  trial  curve") for line in lines) == (height > 1)
    process.kill(signal.SIGTERM)
    screen.read_until(lambda: process.poll() is not None)
    screen.close()
    assert process.wait().status == 75


@pytest.mark.slow
def test_the_result_on_a_narrow_terminal_ends_with_a_command_that_can_be_copied(
    tiny: Any, commands: Any, tmp_path: Path
) -> None:
    screen = Screen(width=44)
    process = commands.start("study.run", *tiny.argv(tmp_path / "root", trials=3), terminal=screen.name)
    screen.read_until(lambda: process.poll() is not None)
    screen.close()
    assert process.wait().status == 0
    assert screen.cursor_shown and "patches/s" not in screen.text
    command = f"next: python -m study.reproduce best --root {tmp_path / 'root'} --study-name tiny"
    assert command in screen.text, "a command that is broken in two cannot be copied"


@pytest.mark.slow
def test_what_is_said_while_the_screen_is_drawn_is_shown_and_stays_behind(
    screen: Screen, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    says = (
        "\nimport logging, sys, study.search.policy as p\npropose = p.propose\ndef saying(state, experiment, number):\n"
        "    if number == 3:\n        logging.getLogger('study.trial').warning('a log line')\n"
        "        print('a line on stderr', file=sys.stderr)\n    return propose(state, experiment, number)\n"
        "p.propose = saying"
    )
    process = commands.start(
        "study.run", *tiny.argv(tmp_path / "root", trials=4), terminal=screen.name, first=SLOWLY + says
    )
    screen.read_until(lambda: process.poll() is not None)
    assert process.wait().status == 0
    for line in ("WARNING study.trial: a log line", "a line on stderr"):
        assert line in screen.screens[-1], "shown"
        assert re.search(rf"^\d\d:\d\d:\d\d  {line}$", screen.text, re.MULTILINE), "printed for good"


def test_a_view_that_cannot_be_drawn_ends_no_study_and_says_why(
    screen: Screen, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    fails = (
        "import study.screen.live_table as t\n"
        "def screen(*_): raise RuntimeError('a bug of the view')\n"
        "t.screen = screen"
    )
    process = commands.start("study.run", *tiny.argv(tmp_path / "root", trials=1), terminal=screen.name, first=fails)
    screen.read_until(lambda: process.poll() is not None)
    assert process.wait().status == 0
    assert screen.cursor_shown and screen.main is None
    assert "RuntimeError: a bug of the view" in screen.text and "next: python -m study.run" in screen.text


@pytest.mark.slow
@pytest.mark.parametrize("why", ["TERM=dumb", "colours forced upon a pipe"])
def test_what_cannot_be_drawn_on_gets_plain_lines(
    why: str, screen: Screen, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    argv = tiny.argv(tmp_path / "root", trials=3)
    if why == "TERM=dumb":
        process = commands.start("study.run", *argv, terminal=screen.name, env={"TERM": "dumb"})
        screen.read_until(lambda: process.poll() is not None)
        written = screen.written.replace("\r\n", "\n")
        assert "\x1b" not in written
    else:
        process = commands.start("study.run", *argv, env={"FORCE_COLOR": "1"})
        written = process.wait().out
        assert "\x1b[?" not in written and "\x1b[H" not in written
    assert process.wait().status == 0
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d    1/3  trial   0  finished ", written, re.MULTILINE)


@pytest.mark.slow
def test_a_terminal_that_lacks_a_sign_ends_no_study(tiny: Any, commands: Any, tmp_path: Path) -> None:
    screen = Screen(width=60)
    latin = "import sys; sys.stdout.reconfigure(encoding='latin-1')"
    process = commands.start("study.run", *tiny.argv(tmp_path / "root", trials=3), terminal=screen.name, first=latin)
    screen.read_until(lambda: process.poll() is not None)
    screen.close()
    assert process.wait().status == 0
    assert "next: python -m study.reproduce best" in screen.text


def test_where_there_is_no_terminal_each_event_is_one_plain_line_with_its_time(finished: Any) -> None:
    assert "\x1b" not in finished.ended.out
    lines = finished.ended.out.splitlines()
    ranking = next(i for i, line in enumerate(lines) if line.startswith("ranking by"))
    events = [line for line in lines[:ranking] if "trial" in line]
    assert len(events) > 40
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  +\d+/7  ", line) for line in events)
