"""The progress line shows share, rate and remaining time, in place on a terminal and now and then elsewhere."""

import re

import pytest

from sr_core.process import progress as progress_module
from sr_core.process.progress import ProgressBar, bytes_text


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (11_240_000, "11.2 MB"), (250_112_000, "250 MB"),
     (3_530_603_713, "3.53 GB"), (4e12, "4000 GB")],
)  # fmt: skip
def test_bytes_are_told_in_three_digits(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_the_rate_is_of_the_last_seconds_and_of_this_session_alone() -> None:
    clock = Clock()
    progress = ProgressBar("a.zip", text=bytes_text, clock=clock)
    progress.at(600_000, 1_000_000)  # from an earlier session
    assert progress.line() == "a.zip: 60 % of 1 MB"
    clock.now += 2
    progress.at(620_000, 1_000_000)
    assert progress.line() == "a.zip: 62 % of 1 MB, 10 kB/s, 0:38 left"
    for _ in range(20):
        clock.now += 1
        progress.at(620_000, 1_000_000)
    assert progress.line() == "a.zip: 62 % of 1 MB"  # a stall shows
    clock.now += 1
    progress.at(0, 1_000_000)  # started again
    clock.now += 1
    progress.at(100, 1_000_000)
    assert progress.line() == "a.zip: 0 % of 1 MB, 100 B/s, 2:46:39 left"


def test_elsewhere_than_on_a_terminal_a_line_comes_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with ProgressBar("a.zip", text=bytes_text, clock=clock) as progress:
        for second in range(95):
            progress.at(second * 1000, 100_000)
            clock.now += 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a.zip: 30 % of 100 kB, 1 kB/s, 1:10 left",
        "a.zip: 60 % of 100 kB, 1 kB/s, 0:40 left",
        "a.zip: 90 % of 100 kB, 1 kB/s, 0:10 left",
    ]
    assert err == ""


def test_on_a_terminal_the_line_is_redrawn_in_place_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = Clock(), list[str]()
    monkeypatch.setattr(progress_module, "show_progress", shown.append)
    monkeypatch.setattr(progress_module, "has_status_line", lambda: True)
    with ProgressBar("a.zip", text=bytes_text, clock=clock) as progress:
        for step in range(100):
            progress.at(step * 1000, 100_000)
            clock.now += 0.01
    assert 8 <= len(shown) <= 11
    for line in shown[:-1]:
        told = re.match(r"\[(#*)-*\] a\.zip: (\d+) %", line)
        assert told and len(told[1]) == int(told[2]) // 5
    assert shown[-1] == ""
