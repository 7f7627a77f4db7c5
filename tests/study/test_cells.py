"""Configurations by number: each one once, and the nearest first, without a list of all of them."""

import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, product
from typing import Any

import pytest

from sr_core.errors import ConfigError
from study.question import space
from study.question.config import TrialConfig, short_digest
from study.question.experiment import Experiment, load_experiment
from study.question.space import Choice, Grid, Int, build_space
from study.search import cells, sampler
from study.search.cells import Cells, digits, shuffled
from study.search.sampler import propose
from study.statistics import roles

BASE = TrialConfig()
NUISANCE: Any = {
    "train.loss": Choice("l1", "l2", "charbonnier"),
    "model.reduction": Grid(2, 4, 8, 10),
    "model.n_blocks": Int(1, 3),
}
SMALL = Experiment(question="?", base=BASE, nuisance=NUISANCE, rungs=(960,))
ARMS = Experiment(
    question="?", base=BASE, scientific={"train.loss": Choice("l1", "l2", "charbonnier")}, rungs=(960,),
    nuisance={"model.reduction": Grid(2, 4, 8, 10), "model.n_blocks": Int(1, 3)},
)  # fmt: skip
HUGE_FILE = """
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Choice, Grid


def nine(low, high):
    return Grid(*(round(low + (high - low) * i / 8, 6) for i in range(9)))


EXPERIMENT = Experiment(
    question="Which of 43 million?",
    base=TrialConfig(),
    nuisance={
        "model.temperature": nine(0.1, 30.0),
        "train.learning_rate": nine(1e-4, 1e-2),
        "train.adam_beta1": nine(0.5, 0.95),
        "train.adam_beta2": nine(0.9, 0.9999),
        "train.adam_eps": nine(1e-5, 1e-3),
        "train.step_factor": nine(0.1, 0.9),
        "train.step_interval": nine(0.05, 0.5),
        "train.loss": Choice("l1", "l2", "charbonnier"),
        "data.train_kernel": Choice("matlab_bicubic", "pillow_bicubic", "pillow_lanczos"),
    },
    rungs=(960,),
)
"""


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats every space as so large that its order is computed."""
    monkeypatch.setattr(cells, "MAX_LISTED", 1)
    monkeypatch.setattr(sampler, "MAX_LISTED", 1)
    monkeypatch.setattr(sampler, "MAX_GP_CONFIGURATIONS", 1)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = tmp_path_factory.mktemp("huge") / "huge.py"
    path.write_text(HUGE_FILE)
    return load_experiment(str(path))[1]


def key(point: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(point.values())


def differing(one: dict[str, Any], other: dict[str, Any]) -> int:
    return sum(one[name] != other[name] for name in one)


# The order


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 16, 17, 100, 1023, 1024, 1025])
def test_an_order_that_is_computed_has_every_number_once(count: int, large: None) -> None:
    assert sorted(shuffled(count, 7)) == list(range(count))


def test_an_order_of_few_numbers_is_that_of_a_shuffled_list() -> None:
    listed = list(range(500))
    random.Random(3).shuffle(listed)
    assert list(shuffled(500, 3)) == listed


def test_another_seed_gives_another_order(large: None) -> None:
    assert list(islice(shuffled(10**9, 1), 50)) == list(islice(shuffled(10**9, 1), 50))
    assert list(islice(shuffled(10**9, 1), 50)) != list(islice(shuffled(10**9, 2), 50))


def test_a_part_of_an_order_that_is_computed_is_a_fair_sample(large: None) -> None:
    part = list(islice(shuffled(3 * 10**6, 5), 3_000))
    for third in range(3):  # 1,000 ± 26 of a random sample
        assert abs(sum(n // 10**6 == third for n in part) - 1_000) < 4 * 26
        assert abs(sum(n % 3 == third for n in part) - 1_000) < 4 * 26


def test_digits_count_as_cells_do() -> None:
    assert [digits(n, (2, 3, 2)) for n in range(12)] == [list(d) for d in product(range(2), range(3), range(2))]


def test_the_order_has_every_cell_of_the_arm_and_no_other(large: None) -> None:
    points = list(Cells(ARMS.space, {"train.loss": "l2"}).in_order(4))
    assert {key(point) for point in points} == {key(c) for c in ARMS.space.cells() if c["train.loss"] == "l2"}
    assert len(points) == 12


# The nearest


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_come_first_and_every_cell_comes_once(seed: int, large: None) -> None:
    wanted = {"train.loss": "l2", "model.reduction": 4, "model.n_blocks": 3}
    points = list(Cells(SMALL.space, {}).nearest_first(wanted, seed))
    distances = [differing(point, wanted) for point in points]
    assert distances == sorted(distances)
    assert {key(point) for point in points} == {key(c) for c in SMALL.space.cells()}
    assert len(points) == SMALL.space.size == 36


def test_ties_between_the_nearest_are_broken_by_the_seed(large: None) -> None:
    wanted = {"train.loss": "l2", "model.reduction": 4, "model.n_blocks": 3}
    second = [key(list(islice(Cells(SMALL.space, {}).nearest_first(wanted, seed), 2))[1]) for seed in range(40)]
    assert len(set(second)) == 2 + 3 + 2


def test_the_nearest_in_a_space_of_10_to_the_18_needs_no_list() -> None:
    wide = build_space(BASE, {}, {"model.n_blocks": Int(1, 10**9), "data.subimage_step": Int(1, 10**9)})
    wanted = {"model.n_blocks": 5, "data.subimage_step": 10**9}
    points = list(islice(Cells(wide, {}).nearest_first(wanted, 1), 100))
    assert points[0] == wanted
    assert {differing(point, wanted) for point in points[1:]} == {1}


# Proposals


@pytest.mark.parametrize("name", ["tpe", "gp", "random", "qmc", "grid"])
@pytest.mark.parametrize("asked", [SMALL, ARMS])
def test_without_a_list_too_every_cell_is_proposed_once_then_there_is_none(
    history: Callable[..., Any], large: None, monkeypatch: pytest.MonkeyPatch, asked: Experiment, name: str
) -> None:
    monkeypatch.setattr(sampler, "MAX_SOBOL_BLOCKS", 0)  # what comes after the sequence, too
    study = history(replace(asked, sampler=name))
    tried = []
    while (point := propose(study.state, study.experiment, len(study.state.trials))) is not None:
        study.propose(study.experiment.space.settings(point))
        tried.append(key(point))
    assert sorted(map(str, tried)) == sorted(str(key(cell)) for cell in asked.space.cells())


def test_without_a_list_too_a_repeat_becomes_one_of_the_nearest_that_are_left(
    history: Callable[..., Any], large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"train.loss": "l1", "model.reduction": 4, "model.n_blocks": 2}
    monkeypatch.setattr(sampler._StudyForSampler, "ask", lambda self, seed: dict(wanted))
    study = history(replace(SMALL, sampler="random"))
    while (point := propose(study.state, study.experiment, len(study.state.trials))) is not None:
        left = [c for c in SMALL.space.cells() if SMALL.space.settings(c) not in _tried(study)]
        assert differing(point, wanted) == min(differing(cell, wanted) for cell in left)
        study.propose(SMALL.space.settings(point))
    assert len(study.state.trials) == 36


def _tried(study: Any) -> list[dict[str, Any]]:
    return [dict(trial.proposed.values) for trial in study.state.trials.values()]


@pytest.mark.parametrize(
    ("name", "digest"),
    [("grid", "4ba08ac932296bff"), ("qmc", "f8a4e73b6e15e0a9"), ("random", "ed27ba196fd4720d")],
)
def test_the_quickstart_s_proposals_are_those_of_every_version_before(
    history: Callable[..., Any], name: str, digest: str
) -> None:
    """The digests are of version 0.1.0: a study that was started with it continues with the same configurations."""
    experiment = replace(load_experiment("quickstart")[1], sampler=name)
    study = history(experiment)
    proposals: list[dict[str, Any]] = []
    for number in range(20):
        point = propose(study.state, experiment, number)
        assert point is not None
        proposals.append(experiment.space.settings(point))
        study.propose(proposals[-1])
    assert short_digest(proposals) == digest


def test_the_nearest_untried_configurations_are_those_of_every_version_before(
    history: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"train.loss": "l1", "model.reduction": 4, "model.n_blocks": 2}
    monkeypatch.setattr(sampler._StudyForSampler, "ask", lambda self, seed: dict(wanted))
    study = history(replace(SMALL, sampler="random"))
    points = []
    while (point := propose(study.state, study.experiment, len(study.state.trials))) is not None:
        study.propose(SMALL.space.settings(point))
        points.append(point)
    assert short_digest(points) == "eba8ce183601645f"


@pytest.mark.parametrize("name", ["grid", "random", "qmc", "tpe"])
def test_of_43_million_configurations_one_is_proposed_in_little_time_and_memory(
    history: Callable[..., Any], huge: Experiment, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert huge.space.size == 43_046_721
    study = history(replace(huge, sampler=name))
    for _ in range(7):
        study.try_out(huge.space.settings(propose(study.state, study.experiment, len(study.state.trials))), 30.0)
    tried = next(iter(study.state.trials.values())).proposed.values
    tracemalloc.start()
    started = time.process_time()
    assert propose(study.state, study.experiment, 7) is not None
    monkeypatch.setattr(sampler._StudyForSampler, "ask", lambda self, seed: dict(tried))
    assert propose(study.state, study.experiment, 7) is not None
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 3  # it is 0.1; a list takes minutes, and 8 GB
    assert peak < 100e6


def test_a_great_number_of_arms_take_turns_without_a_list(history: Callable[..., Any]) -> None:
    experiment = Experiment(
        question="?", base=BASE, rungs=(960,), sampler="random", nuisance={"train.loss": Choice("l1", "l2")},
        scientific={
            "data.subimage_step": Grid(*range(1, 41)),
            "train.adam_eps": Grid(*(i * 1e-9 for i in range(1, 41))),
        },
    )  # fmt: skip
    study = history(experiment)
    for _ in range(3):
        study.try_out(propose(study.state, experiment, len(study.state.trials)), 30.0)
    assert [trial.proposed.values["data.subimage_step"] for trial in study.state.trials.values()] == [1, 1, 1]
    assert len({trial.proposed.values["train.adam_eps"] for trial in study.state.trials.values()}) == 3
    assert len(roles.arms(study.state, experiment)) == 3


# Loading


def test_up_to_five_thousand_combinations_all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(space, "_check_point", lambda base, point: tried.append(tuple(point.items())))
    build_space(BASE, {}, NUISANCE)
    assert len(tried) == (3 + 4 + 3) + (12 + 9 + 12) + 36
    assert len(set(tried)) == len(tried)


def test_of_more_combinations_the_same_part_is_tried(monkeypatch: pytest.MonkeyPatch, huge: Experiment) -> None:
    times: list[list[Any]] = [[], []]
    for tried in times:
        monkeypatch.setattr(space, "_check_point", lambda base, point, to=tried: to.append(tuple(point.values())))
        build_space(BASE, {}, {d.label: d.range for d in huge.space.dimensions})
    assert times[0] == times[1]
    assert 5_000 < len(times[0]) < 10_500


def test_if_only_a_part_is_tried_it_includes_the_ends_of_a_rule(huge: Experiment) -> None:
    """A reduction of 30 is legal with 30 features and more: one of nine million combinations breaks the rule."""
    many: Any = {d.label: d.range for d in huge.space.dimensions}
    more = {"model.n_feats": Grid(*range(30, 60)), "model.reduction": Grid(*range(2, 32))}
    with pytest.raises(
        ConfigError, match=r"model\.n_feats = 30, model\.reduction = 31: model\.reduction must be at mo"
    ):
        build_space(BASE, {}, many | more)
