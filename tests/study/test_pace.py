"""How fast a study trains, how much is left, and what pruning saved: known histories, known answers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.record import events as ev
from study.search.replicates import due
from study.statistics import pace

PLAIN = replace(EXPERIMENT, references={}, replicates=0)
BUDGET, EVERY = 1_920, 480


@pytest.fixture
def begin_study(history: Callable[..., Any]) -> Callable[..., Any]:
    """A study of an experiment whose first session has begun: begin_study(experiment=PLAIN)."""

    def make(experiment: Any = PLAIN) -> Any:
        study = history(experiment)
        study.session()
        return study

    return make


def laps_of(study: Any) -> Any:
    laps: Any = {}
    for event in study.events:
        laps = pace.follow(laps, event)
    return laps


def test_a_trial_s_rate_is_taken_since_it_took_its_slot_and_ends_with_it(begin_study: Any) -> None:
    study = begin_study()
    number = study.propose({})
    study.start(number, patches=480)
    begun = study.events[-1].time
    laps = pace.follow(laps_of(study), ev.Ticked(time=begun + 4, trial=number, patches=880, loss=1.0))
    assert laps[number].rate == 100.0
    assert laps_of(study)[number].rate == 0.0, "`follow` does not change its argument"
    for kind, rest in ((ev.Paused, {"patches": 880}), (ev.WorkerLost, {"slot": 0, "reason": "x"})):
        assert pace.follow(laps, kind(time=begun + 5, trial=number, **rest)) == {}


def test_a_tick_of_a_trial_that_left_its_slot_does_not_bring_it_back() -> None:
    assert pace.follow({}, ev.Ticked(time=1.0, trial=3, patches=5, loss=1.0)) == {}


def test_pruning_saved_what_the_pruned_trials_were_not_trained_for(begin_study: Any) -> None:
    study = begin_study()
    study.try_out({}, 30.0)
    study.try_out({"train.loss": "l2"}, 25.0, "pruned")
    study.try_out({"train.loss": "l1"}, 25.0, "failed")
    assert pace.saved(study.state) == BUDGET - 960


def test_a_paused_trial_saves_as_a_pruned_one_and_the_time_saved_is_that_of_the_clock(begin_study: Any) -> None:
    study = begin_study()
    study.try_out({}, 25.0, "pruned")
    number = study.propose({"train.loss": "l2"})
    study.start(number)
    study.validate(number, 25.0)
    study.pause(number)
    assert pace.saved(study.state) == 2 * BUDGET - 960 - 480
    rate_of_eight_slots = 8 * 10.0
    assert pace.saved_wall_seconds(study.state, rate_of_eight_slots) == (2 * BUDGET - 960 - 480) / 80
    assert pace.saved_wall_seconds(study.state, 0.0) == 0


def test_what_is_to_do_before_the_first_trial_is_every_budget(begin_study: Any) -> None:
    study = begin_study(replace(EXPERIMENT, replicates=3))
    with_replicates = 50 * BUDGET + 3 * (1 + 2) * BUDGET
    assert pace.to_do(study.state, 50, {}) == with_replicates, "both references among the 50; three seeds for three"


def test_a_running_trial_still_needs_the_rest_of_its_budget(begin_study: Any) -> None:
    study = begin_study()
    number = study.propose({})
    study.start(number)
    assert pace.to_do(study.state, 3, laps_of(study)) == 3 * BUDGET
    laps = pace.follow(laps_of(study), ev.Ticked(time=study.events[-1].time + 1, trial=number, patches=300, loss=1.0))
    assert pace.to_do(study.state, 3, laps) == 3 * BUDGET - 300


def test_trials_to_come_are_expected_to_train_as_far_as_those_before_them(begin_study: Any) -> None:
    study = begin_study()
    for _ in range(9):
        study.try_out({}, 25.0, "pruned")
    assert pace.to_do(study.state, 10, {}) == (9 * 960 + BUDGET) / 10
    study.start(study.propose({}))
    study.validate(9, 30.0, 31.0, 32.0)
    assert pace.to_do(study.state, 10, {}) == BUDGET - 1_440, "a trial that has passed the rung continues to its budget"


def test_running_and_missing_replicates_count_and_a_failed_reference_s_do_not(begin_study: Any) -> None:
    experiment = replace(EXPERIMENT, replicates=3)
    study = begin_study(experiment)
    for name, how in (("authors", "finished"), ("blog", "failed")):
        number = study.propose(reference=name)
        study.start(number)
        study.validate(number, *[28.0] * 4)
        study.end(number, how)
    study.try_out({}, 30.0)
    study.try_out({"train.loss": "l2"}, 29.0)
    asked = study.state.counted
    assert pace.to_do(study.state, asked, {}) == 3 * 2 * BUDGET
    study.replicate(due(study.state, experiment), 30.0)
    assert pace.to_do(study.state, asked, {}) == 5 * BUDGET
    while (one := due(study.state, experiment)) is not None:
        study.replicate(one, 30.0)
    assert pace.to_do(study.state, asked, {}) == 0


def test_a_better_trial_of_a_longer_search_needs_replicates_of_its_own(begin_study: Any) -> None:
    experiment = replace(EXPERIMENT, replicates=3, references={})
    study = begin_study(experiment)
    study.try_out({}, 30.0)
    while (one := due(study.state, experiment)) is not None:
        study.replicate(one, 30.0)
    study.try_out({"train.loss": "l2"}, 29.0)
    assert pace.replicates_to_come(study.state) == 0
    study.try_out({"train.loss": "charbonnier"}, 31.0)
    assert pace.replicates_to_come(study.state) == 3


def test_time_left_is_what_is_to_do_at_the_pace_of_this_session_alone(begin_study: Any) -> None:
    study = begin_study()
    study.try_out({}, 30.0)
    number = study.propose({})
    study.start(number)
    study.validate(number, 30.0, 31.0)
    study.session(epoch=2)
    begun = study.state.session.time
    assert pace.seconds_left(study.state, 10, {}, begun + 50) is None, "this session has trained nothing yet"
    event = ev.Started(time=begun + 10, trial=number, slot=0, epoch=2, patches=960, source="feed")
    state = study.state.apply(event)
    laps = pace.follow({}, event)
    laps = pace.follow(laps, ev.Ticked(time=begun + 100, trial=number, patches=1_160, loss=1.0))
    assert pace.trained(state, laps) == 200, "of 1,920 and 960 that an earlier session trained, nothing"
    assert pace.patches_per_second(state, laps, begun + 100) == 2.0
    assert pace.seconds_left(state, 10, laps, begun + 100) == (8 * BUDGET + BUDGET - 1_160) / 2.0
