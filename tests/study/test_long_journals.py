"""Journals of thousands of trials: what readers do must grow with a journal as the journal does. Counted, not timed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study import results
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState
from study.report.cost import _loads
from study.report.ranking import ranking
from study.report.record import record_of
from study.screen import live_table
from study.screen.live_table import ScreenState, screen

TRIALS = 40


@pytest.fixture
def study(history: Callable[..., Any]) -> Any:
    """Forty trials, each third one finished, and a reference."""
    study = history(replace(EXPERIMENT, replicates=2))
    study.session(trials=TRIALS + 1)
    reference = study.propose(reference="authors")
    study.start(reference)
    study.validate(reference, 29.0, 30.0, 31.0, 32.0)
    study.end(reference)
    for number in range(TRIALS):
        values = {name: study.experiment.base.dotted()[name] for name in study.experiment.space.names}
        study.try_out(values, 30 + number / 100, ("finished", "pruned", "failed")[number % 3])
    return study


class Counted:
    """Replaces a method, and counts how often it is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls = 0
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)


def test_the_table_of_trials_compares_no_two_of_them(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Counted(monkeypatch, TrialState, "__eq__")
    table = results.trials(study.state)
    assert compared.calls == 0
    assert sorted(table["trial"]) == list(range(TRIALS + 1))
    assert table["rank"].notna().sum() == 15


def test_the_reports_ranking_asks_once_for_the_winner(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    winner, sorted_ = Counted(monkeypatch, StudyState, "best"), Counted(monkeypatch, StudyState, "_ranked")
    compared = Counted(monkeypatch, TrialState, "__eq__")
    content = str(ranking(record).body)
    assert (winner.calls, sorted_.calls, compared.calls) == (1, 1, 0)
    assert content.count('class="best') == 1


def test_a_drawing_of_the_live_screen_sorts_trials_and_validations_once(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked, scaled = Counted(monkeypatch, StudyState, "_ranked"), Counted(monkeypatch, live_table, "scale_of")
    now = study.state.last_time + 10
    lines = screen(ScreenState(state=replace(study.state), asked=TRIALS + 9, slots=2, now=now), 140, 50)
    assert (ranked.calls, scaled.calls) == (1, 1)
    assert any(line.plain.startswith("rank  trial  curve") for line in lines)


def test_loads_of_devices_are_means_over_all_validations_though_a_state_keeps_the_last_ones(history: Any) -> None:
    study = history(EXPERIMENT)
    study.session()
    number = study.propose()
    study.start(number)
    for patches, cpu in ((480, 10.0), (960, 20.0), (1440, 60.0)):
        study.tell(
            ev.Validated, trial=number, patches=patches, scores={"val/psnr": 30.0, "val/ssim": 0.8}, loss=1.0,
            learning_rate=1e-3, load={"cpu_utilization_percentage": cpu},
        )  # fmt: skip
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    assert record.mean_loads == {"cpu_utilization_percentage": 30.0}
    assert _loads(record) == [("mean load of a trial's device", "cpu utilization percentage 30")]
