"""Which trials continue at a rung, by scores made by hand."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.question.experiment import Experiment
from study.search.scheduler import Decision, decide, hopeless, promotable

# Validations at 480, 960 (the rung), 1440, 1920.
HALVES = replace(EXPERIMENT, scheduler="successive_halving", rungs=(960,), reduction_factor=2.0)
THIRDS = replace(HALVES, reduction_factor=3.0)
TWO_RUNGS = replace(THIRDS, rungs=(960, 1_440))


@pytest.fixture
def arrive(history: Callable[..., Any]) -> Callable[..., list[str]]:
    """The decisions on trials that reach the first rung one after the other with these scores."""

    def decisions_on(experiment: Experiment, scores: list[float]) -> list[str]:
        study = history(experiment)
        decisions = []
        for score in scores:
            number = study.propose()
            study.validate(number, 20.0, score)
            decisions.append(decide(study.state, experiment, number).name)
        return decisions

    return decisions_on


def test_the_first_at_a_rung_continues(arrive: Callable[..., list[str]]) -> None:
    assert arrive(THIRDS, [25.0]) == ["CONTINUE"]


def test_half_of_those_that_have_arrived_continue_rounded_up(arrive: Callable[..., list[str]]) -> None:
    # Places: 1, 1, 2, 2, 3, 3 of 1 … 6 that have arrived.
    assert arrive(HALVES, [25.0, 24.0, 24.5, 24.2, 24.4, 30.0]) == [
        "CONTINUE",  # first of 1
        "STOP",  # second of 2, one place
        "CONTINUE",  # second of 3, two places
        "STOP",  # third of 4, two places
        "CONTINUE",  # third of 5, three places
        "CONTINUE",  # first of 6
    ]


def test_a_third_continues_rounded_up(arrive: Callable[..., list[str]]) -> None:
    # Places: 1, 1, 1, 2, 2, 2, 3.
    assert arrive(THIRDS, [25.0, 24.0, 23.0, 24.5, 24.4, 26.0, 24.9]) == [
        "CONTINUE",
        "STOP",
        "STOP",
        "CONTINUE",  # second of 4, two places
        "STOP",  # third of 5, two places
        "CONTINUE",
        "CONTINUE",  # third of 7, three places
    ]


def test_every_better_one_continues_and_every_worse_one_stops_after_the_first(arrive: Callable[..., list[str]]) -> None:
    assert set(arrive(THIRDS, [20.0 + i for i in range(12)])) == {"CONTINUE"}
    assert arrive(HALVES, [30.0 - i for i in range(12)]) == ["CONTINUE"] + ["STOP"] * 11


def test_equal_scores_are_not_better(arrive: Callable[..., list[str]]) -> None:
    assert set(arrive(THIRDS, [25.0] * 8)) == {"CONTINUE"}


@pytest.mark.parametrize("validations", [1, 3, 4])
def test_between_the_rungs_and_at_the_end_every_trial_continues(history: Callable[..., Any], validations: int) -> None:
    study = history(HALVES)
    good, bad = study.propose(), study.propose()
    study.validate(good, *[30.0] * validations)
    study.validate(bad, *[10.0] * validations)
    assert decide(study.state, HALVES, bad) is Decision.CONTINUE


def test_only_the_score_at_the_rung_counts(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    late, early = study.propose(), study.propose()
    study.validate(late, 20.0, 24.0, 28.0, 32.0)
    study.validate(early, 26.0, 25.0)
    assert decide(study.state, HALVES, early) is Decision.CONTINUE
    study.validate(third := study.propose(), 40.0, 23.0)
    assert decide(study.state, HALVES, third) is Decision.STOP


def test_each_rung_has_places_of_its_own(history: Callable[..., Any]) -> None:
    study = history(TWO_RUNGS)
    one, other = study.propose(), study.propose()
    study.validate(one, 20.0, 25.0, 26.0)
    study.validate(other, 20.0, 27.0)
    assert decide(study.state, TWO_RUNGS, other) is Decision.CONTINUE
    study.validate(other, 25.9)
    assert decide(study.state, TWO_RUNGS, other) is Decision.STOP


def test_pruned_and_failed_trials_that_reached_the_rung_are_still_compared_with(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for how in ("pruned", "failed"):
        number = study.propose()
        study.validate(number, 20.0, 30.0)
        study.end(number, how)
    study.validate(latest := study.propose(), 20.0, 29.0)
    assert decide(study.state, HALVES, latest) is Decision.STOP


def test_trials_that_have_not_reached_the_rung_take_no_place(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for _ in range(5):
        study.validate(study.propose(), 40.0)
    study.validate(latest := study.propose(), 20.0, 21.0)
    assert decide(study.state, HALVES, latest) is Decision.CONTINUE


def test_references_are_never_pruned(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    study.validate(study.propose(), 30.0, 30.0)
    study.validate(reference := study.propose(reference="authors"), 10.0, 10.0)
    assert decide(study.state, HALVES, reference) is Decision.CONTINUE


def test_references_take_no_place_from_others(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for name in ("authors", "blog"):
        study.validate(study.propose(reference=name), 40.0, 40.0)
    study.validate(first := study.propose(), 20.0, 20.0)
    assert decide(study.state, HALVES, first) is Decision.CONTINUE
    study.validate(second := study.propose(), 19.0, 19.0)
    assert decide(study.state, HALVES, second) is Decision.STOP


def test_without_pruning_every_trial_continues(history: Callable[..., Any]) -> None:
    patient = replace(HALVES, scheduler="none")
    study = history(patient)
    for score in (30.0, 20.0, 10.0):
        study.validate(number := study.propose(), score, score)
        assert decide(study.state, patient, number) is Decision.CONTINUE


# Pause and promote

ASHA = replace(THIRDS, scheduler="asha", rungs=(960, 1_440))


def at_rung(study: Any, *scores: float) -> list[int]:
    """New trials that reach the first rung with these scores; each pauses if that is the decision."""
    numbers = []
    for score in scores:
        number = study.propose()
        study.start(number)
        study.validate(number, 20.0, score)
        if decide(study.state, ASHA, number) is Decision.PAUSE:
            study.pause(number)
        numbers.append(number)
    return numbers


def test_no_trial_continues_before_enough_have_arrived_for_one_place(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 24.0)
    assert [t.status for t in study.state.trials.values()] == ["paused", "paused"]
    assert promotable(study.state, ASHA) is None
    assert study.state.counted == 2


def test_the_best_paused_trial_is_promoted_when_there_is_a_place(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 26.0, 24.0)
    assert promotable(study.state, ASHA) == 1
    study.resume(1)
    assert promotable(study.state, ASHA) is None
    assert study.state.counted == 2
    at_rung(study, 20.0, 20.0, 20.0)
    assert promotable(study.state, ASHA) == 0


def test_a_trial_that_arrives_among_the_best_continues_at_once(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 24.0, 30.0)
    assert study.state.trials[2].status == "running"
    assert promotable(study.state, ASHA) is None  # the place is taken


def test_the_higher_rung_is_served_first(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    for number in at_rung(study, *[30.0 + i for i in range(9)]):
        if study.state.trials[number].status == "running":
            study.validate(number, 31.0 - number)
            study.pause(number)
    assert [t.patches for t in study.state.trials.values()].count(1_440) >= 3
    best_above = min(n for n, t in study.state.trials.items() if t.patches == 1_440)
    assert promotable(study.state, ASHA) == best_above


def test_a_promoted_trial_is_not_paused_again_at_the_rung_it_left(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 26.0, 24.0)
    study.resume(1)
    at_rung(study, 29.0, 28.0, 27.0)  # by now it would not be among the best
    assert decide(study.state, ASHA, 1) is Decision.CONTINUE


def test_a_decision_does_not_depend_on_what_came_after_it(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    numbers = []
    for score in (25.0, 24.0, 30.0, 28.0, 27.0, 29.0):
        number = study.propose()
        study.validate(number, 20.0, score)
        numbers.append((number, decide(study.state, ASHA, number)))
    assert [decide(study.state, ASHA, number) for number, _ in numbers] == [decision for _, decision in numbers]


def test_with_no_trial_to_come_the_share_is_rounded_up(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 24.0)
    assert promotable(study.state, ASHA, last=True) == 0
    study.resume(0)
    assert promotable(study.state, ASHA, last=True) is None


def test_references_neither_pause_nor_take_a_place(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    for name in ("authors", "blog"):
        study.validate(number := study.propose(reference=name), 10.0, 10.0)
        assert decide(study.state, ASHA, number) is Decision.CONTINUE
    at_rung(study, 25.0)
    assert study.state.trials[2].status == "paused"


def test_trials_that_cannot_be_promoted_any_more_are_named(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 26.0, 24.0)
    # 6 trials in all have two places, so the third of three cannot get one.
    assert hopeless(study.state, ASHA, asked=6) == [2]
    assert hopeless(study.state, ASHA, asked=9) == []
    assert hopeless(study.state, ASHA, asked=3) == [0, 2]


def test_running_trials_and_those_still_to_be_proposed_may_take_the_worse_places(history: Callable[..., Any]) -> None:
    study = history(ASHA)
    at_rung(study, 25.0, 26.0, 24.0)
    study.start(study.propose())  # running: may arrive as the worst of four
    assert hopeless(study.state, ASHA, asked=4) == [2]
    for _ in range(3):
        study.start(study.propose())
    assert hopeless(study.state, ASHA, asked=7) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_in_the_end_the_best_share_of_a_rung_has_continued(history: Callable[..., Any], seed: int, factor: int) -> None:
    """In any order of arrival, the trials that a synchronous comparison would choose have been promoted in the end."""
    experiment = replace(ASHA, reduction_factor=float(factor), rungs=(960,))
    study = history(experiment)
    order = random.Random(seed).sample(range(18), 18)
    for score in order:
        number = study.propose()
        study.start(number)
        study.validate(number, 20.0, 20.0 + score)
        if decide(study.state, experiment, number) is Decision.PAUSE:
            study.pause(number)
        while (promoted := promotable(study.state, experiment)) is not None:
            assert promoted not in hopeless(study.state, experiment, asked=18)
            study.resume(promoted)
    continued = {order[n] for n, t in study.state.trials.items() if t.status != "paused"}
    assert set(range(18 - 18 // factor, 18)) <= continued
