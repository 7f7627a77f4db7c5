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


@pytest.mark.parametrize(
    ("sent", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)],
)
def test_before_the_search_a_signal_ends_the_session_at_once(sent: signal.Signals, raised: type[BaseException]) -> None:
    with signals(StopSignal()), pytest.raises(raised):
        signal.raise_signal(sent)


def test_while_it_searches_a_closed_terminal_ends_the_session_at_the_next_event() -> None:
    stop = StopSignal(searching=True)
    with signals(stop):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # the shell sends it, and so does the kernel
        assert stop.reason == "terminated"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_second_signal_does_not_break_what_the_first_one_unwinds() -> None:
    with signals(StopSignal()):
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals(StopSignal()):
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
