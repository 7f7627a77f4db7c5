"""A study that repeats the decisions of another one: equal configurations by trial number, and equal prunings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import ConfigError, SuiteError
from sr_core.training.runtime import resolve
from study.executors.opening import runtime_for
from study.executors.placement import Placement
from study.question.experiment import Experiment, load_experiment
from study.question.space import Grid
from study.record.course import course_of, described
from study.record.journal import Journal
from study.search.sampler import propose
from study.search.scheduler import Decision, decide


@pytest.fixture
def tiny(tiny_experiment_file: Path) -> Experiment:
    return load_experiment(str(tiny_experiment_file))[1]


@pytest.fixture
def recorded(tiny: Experiment, history: Callable[[Experiment], Any]) -> Any:
    """A study of ten search trials, whose scores make some of them pruned."""
    study = history(tiny)
    for number in range(10):
        point = propose(study.state, tiny, number)
        assert point is not None
        study.try_out(tiny.space.settings(point), 30 + number % 4, "pruned" if number in (3, 7) else "finished")
    return study


@pytest.fixture
def journal(recorded: Any, tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    written = Journal(path)
    for event in recorded.events:
        written.append(event)
    written.close()
    return path


def test_every_number_gets_the_same_configuration_whatever_has_happened_by_then(
    tiny: Experiment, recorded: Any, journal: Path, history: Callable[[Experiment], Any]
) -> None:
    again = replace(tiny, sampler="replay", replay=journal)
    nothing_yet = history(again).state
    for trial in recorded.state.trials.values():
        point = propose(nothing_yet, again, trial.number)
        assert point is not None
        assert again.space.settings(point) == dict(trial.proposed.values)
    assert propose(nothing_yet, again, 10) is None


def test_a_trial_is_pruned_exactly_where_it_was_whatever_the_others_score(
    tiny: Experiment, recorded: Any, journal: Path
) -> None:
    again = replace(tiny, scheduler="replay", replay=journal)
    decisions = {number: decide(recorded.state, again, number) for number in range(10)}
    assert [number for number, decision in decisions.items() if decision is Decision.STOP] == [3, 7]


def test_the_settings_that_decide_bits_are_those_of_the_replayed_study(
    tiny: Experiment, history: Callable[[Experiment], Any], tmp_path: Path
) -> None:
    study = history(tiny)
    runtime = replace(resolve(threads=3), memory_format="contiguous")
    path = tmp_path / "other.jsonl"
    written = Journal(path)
    written.append(replace(study.events[0], runtime=runtime.to_json()))
    written.close()
    again = replace(tiny, sampler="replay", replay=path)
    assert runtime_for(again, 10, Placement()) == runtime
    with pytest.raises(SuiteError, match="the replayed study ran on cpu, not on cuda"):
        runtime_for(again, 10, Placement(gpus=("0",)))


def test_what_is_replayed_is_part_of_the_question(tiny: Experiment, journal: Path) -> None:
    again = replace(tiny, sampler="replay", replay=journal)
    assert described(again)["search"]["replay"] == course_of(journal).digest()
    assert "replay" not in described(tiny)["search"]


@pytest.mark.parametrize("changes", [{"sampler": "replay"}, {"replay": Path("journal.jsonl")}])
def test_a_replay_without_a_journal_or_a_journal_without_a_replay_is_refused(
    tiny: Experiment, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="a replay needs both"):
        replace(tiny, **changes)


def test_a_missing_journal_is_named(tiny: Experiment, tmp_path: Path) -> None:
    again = replace(tiny, sampler="replay", replay=tmp_path / "gone.jsonl")
    with pytest.raises(SuiteError, match=r"there is no journal .*gone\.jsonl"):
        described(again)


def test_a_course_outside_the_space_is_refused(
    tiny: Experiment, journal: Path, history: Callable[[Experiment], Any]
) -> None:
    other = replace(tiny, sampler="replay", replay=journal, nuisance={"model.temperature": Grid(0.5, 0.7)})
    with pytest.raises(SuiteError, match="lies outside this experiment's space"):
        propose(history(other).state, other, 0)
