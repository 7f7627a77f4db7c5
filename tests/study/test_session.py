"""How a session ends when somebody wants it to, whenever that is."""

import signal
from typing import Any

import pytest

from study.stopping import StopSignal, Terminated, signals


@pytest.mark.parametrize("before", [None, "timeout", "terminated"])
def test_a_first_ctrl_c_never_stops_at_once_and_a_second_does(before: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopSignal(reason=before, searching=True)
    with signals(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "interrupted"
        assert "Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_before_the_search_a_signal_ends_the_session_at_once(sent: signal.Signals, raised: type[BaseException]) -> None:
    with signals(StopSignal()), pytest.raises(raised):
        signal.raise_signal(sent)
