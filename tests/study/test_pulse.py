"""The small file that says how far running trials are: whose it is, and that no study fails over it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.record import events as ev
from study.screen.pulse import Pulse, pulse_of


@pytest.fixture
def running(history: Callable[..., Any]) -> Any:
    """A study whose first session, of epoch 1, trains trial 0."""
    study = history(EXPERIMENT)
    study.session()
    study.start(study.propose({}))
    return study


def tick(pulse: Pulse, study: Any, patches: int) -> None:
    pulse.observe(study.events[-1], study.state)
    pulse.observe(ev.Ticked(time=study.events[-1].time + 1, trial=0, patches=patches, loss=1.0), study.state)


def end(study: Any) -> ev.Event:
    study.tell(ev.SessionEnded, epoch=1, reason="complete")
    event: ev.Event = study.events[-1]
    return event


def test_it_tells_of_its_own_session_and_of_no_other(running: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    tick(Pulse(journal), running, 160)
    assert {number: lap.patches for number, lap in pulse_of(journal, 1).items()} == {0: 160}
    assert pulse_of(journal, 2) == {}, "another session's"
    assert [path.name for path in tmp_path.iterdir()] == [".pulse.json"]


@pytest.mark.parametrize("content", ["{", "", "[]", "{}", '{"epoch": 1}', '{"epoch": 1, "laps": {"0": {"slot": 0}}}'])
def test_what_cannot_be_read_tells_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / ".pulse.json").write_text(content)
    assert pulse_of(tmp_path / "journal.jsonl", 1) == {}


def test_it_ends_with_its_session_and_a_new_one_removes_that_of_a_killed_one(running: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    pulse = Pulse(journal)
    tick(pulse, running, 160)
    (tmp_path / ".pulse.json.part").write_text("{")  # as a kill in the middle leaves it
    Pulse(journal)
    assert not list(tmp_path.iterdir())
    tick(Pulse(journal), running, 160)
    pulse.observe(end(running), running.state)
    assert not list(tmp_path.iterdir())


def test_no_study_fails_where_it_can_be_neither_written_nor_removed(running: Any, tmp_path: Path) -> None:
    (tmp_path / ".pulse.json").mkdir()  # refuses both, even to root
    pulse = Pulse(tmp_path / "journal.jsonl")
    for patches in (160, 320):
        pulse._written = 0.0
        tick(pulse, running, patches)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pulse.json", ".pulse.json.part"], "one file, not two"
    pulse.observe(end(running), running.state)
    assert [path.name for path in tmp_path.iterdir()] == [".pulse.json"]


def test_what_it_holds_is_plain_json(running: Any, tmp_path: Path) -> None:
    tick(Pulse(tmp_path / "journal.jsonl"), running, 160)
    stored = json.loads((tmp_path / ".pulse.json").read_text())
    assert stored == {"epoch": 1, "laps": {"0": dataclasses.asdict(pulse_of(tmp_path / "journal.jsonl", 1)[0])}}
