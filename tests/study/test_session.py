"""How a session ends when somebody wants it to, whenever that is."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from study import session
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


@pytest.mark.parametrize("reason", ["interrupted", "terminated"])
def test_a_signal_shortens_the_wait_for_a_view_that_is_down(reason: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, waits = StopSignal(), []

    def drain(timeout: float) -> bool:
        waits.append(timeout)
        stop.reason = reason  # somebody wants the process gone
        assert len(waits) < 3
        return False

    down = SimpleNamespace(
        name="down", failing=False, start=lambda: None, drain=drain, lag=lambda: 1, stop=lambda: None
    )
    monkeypatch.setattr(session, "Follower", lambda journal, sink: down)
    monkeypatch.setattr(session, "_HURRIED_SECONDS", 0.0)
    study: Any = SimpleNamespace(
        stop=stop, folder=SimpleNamespace(journal=Path()), _sinks=lambda: [None], _where=lambda: ""
    )
    with session._Session._views(study, Console(quiet=True)):
        pass
    assert len(waits) == 1
