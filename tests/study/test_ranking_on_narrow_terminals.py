"""What stands on a terminal, or in a file or pipe that a study's output goes to."""

import io

import pytest
from rich.console import Console

from study.record import events as ev
from study.record.state import StudyState
from study.screen import terminal


def test_an_event_is_one_line_of_a_log_however_long_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.PlainView(terminal.console(), 50).observe(ev.Warned(time=0.0, message="word " * 100), StudyState())
    assert capsys.readouterr().out.count("\n") == 1


RANKING = terminal.Ranking(
    ["loss", "batch_size", "learning_rate", "temperature", "input_range", "reduction", "train_kernel"],
    [
        (["1", "14", "33.762", "0.9265", "+0.991"], ["l2", "8", "0.002", "0.1", "255", "10", "matlab_bicubic"]),
        (["", "bicubic", "32.771", "0.9094", ""], []),
        (["33", "0 authors", "31.886", "0.8913", "-0.885"], ["l1", "32", "0.0005", "30", "255", "4", "cv2_cubic"]),
    ],
)


@pytest.mark.parametrize("width", [80, 100, 120, 180])
def test_a_ranking_is_read_in_full_on_a_terminal_of_any_usual_width(width: int) -> None:
    out = Console(file=io.StringIO(), width=width)
    out.print(RANKING)
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert "…" not in out.file.getvalue()
    for scores, settings in RANKING.rows:
        (line,) = (line for line in lines if scores[2] in line)
        assert line.split()[: len(" ".join(scores).split())] == " ".join(scores).split()
        assert all(any(setting in line for line in lines) for setting in settings)
    assert ("learning_rate  temperature" in out.file.getvalue()) == (width == 180), "a column each, where there is room"
