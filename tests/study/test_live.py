"""The live view in a process with a terminal of its own: Ctrl-Z, and what happens where it cannot be drawn."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.record.journal import Journal

SHOWS = """
import os, signal, sys, time
from pathlib import Path
from study.record import events as ev
from study.screen import live, terminal
from study.record.journal import read
from study.record.state import fold
from sr_core.process.stopping import StopSignal
{first}
events = list(read(Path(sys.argv[1])))
state = fold(events)
view = live.LiveView(terminal.console(), 50, slots=1, stop=StopSignal(), importance={importance})
view.observe(events[-1], state)
{then}
while not Path(sys.argv[2]).exists():
    time.sleep(0.02)
    {each}
view.close()
print("closed")
"""
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"
DRAWN = "searching; 0 of 50 trials"


class Shown:
    """A process that shows a running study until `end` is called."""

    def __init__(self, journal: Path, first: str, importance: str, then: str, each: str) -> None:
        self._end = journal.with_name("end")
        self._master, slave = os.openpty()
        source = SHOWS.format(first=first, importance=importance, then=then, each=each or "pass")
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, journal, self._end],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            process_group=0,  # with a parent in the same session, as below a shell: else nothing would stop it
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        )
        os.close(slave)
        self.written = ""

    def until(self, holds: Callable[[], object]) -> None:
        """Reads what is written until the condition holds."""
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain: {self.written[-2000:]!r}"
            if select.select([self._master], [], [], 0.02)[0]:
                try:
                    self.written += os.read(self._master, 65536).decode()
                except OSError:  # the other end is closed
                    time.sleep(0.02)

    def draws(self) -> None:
        """Waits for two more screens."""
        before = self.written.count(DRAWN)
        self.until(lambda: self.written.count(DRAWN) >= before + 2)

    def stops(self) -> None:
        """Waits until it is stopped."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        self.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def end(self) -> None:
        self._end.touch()
        self.until(lambda: self.process.poll() is not None and "closed\r\n" in self.written)
        assert self.process.returncode == 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def show(history: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """show(first="", importance="None", then="", each=""): a process whose view shows a study with one running trial.

    The sources run before the view is made, once it has its first event, and every 20 ms.
    """
    study = history(EXPERIMENT)
    study.session()
    study.start(study.propose({}))
    journal = Journal(tmp_path / "journal.jsonl")
    for event in study.events:
        journal.append(event)
    journal.close()
    begun: list[Shown] = []

    def make(first: str = "", importance: str = "None", then: str = "", each: str = "") -> Shown:
        begun.append(Shown(tmp_path / "journal.jsonl", first, importance, then, each))
        return begun[-1]

    yield make
    for shown in begun:
        shown.close()


def test_ctrl_z_gives_the_screen_back_and_fg_brings_it_again_as_often_as_one_likes(show: Any) -> None:
    shown = show()
    for _ in range(3):
        shown.draws()
        shown.process.send_signal(signal.SIGTSTP)
        shown.stops()
        shown.until(lambda: not select.select([shown._master], [], [], 0.05)[0])
        assert shown.written.rfind(LEFT) > shown.written.rfind(ENTERED), "the shell has its screen"
        shown.process.send_signal(signal.SIGCONT)
    shown.draws()
    shown.end()
    assert shown.written.count(ENTERED) == 4


def test_a_second_ctrl_z_while_the_first_is_answered_hangs_nothing(show: Any) -> None:
    again = (
        "restore = live.LiveView._restore\nseconds = [signal.SIGTSTP]\n"
        "def answered(self):\n"
        "    if seconds:\n"
        "        os.kill(os.getpid(), seconds.pop())\n"
        "        time.sleep(0.05)\n"
        "    restore(self)\n"
        "live.LiveView._restore = answered"
    )
    shown = show(first=again)
    shown.draws()
    shown.process.send_signal(signal.SIGTSTP)
    shown.stops()
    shown.process.send_signal(signal.SIGCONT)
    shown.draws()
    shown.end()


def test_ctrl_z_in_the_middle_of_a_drawing_waits_for_it(show: Any) -> None:
    slow = (
        "update = live.Live.update\n"
        "def slowly(self, *given, **more):\n"
        "    os.kill(os.getpid(), signal.SIGTSTP) if not Path(sys.argv[1] + '.once').exists() else None\n"
        "    Path(sys.argv[1] + '.once').touch()\n"
        "    time.sleep(0.05)\n"
        "    update(self, *given, **more)\n"
        "live.Live.update = slowly"
    )
    shown = show(first=slow)
    shown.stops()
    shown.process.send_signal(signal.SIGCONT)
    shown.draws()
    assert shown.written.index(DRAWN) < shown.written.index(LEFT), "drawn to its end"
    shown.end()


def test_a_screen_that_cannot_be_drawn_is_given_back_at_once_and_plain_lines_follow(show: Any) -> None:
    fails = (
        "update = live.Live.update\ncount = 0\n"
        "def fails(self, *given, **more):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count > 2:\n"
        "        raise RuntimeError('a bug of\\nthe view')\n"
        "    update(self, *given, **more)\n"
        "live.Live.update = fails"
    )
    tells = (
        "print('stopping after a checkpoint', file=sys.stderr); view.observe(ev.Warned(time=1.0, message='x'), state)"
    )
    shown = show(first=fails, each=tells)
    shown.until(lambda: LEFT in shown.written)
    shown.until(lambda: "  0/50  warning: x" in shown.written)
    after = shown.written.rpartition(LEFT)[2]
    reason = "the live view failed (RuntimeError: a bug of the view); continuing with plain lines"
    assert reason in after and "\r\nstopping after a checkpoint\r\n" in after
    shown.process.send_signal(signal.SIGTSTP)
    shown.stops()
    shown.process.send_signal(signal.SIGCONT)
    shown.end()
    assert shown.written.count(ENTERED) == 1 and ENTERED not in after and "Traceback" not in shown.written
    assert shown.written.rpartition(LEFT)[2].count(reason) == 1, "and the screen was left once for all"


def test_importances_that_fail_cost_the_importances_alone(show: Any) -> None:
    fails = (
        "class Fails:\n"
        "    def sentences(self, state): raise OSError('no more processes')\n"
        "    def close(self): print('ended')\n"
    )
    shown = show(first=fails, importance="Fails()")
    shown.until(lambda: "importances are no longer shown (OSError: no more processes)" in shown.written)
    shown.draws()
    assert LEFT not in shown.written
    shown.end()
