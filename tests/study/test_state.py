"""The state of a study is a pure fold over its events."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.quickstart import EXPERIMENT
from sr_core.errors import SuiteError
from study.executors import inline
from study.record import events as ev
from study.record import journal
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState, fold
from study.reproduction import retrain as proof
from study.reproduction.retrain import contradictions


@pytest.fixture
def told(history: Callable[..., Any]) -> Any:
    """A reference, trials with every ending, a half-done one and one that waits."""
    study = history(EXPERIMENT)
    study.session(trials=50)
    reference = study.propose(reference="authors")
    study.start(reference)
    study.validate(reference, 29.0, 30.0, 31.0, 32.0)
    study.end(reference)
    study.try_out({"model.temperature": 1.0}, 30.0)
    study.try_out({"model.temperature": 3.0}, 28.0, "pruned")
    study.try_out({"model.temperature": 10.0}, 0.0, "failed")
    half = study.propose({"model.temperature": 30.0})
    study.start(half)
    study.validate(half, 33.0)
    study.tell(ev.Checkpointed, trial=half, patches=480)
    study.propose({"model.temperature": 100.0})
    return study


# Folding


def test_the_fold_of_all_events_is_what_they_lead_to_one_by_one(told: Any) -> None:
    state = StudyState()
    for count, event in enumerate(told.events, start=1):
        state = state.apply(event)
        assert state == fold(told.events[:count])
    assert state == told.state


def test_an_event_changes_no_earlier_state(told: Any) -> None:
    states = [fold(told.events[:count]) for count in range(len(told.events) + 1)]
    before = [repr(state) for state in states]
    for state, event in zip(states, told.events, strict=False):
        state.apply(event)
    assert [repr(state) for state in states] == before


def test_an_event_copies_no_trial_but_its_own(told: Any) -> None:
    state = told.state
    for number in range(6, 300):
        state = state.apply(replace(told.events[2], trial=number))
    last = state.apply(ev.Started(time=0.0, trial=250, slot=0, epoch=1, patches=0, source="feed"))
    shared = [block for block in last.trials.blocks() if any(block is other for other in state.trials.blocks())]
    assert len(shared) == len(last.trials.blocks()) - 1
    assert last.endings is state.endings and last.warnings is state.warnings
    assert all(last.trials[n] is state.trials[n] for n in state.trials if n != 250)


def test_events_in_any_batches_lead_to_the_same_state(told: Any) -> None:
    for size in (1, 2, 7, 1_000):
        state = StudyState()
        for first in range(0, len(told.events), size):
            state = fold(told.events[first : first + size], state)
        assert state == told.state


def test_the_ranking_of_a_state_is_sorted_once(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sorts: list[int] = []
    whole = StudyState._ranked
    monkeypatch.setattr(StudyState, "_ranked", lambda self: sorts.append(1) or whole(self))
    state = fold(told.events)
    first = state.ranking()
    first.clear()  # callers may change their copy
    assert [t.number for t in state.ranking()] == [0, 1, 2] and state.best() is not None and state.candidates()
    assert len(sorts) == 1
    later = state.apply(told.events[-1])
    later.ranking()
    assert len(sorts) == 2, "another state has another ranking"


def test_a_state_cannot_be_changed_in_place(told: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        told.state.endings = ()
    with pytest.raises(TypeError):
        told.state.trials[0] = None
    with pytest.raises(FrozenInstanceError):
        told.state.trials[0].status = "running"


def test_the_state_of_a_record_that_was_written_and_read_is_the_same(told: Any) -> None:
    lines = [journal.encode(seq, event) for seq, event in enumerate(told.events)]
    assert fold(journal.decode(line)[1] for line in lines) == told.state


@settings(deadline=None)  # a busy machine is no fault
@given(st.data())
def test_events_of_different_trials_may_come_in_any_order(data: st.DataObject) -> None:
    """Slots tell independently: what a trial comes to depends on its own events alone, its place in the order aside."""
    opened, stories = [], []
    for number in range(3):
        config = EXPERIMENT.base.with_values({"seed": number})
        common: dict[str, Any] = {"time": 0.0, "trial": number}
        opened.append(
            ev.Proposed(
                role="search", name="", config=config.to_json(), config_hash=config.digest(), values={}, **common
            )
        )
        scores = {"val/psnr": 30.0 + number}
        stories.append(
            [
                ev.Started(slot=number, epoch=1, patches=0, source="", **common),
                ev.Validated(patches=480, scores=scores, loss=1.0, learning_rate=1e-3, **common),
                ev.Checkpointed(patches=480, **common),
                ev.Pruned(patches=480, reason="", **common),
            ]
        )
    mixed = list(opened)
    left = [list(story) for story in stories]
    while any(left):
        chosen = data.draw(st.sampled_from([story for story in left if story]))
        mixed.append(chosen.pop(0))
    one, other = fold(mixed), fold([*opened, *(event for story in stories for event in story)])
    assert _without_order(one) == _without_order(other)
    assert sorted(one.endings) == [0, 1, 2]


def _without_order(state: StudyState) -> list[TrialState]:
    return [replace(trial, arrivals=()) for trial in state.trials.values()]


def test_what_is_no_recorded_event_has_no_rule(told: Any) -> None:
    with pytest.raises(TypeError, match="no rule for Ticked"):
        told.state.apply(ev.Ticked(time=1.0, trial=0, patches=8, loss=0.1))
    with pytest.raises(TypeError, match="no rule for Event"):
        told.state.apply(ev.Event(time=1.0))


# One trial


def point(patches: int, **more: Any) -> ev.Validated:
    counted = {"steps": patches / 100, "validations": 0.5}
    numbers = {"scores": {"val/psnr": 30.0 + patches / 1e4, "val/ssim": 0.8}, "loss": 1 / patches}
    return ev.Validated(
        time=patches,
        trial=0,
        patches=patches,
        learning_rate=1e-3,
        seconds=counted,
        load={"cpu": 50.0},
        **numbers,
        **more,
    )


def test_of_old_validations_the_numbers_stay_and_of_each_start_the_seconds_it_counted(told: Any) -> None:
    proposed, started = told.events[2], told.events[3]
    points = [point(patches) for patches in (480, 960, 1440, 1920)]
    again = replace(started, time=1_000.0, patches=960)
    trial = fold([proposed, started, *points[:2], again, *points[2:]]).trials[0]
    assert [p.numbers() for p in trial.curve] == [p.numbers() for p in points]
    assert [p.time for p in trial.curve] == [480, 960, 1440, 1920]
    assert [dict(p.seconds) for p in trial.curve] == [{}, points[1].seconds, {}, points[3].seconds]
    assert [dict(p.load) for p in trial.curve] == [{}, {}, {}, {"cpu": 50.0}]
    assert journal.decode(journal.encode(0, trial.curve[0]))[1] == trial.curve[0], "they are events as any other"
    ended = trial.after(ev.Pruned(time=2_000.0, trial=0, patches=1920, reason=""))
    assert [dict(p.load) for p in ended.curve] == [{}] * 4
    assert dict(ended.curve[-1].seconds) == points[3].seconds


def test_trials_hold_their_common_settings_once_and_each_its_own_as_they_were_written(told: Any) -> None:
    lines = [journal.encode(seq, event) for seq, event in enumerate(told.events)]
    events = [journal.decode(line)[1] for line in lines]  # each line with objects of its own
    trials = fold(events).trials
    written = {event.trial: event for event in events if isinstance(event, ev.Proposed)}
    assert {n: repr(t.proposed) for n, t in trials.items()} == {n: repr(event) for n, event in written.items()}
    first, other = trials[0].proposed.config, trials[1].proposed.config
    assert first["data"] is other["data"] and first["evaluation"] is other["evaluation"]
    number = replace(written[1], trial=9, config={**written[0].config, "seed": float(written[0].config["seed"])})
    assert type(fold([*events, number]).trials[9].proposed.config["seed"]) is float, "99.0 is not 99"


def test_a_trial_goes_from_waiting_over_running_to_its_end(told: Any) -> None:
    statuses = [trial.status for trial in told.state.trials.values()]
    assert statuses == ["finished", "finished", "pruned", "failed", "running", "waiting"]
    assert [trial.ended for trial in told.state.trials.values()] == [True, True, True, True, False, False]
    assert told.state.endings == (0, 1, 2, 3)


def test_a_trial_knows_its_curve_its_checkpoint_and_its_score(told: Any) -> None:
    reference, half, waiting = (told.state.trials[i] for i in (0, 4, 5))
    assert (reference.patches, reference.score) == (1_920, 32.0)
    assert [reference.score_at(p) for p in (480, 960, 1_440, 1_920)] == [29.0, 30.0, 31.0, 32.0]
    assert reference.score_at(700) is None
    assert (half.checkpoint, half.patches, half.score) == (480, 480, 33.0)
    assert (waiting.checkpoint, waiting.patches, waiting.score, waiting.curve) == (0, 0, None, ())


def test_every_start_of_a_trial_is_kept(told: Any) -> None:
    told.start(4, patches=480)
    assert [start.patches for start in told.state.trials[4].starts] == [0, 480]


def test_a_trial_s_config_is_the_one_that_was_recorded(told: Any) -> None:
    config = told.state.trials[1].config
    assert config.model.temperature == 1.0
    assert config.digest() == told.state.trials[1].proposed.config_hash


# Counting and ranking


def test_finished_and_pruned_trials_count_references_among_them(told: Any) -> None:
    assert told.state.counted == 3


def test_failed_paused_and_waiting_trials_do_not_count(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    study.try_out({"train.loss": "l2"}, 30.0, "failed")
    paused = study.propose({"train.loss": "l1"})
    study.start(paused)
    study.validate(paused, 30.0, 30.0)
    study.propose({"train.loss": "charbonnier"})
    assert study.state.counted == 0


def test_finished_trials_are_ranked_by_score_and_stand_before_pruned_ones(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    scores = {"finished": (29.0, 31.0, 30.0), "pruned": (35.0, 36.0)}
    for how, psnrs in scores.items():
        for psnr in psnrs:
            study.try_out({}, psnr, how)
    study.try_out({}, 0.0, "failed")
    assert [t.number for t in study.state.ranking()] == [1, 2, 0, 4, 3]


def test_pruned_trials_are_ranked_by_how_far_they_came_then_by_score(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for psnrs in ((40.0, 40.0), (30.0, 30.0, 30.0), (31.0, 31.0, 31.0), (41.0, 41.0)):
        number = study.propose()
        study.validate(number, *psnrs)
        study.end(number, "pruned")
    assert [t.number for t in study.state.ranking()] == [2, 1, 3, 0]


def test_of_equal_scores_the_earlier_trial_stands_first(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for _ in range(3):
        study.try_out({}, 30.0)
    assert [t.number for t in study.state.ranking()] == [0, 1, 2]


def test_a_score_is_that_at_the_end_of_the_budget_never_the_best_on_the_way(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for psnrs in ((30.0, 34.0, 33.0, 30.5), (30.0, 30.0, 30.0, 31.0)):
        number = study.propose()
        study.validate(number, *psnrs)
        study.end(number)
    assert [(t.number, t.score) for t in study.state.ranking()] == [(1, 31.0), (0, 30.5)]


def test_the_best_is_never_a_reference(told: Any) -> None:
    assert told.state.ranking()[0].is_reference
    assert told.state.best().number == 1


@pytest.mark.parametrize("how", ["pruned", "failed"])
def test_the_best_is_a_finished_trial_or_there_is_none(history: Callable[..., Any], how: str) -> None:
    study = history(EXPERIMENT)
    assert study.state.best() is None
    reference = study.propose(reference="blog")
    study.validate(reference, 30.0, 30.0, 30.0, 30.0)
    study.end(reference)
    study.try_out({}, 40.0, how)
    assert study.state.best() is None


def test_scores_below_zero_are_ranked_like_any_other(history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    for psnr in (-3.0, 0.0, -1.0):
        study.try_out({}, psnr)
    assert [t.number for t in study.state.ranking()] == [1, 2, 0]


# The study


@pytest.mark.parametrize(
    ("reason", "complete"),
    [("complete", True), ("exhausted", True), ("interrupted", False), ("timeout", False), ("failures", False)],
)
def test_a_study_is_complete_when_a_session_ended_with_nothing_left_to_do(
    told: Any, reason: str, complete: bool
) -> None:
    assert not told.state.complete
    told.tell(ev.SessionEnded, epoch=1, reason=reason)
    assert told.state.complete is complete
    told.session(trials=60, epoch=2)
    assert not told.state.complete
    assert told.state.session.epoch == 2


def test_warnings_are_kept_and_change_nothing_else(told: Any) -> None:
    before = told.state
    told.tell(ev.Warned, message="odd", trial=4)
    assert told.state.warnings == ("odd",)
    assert (told.state.trials, told.state.endings) == (before.trials, before.endings)


def test_the_last_event_s_time_is_known(told: Any) -> None:
    assert told.state.last_time == told.events[-1].time


# A kill between the validation at the budget and the end


def finished_after_a_resume(history: Callable[..., Any], last: float, end: float) -> Any:
    """A study whose first trial was validated at its budget, killed, and repeated that with other bits."""
    study = history(EXPERIMENT)
    study.session()
    number = study.propose({"model.temperature": 1.0})
    study.start(number)
    study.validate(number, 30.0, 31.0, last)
    study.session(epoch=2)
    patches = study.state.trials[number].patches
    study.start(number, patches - 480)
    scores = {"val/psnr": end, "val/ssim": 0.7}
    rest = {"per_image": (("crop", end, 0.7),), "weights": "beef", "seconds": {}}
    study.tell(ev.Finished, trial=number, patches=patches, scores=scores, **rest)
    return study


def test_a_finished_trial_s_score_is_that_of_its_weights_also_if_its_last_validation_was_another(
    history: Callable[..., Any],
) -> None:
    study = finished_after_a_resume(history, 33.7, 33.6)
    other = study.try_out({"model.temperature": 3.0}, 33.65)
    trial = study.state.trials[0]
    assert trial.score == 33.6
    assert trial.scores == {"val/psnr": 33.6, "val/ssim": 0.7}
    assert [p.scores["val/psnr"] for p in trial.curve] == [30.0, 31.0, 33.7], "the record's curve stays as it is"
    assert [t.number for t in study.state.ranking()] == [other, 0]


def test_a_record_whose_end_repeats_the_last_validation_after_a_kill_is_an_honest_one(
    history: Callable[..., Any],
) -> None:
    honest = finished_after_a_resume(history, 33.7, 33.6).state.trials[0]
    assert contradictions(honest) == []
    changed = history(EXPERIMENT)
    number = changed.try_out({"model.temperature": 1.0}, 33.7)
    trial = changed.state.trials[number]
    assert contradictions(trial) == []
    trial = replace(trial, end=replace(trial.end, scores={"val/psnr": 33.6, "val/ssim": 0.8}))
    assert "record: the trial's final scores are not those of its last validation" in contradictions(trial)


def test_a_reproduction_is_compared_with_the_validation_that_the_weights_had(
    history: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trial = finished_after_a_resume(history, 33.7, 33.6).state.trials[0]
    last = replace(trial.curve[-1], scores=dict(trial.scores))
    happened = [*trial.curve[:-1], last, trial.end]
    monkeypatch.setattr(inline, "run_trial", lambda task, bench: (event for event in happened))
    monkeypatch.setattr(proof, "keep_compiled_in", lambda path: None)
    here: Any = SimpleNamespace(apply=lambda: None, device="cpu")

    def retrained() -> proof.ReproducedTrial:
        folder = StudyFolder(tmp_path, "small")
        return proof.retrain(folder, trial, here, here, lambda event: None, max_bicubic_psnr=None)

    assert retrained().identical
    other = replace(trial.end, weights="dead")
    monkeypatch.setattr(inline, "run_trial", lambda task, bench: (event for event in [*trial.curve[:-1], last, other]))
    assert not retrained().identical
    assert "weights" in retrained().first_difference()


def test_a_study_without_any_event_has_no_opening() -> None:
    with pytest.raises(SuiteError, match="its journal is empty; run the study first"):
        _ = StudyState().opening
