"""Who goes on at a rung, by scores made by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.experiment import Experiment
from study.scheduler import Verdict, decide

HALVES = replace(EXPERIMENT, reduction_factor=2.0)  # validations at 480, 960 (the rung), 1440, 1920
THIRDS = replace(EXPERIMENT, reduction_factor=3.0)
TWO_RUNGS = replace(THIRDS, rungs=(960, 1_440))


@pytest.fixture
def arrive(history: Callable[..., Any]) -> Callable[..., list[str]]:
    """Verdicts over trials that reach the first rung one after the other with these scores."""

    def verdicts(experiment: Experiment, scores: list[float]) -> list[str]:
        study, told = history(experiment), []
        for score in scores:
            number = study.propose()
            study.validate(number, 20.0, score)
            told.append(decide(study.state, experiment, number).name)
        return told

    return verdicts


def test_the_first_at_a_rung_goes_on(arrive: Callable[..., list[str]]) -> None:
    assert arrive(THIRDS, [25.0]) == ["CONTINUE"]


def test_half_of_those_that_have_come_by_now_go_on_rounded_up(arrive: Callable[..., list[str]]) -> None:
    # Places: 1, 1, 2, 2, 3, 3 of 1 … 6 that have come.
    assert arrive(HALVES, [25.0, 24.0, 24.5, 24.2, 24.4, 30.0]) == [
        "CONTINUE",  # first of 1
        "STOP",  # second of 2, one place
        "CONTINUE",  # second of 3, two places
        "STOP",  # third of 4, two places
        "CONTINUE",  # third of 5, three places
        "CONTINUE",  # first of 6
    ]


def test_a_third_goes_on_rounded_up(arrive: Callable[..., list[str]]) -> None:
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


def test_every_better_one_goes_on_and_every_worse_one_stops_after_the_first(arrive: Callable[..., list[str]]) -> None:
    assert set(arrive(THIRDS, [20.0 + i for i in range(12)])) == {"CONTINUE"}
    assert arrive(HALVES, [30.0 - i for i in range(12)]) == ["CONTINUE"] + ["STOP"] * 11


def test_equal_scores_are_not_better(arrive: Callable[..., list[str]]) -> None:
    assert set(arrive(THIRDS, [25.0] * 8)) == {"CONTINUE"}


@pytest.mark.parametrize("validations", [1, 3, 4])
def test_between_the_rungs_and_at_the_end_everyone_goes_on(history: Callable[..., Any], validations: int) -> None:
    study = history(HALVES)
    good, bad = study.propose(), study.propose()
    study.validate(good, *[30.0] * validations)
    study.validate(bad, *[10.0] * validations)
    assert decide(study.state, HALVES, bad) is Verdict.CONTINUE


def test_only_the_score_at_the_rung_has_a_say(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    late, early = study.propose(), study.propose()
    study.validate(late, 20.0, 24.0, 28.0, 32.0)
    study.validate(early, 26.0, 25.0)
    assert decide(study.state, HALVES, early) is Verdict.CONTINUE
    study.validate(third := study.propose(), 40.0, 23.0)
    assert decide(study.state, HALVES, third) is Verdict.STOP


def test_each_rung_has_places_of_its_own(history: Callable[..., Any]) -> None:
    study = history(TWO_RUNGS)
    one, other = study.propose(), study.propose()
    study.validate(one, 20.0, 25.0, 26.0)
    study.validate(other, 20.0, 27.0)
    assert decide(study.state, TWO_RUNGS, other) is Verdict.CONTINUE
    study.validate(other, 25.9)
    assert decide(study.state, TWO_RUNGS, other) is Verdict.STOP


def test_pruned_and_failed_trials_that_reached_the_rung_are_still_compared_with(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for how in ("pruned", "failed"):
        number = study.propose()
        study.validate(number, 20.0, 30.0)
        study.end(number, how)
    study.validate(latest := study.propose(), 20.0, 29.0)
    assert decide(study.state, HALVES, latest) is Verdict.STOP


def test_trials_that_have_not_come_to_the_rung_take_no_place(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for _ in range(5):
        study.validate(study.propose(), 40.0)
    study.validate(latest := study.propose(), 20.0, 21.0)
    assert decide(study.state, HALVES, latest) is Verdict.CONTINUE


def test_references_are_never_pruned(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    study.validate(study.propose(), 30.0, 30.0)
    study.validate(reference := study.propose(reference="authors"), 10.0, 10.0)
    assert decide(study.state, HALVES, reference) is Verdict.CONTINUE


def test_references_take_no_place_from_others(history: Callable[..., Any]) -> None:
    study = history(HALVES)
    for name in ("authors", "blog"):
        study.validate(study.propose(reference=name), 40.0, 40.0)
    study.validate(first := study.propose(), 20.0, 20.0)
    assert decide(study.state, HALVES, first) is Verdict.CONTINUE
    study.validate(second := study.propose(), 19.0, 19.0)
    assert decide(study.state, HALVES, second) is Verdict.STOP


def test_without_pruning_everyone_goes_on(history: Callable[..., Any]) -> None:
    patient = replace(HALVES, scheduler="none")
    study = history(patient)
    for score in (30.0, 20.0, 10.0):
        study.validate(number := study.propose(), score, score)
        assert decide(study.state, patient, number) is Verdict.CONTINUE
