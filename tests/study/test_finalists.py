"""Which settings are retrained, with which seeds, and which one is the winner then."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from sr_core.errors import ConfigError
from sr_core.seed import child_seed
from study.search.replicates import due, finalists, trial_seed
from study.search.scheduler import Decision, decide

TWO = replace(EXPERIMENT, scheduler="successive_halving", reduction_factor=2.0, finalists=2, replicates=2)
TEMPERATURES = (0.1, 0.3, 1.0, 3.0)


@pytest.fixture
def searched(history: Callable[..., Any]) -> Callable[..., Any]:
    """A finished search: both references, then trials with these scores; the last one is pruned."""

    def make(experiment: Any = TWO, scores: tuple[float, ...] = (30.0, 31.0, 29.0, 35.0)) -> Any:
        study = history(experiment)
        for name in experiment.references:
            number = study.propose(reference=name)
            study.start(number)
            study.validate(number, *[28.0] * 4)
            study.end(number)
        for temperature, score in zip(TEMPERATURES, scores, strict=True):
            how = "pruned" if score is scores[-1] else "finished"
            study.try_out({"model.temperature": temperature}, score, how)
        return study

    return make


def replicate_all(study: Any, score: Callable[[int, int], float | None]) -> list[tuple[str, int]]:
    """Trains every replicate that is due; a score of None fails. Returns (name, seed) in order."""
    order = []
    while (replicate := due(study.state, study.experiment)) is not None:
        order.append((replicate.name, replicate.number))
        study.replicate(replicate, score(replicate.of.number, replicate.number))
    return order


def test_finalists_are_the_best_that_finished_and_the_references(searched: Callable[..., Any]) -> None:
    named = finalists(searched().state)
    assert {name: trial.number for name, trial in named.items()} == {
        "finalist 1": 3,
        "finalist 2": 2,
        "authors": 0,
        "blog": 1,
    }


def test_replicates_come_seed_by_seed_then_there_is_none(searched: Callable[..., Any]) -> None:
    order = replicate_all(searched(), lambda trial, seed: 30.0)
    names = ["finalist 1", "finalist 2", "authors", "blog"]
    assert order == [(name, seed) for seed in (1, 2) for name in names]


def test_a_replicate_that_failed_is_not_repeated(searched: Callable[..., Any]) -> None:
    order = replicate_all(searched(), lambda trial, seed: None)
    assert len(order) == 8


def test_a_reference_that_failed_is_not_replicated(history: Callable[..., Any]) -> None:
    study = history(TWO)
    study.end(study.propose(reference="authors"), "failed")
    study.try_out({"model.temperature": 0.3}, 30.0)
    assert list(finalists(study.state)) == ["finalist 1"]


def test_without_a_candidate_nothing_is_due(history: Callable[..., Any]) -> None:
    study = history(TWO)
    number = study.propose(reference="blog")
    study.validate(number, *[28.0] * 4)
    study.end(number)
    assert due(study.state, TWO) is None


def test_all_finalists_have_the_same_seeds_and_none_is_the_search_s() -> None:
    assert trial_seed(7) == child_seed(7, "trial")
    assert trial_seed(7, 2) == child_seed(7, "replicate", 2)
    assert len({trial_seed(7, j) for j in range(5)}) == 5


def test_replicates_are_neither_counted_nor_ranked_nor_pruned(searched: Callable[..., Any]) -> None:
    study = searched()
    counted = study.state.counted
    ranking = [t.number for t in study.state.ranking()]
    replicate_all(study, lambda trial, seed: 40.0 + trial)
    assert (study.state.counted, [t.number for t in study.state.ranking()]) == (counted, ranking)
    assert study.state.replicated == 8
    late = study.propose({"model.temperature": 10.0})
    study.validate(late, 20.0, 34.0)  # below every replicate's score at the rung, second of the search's
    assert decide(study.state, TWO, late) is Decision.CONTINUE


def test_one_finalist_stays_the_winner_whatever_its_replicates_show(searched: Callable[..., Any]) -> None:
    study = searched(replace(TWO, finalists=1))
    replicate_all(study, lambda trial, seed: 10.0)
    assert study.state.best().number == 3


def test_of_several_finalists_the_best_mean_wins_once_all_are_judged(searched: Callable[..., Any]) -> None:
    study = searched()
    assert study.state.best().number == 3
    means = {3: 30.0, 2: 30.5, 0: 50.0, 1: 50.0}
    for _ in range(6):
        study.replicate(replicate := due(study.state, TWO), means[replicate.of.number])
    assert study.state.best().number == 2  # both candidates have both seeds; the references are still to come
    replicate_all(study, lambda trial, seed: means[trial])
    assert study.state.best().number == 2


def test_before_the_last_replicate_of_a_candidate_the_ranking_decides(searched: Callable[..., Any]) -> None:
    study = searched()
    for _ in range(5):
        study.replicate(replicate := due(study.state, TWO), 30.0 + (replicate.of.number == 2))
    assert study.state.best().number == 3


def test_a_finalist_that_failed_once_cannot_be_chosen(searched: Callable[..., Any]) -> None:
    study = searched()
    replicate_all(study, lambda trial, seed: None if (trial, seed) == (2, 2) else 30.0 + (trial == 2))
    assert study.state.best().number == 3


def test_a_search_that_continued_needs_replicates_of_its_new_winner(searched: Callable[..., Any]) -> None:
    study = searched()
    replicate_all(study, lambda trial, seed: 30.0)
    new = study.try_out({"model.temperature": 30.0}, 33.0)
    assert [(r.of.number, r.number) for r in [due(study.state, TWO)]] == [(new, 1)]
    assert replicate_all(study, lambda trial, seed: 30.0) == [("finalist 1", 1), ("finalist 1", 2)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"finalists": 0}, "finalists must be at least 1, got 0"),
        ({"replicates": 1}, r"replicates must be 0 \(no verdict\) or at least 2"),
        ({"replicates": -1}, "replicates must be 0"),
    ],
)
def test_counts_that_allow_no_verdict_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(EXPERIMENT, **values)
