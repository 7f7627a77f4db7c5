"""How a session ends when somebody wants it to, whenever that is."""

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sr_core.errors import SuiteError
from sr_core.process.stopping import StopSignal, Terminated, signals
from study.executors.placement import Placement
from study.session import session
from study.session.goal import with_trials
from study.session.options import RunOptions


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


@pytest.fixture
def resumed_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Checks a placement against a study that began on a GPU."""
    for name in ("fingerprint", "question_of", "check_same_question"):
        monkeypatch.setattr(session, name, lambda *_: None)
    state = SimpleNamespace(opened=SimpleNamespace(runtime={"device": "cuda", "threads": 1}))

    def check(placement: Placement) -> None:
        given = session.Session(
            name="e",
            experiment=cast(Any, None),
            options=RunOptions(tracking_uri="none", storage="none"),
            folder=cast(Any, SimpleNamespace(root=None, study="s")),
            wall_time=cast(Any, None),
            placement=placement,
        )
        given.check(cast(Any, state), 0, cast(Any, SimpleNamespace(manifest=None, images=None)))

    return check


def test_a_study_on_the_gpus_of_a_cluster_goes_on_there(resumed_with: Any) -> None:
    resumed_with(Placement(executor="ray", slots=4, trials_per_gpu=2))


@pytest.mark.parametrize(("executor", "flag"), [("ray", "--trials-per-gpu"), ("processes", "--gpus")])
def test_a_study_on_gpus_does_not_go_on_in_several_slots_without_any(
    resumed_with: Any, executor: Any, flag: str
) -> None:
    with pytest.raises(SuiteError, match=flag):
        resumed_with(Placement(executor=executor, slots=2))


@pytest.mark.parametrize("given", [["--trials", "1", "--seed", "2"], ["--trials=1", "--seed", "2"], ["--seed", "2"]])
def test_the_next_command_asks_for_trials_once(given: list[str]) -> None:
    assert with_trials(given, 11) == ["--seed", "2", "--trials", "11"]
