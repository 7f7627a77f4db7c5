"""What stands in a file or pipe that a study's output goes to."""

import pytest

from study import events as ev
from study import terminal
from study.state import StudyState


def test_an_event_is_one_line_of_a_log_however_long_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.PlainView(terminal.console(), 50).observe(ev.Warned(time=0.0, message="word " * 100), StudyState())
    assert capsys.readouterr().out.count("\n") == 1
