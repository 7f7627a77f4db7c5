"""Searches simulated on curves that are known in every cell."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.quickstart import EXPERIMENT
from sr_core.errors import SuiteError
from study.question.experiment import load_experiment
from study.question.space import Choice, Grid
from study.search.economy import EconomyPlan, compare_samplers, summarise
from study.search.simulation import Course, Table, complete, read, record, simulate, text, write

LOSSES, TEMPERATURES, REDUCTIONS = ("l1", "l2", "charbonnier"), (0.1, 1.0, 10.0, 100.0), (2, 4, 8)
GRID = replace(
    EXPERIMENT,
    nuisance={
        "train.loss": Choice(*LOSSES),
        "model.temperature": Grid(*TEMPERATURES),
        "model.reduction": Grid(*REDUCTIONS),
    },
    references={},
    rungs=(480, 960),
    reduction_factor=3.0,
)


def curve(loss: str, temperature: float, reduction: int) -> tuple[float, ...]:
    """A curve that is higher the later the values stand in their lists. No two curves cross."""
    end = 30 + 0.3 * LOSSES.index(loss) + 0.1 * TEMPERATURES.index(temperature) + 0.03 * REDUCTIONS.index(reduction)
    return tuple(end - gap for gap in (1.0, 0.5, 0.2, 0.0))


def full_table(seeds: tuple[int, ...] = (1, 2)) -> Table:
    cells = [(a, b, c) for a in LOSSES for b in TEMPERATURES for c in REDUCTIONS]
    seed_curves = {tuple(map(text, cell)): curve(*cell) for cell in cells}
    return Table(("train.loss", "model.temperature", "model.reduction"), 480, dict.fromkeys(seeds, seed_curves))


def test_without_pruning_every_trial_costs_the_full_budget() -> None:
    course = simulate(replace(GRID, scheduler="none", sampler="random"), full_table(), seed=1, trials=10)
    assert course.spent == tuple(1_920 * (i + 1) for i in range(10))
    assert course.trials == 10
    assert list(course.gap) == sorted(course.gap, reverse=True)


def test_a_complete_grid_finds_the_best_and_ends_without_regret() -> None:
    course = simulate(replace(GRID, scheduler="none", sampler="grid"), full_table(), seed=3, trials=100)
    assert course.trials == 36
    assert course.regret[-1] == course.gap[-1] == 0.0
    assert course.patches_to(0.0) <= 36 * 1_920


@pytest.mark.parametrize("scheduler", ["successive_halving", "asha"])
def test_halving_on_curves_that_never_cross_finds_the_best_for_less(scheduler: str) -> None:
    whole = replace(GRID, sampler="random")
    halved = simulate(replace(whole, scheduler=scheduler), full_table(), seed=5, trials=36)
    patient = simulate(replace(whole, scheduler="none"), full_table(), seed=5, trials=36)
    assert halved.regret[-1] == patient.regret[-1] == 0.0
    assert halved.spent[-1] < 0.7 * patient.spent[-1]


def test_a_paused_trial_resumes_where_it_was_and_its_patches_count_once() -> None:
    course = simulate(replace(GRID, sampler="grid", scheduler="asha"), full_table(), seed=2, trials=36)
    # All 36 to the first rung, at least 12 of them to the second, at least 4 of those to the end.
    assert course.trials == 36
    assert len(course.spent) >= 4
    assert course.spent[-1] >= 36 * 480 + 12 * 480 + 4 * 960
    assert course.spent[-1] <= 36 * 480 + len(course.spent) * 1_440 + 36 * 480


def test_a_search_ends_at_its_goal() -> None:
    course = simulate(replace(GRID, scheduler="none", sampler="random"), full_table(), seed=4, trials=36, goal=0.2)
    assert course.gap[-1] <= 0.2
    assert all(gap > 0.2 for gap in course.gap[:-1])
    assert course.patches_to(0.2) == course.spent[-1]
    assert course.patches_to(-1.0) == math.inf


def test_the_same_seed_gives_the_same_course_and_another_another() -> None:
    tpe = replace(GRID, sampler="tpe", scheduler="asha")
    one = simulate(tpe, full_table(), seed=1, trials=20)
    assert one == simulate(tpe, full_table(), seed=1, trials=20)
    assert one != simulate(tpe, full_table(), seed=3, trials=20)


def test_the_truth_is_the_mean_over_seeds_and_a_search_sees_one_of_them() -> None:
    table = full_table()
    better = {key: tuple(s + 0.5 for s in c) for key, c in table.curves[2].items()}
    assert replace(table, curves={1: table.curves[1], 2: better}).truth[("l1", "0.1", "2")] == pytest.approx(30.25)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table = full_table()
    (tmp_path / "curves.csv").write_text(write(table))
    again = read(tmp_path / "curves.csv")
    assert (again.names, again.every) == (table.names, table.every)
    for seed, seed_curves in table.curves.items():
        for key, points in seed_curves.items():
            assert again.curves[seed][key] == pytest.approx(points)


@pytest.mark.parametrize("content", ["", "seed,a\n1,2\n", "not a table"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "curves.csv").write_text(content)
    with pytest.raises(SuiteError, match=r"expected a table of curves"):
        read(tmp_path / "curves.csv")


def test_a_study_s_curves_become_a_table(history: Callable[..., Any]) -> None:
    study = history(GRID)
    values = {"train.loss": "l2", "model.temperature": 1.0, "model.reduction": 4}
    study.try_out(values, 31.0)
    study.try_out(values | {"model.reduction": 8}, 30.0, "pruned")
    table = record([study.state])
    assert table.names == ("train.loss", "model.temperature", "model.reduction")
    assert table.curves == {1: {("l2", "1", "4"): (31.0,) * 4}}
    with pytest.raises(SuiteError, match="no curves to replay"):
        record([history(GRID).state])


def test_missing_curves_come_from_a_model_fitted_to_the_recorded_ones() -> None:
    table = full_table((1,))
    recorded = dict(sorted(table.curves[1].items())[::2])
    filled = complete(replace(table, curves={1: recorded}), GRID.space).curves[1]
    assert filled.keys() == table.curves[1].keys()
    assert all(filled[key] == points for key, points in recorded.items())
    # The true function is a sum of one effect for each value, so the model is exact except for the ridge penalty.
    missing = [key for key in filled if key not in recorded]
    errors = [abs(filled[key][-1] - table.curves[1][key][-1]) for key in missing]
    assert np.mean(errors) < 0.12


def test_curves_of_another_space_are_refused() -> None:
    with pytest.raises(SuiteError, match=r"curves over model\.n_blocks cannot be used for a space of train\.loss"):
        complete(Table(("model.n_blocks",), 480, {1: {("2",): (30.0,)}}), GRID.space)


def test_a_complete_table_stays_as_it_is() -> None:
    table = full_table()
    assert complete(table, GRID.space) is table


def test_a_row_by_hand() -> None:
    reached = Course((100, 200, 300), (0.5, 0.1, 0.1), (0.5, 0.1, 0.01), 5)
    missed = Course((400,), (0.3,), (0.3,), 5)
    row = summarise("tpe", "asha", [reached, reached, missed], goal=0.02)
    assert (row.to_goal[0], row.reached, row.full, row.trials) == (300.0, 2 / 3, 7 / 3, 5.0)
    assert row.regret[0] == pytest.approx(0.5 / 3)
    assert row.to_goal[1] <= 300.0 <= row.to_goal[2]
    assert "300 (" in row.line(None)
    assert ", 1.00 h" in row.line(300 / 3600)
    assert "never (never to never)" in summarise("tpe", "asha", [missed], goal=0.02).line(1.0)


def test_combinations_are_compared_in_other_processes() -> None:
    plan = EconomyPlan(
        experiment=GRID, table=full_table(), rungs=(480, 960), reduction_factor=3.0, trials=12, studies=3, goal=0.1
    )
    rows = list(compare_samplers(plan, ["random", "qmc"], ["asha"], processes=1, report=lambda line: None))
    assert [(r.sampler, r.scheduler, len(r.costs)) for r in rows] == [("random", "asha", 3), ("qmc", "asha", 3)]


# The recorded grid

RECORDED = Path(__file__).parents[2] / "benchmarks" / "curves" / "search_grid.csv"
SEARCH_GRID = RECORDED.parents[1] / "search_grid.py"


def test_the_recorded_grid_is_complete() -> None:
    _, experiment = load_experiment(str(SEARCH_GRID))
    table = read(RECORDED)
    assert complete(table, experiment.space) is table
    assert experiment.space.size == 72
    assert sorted(table.curves) == [1, 2]
    base = experiment.base
    assert table.every == base.evaluation.every_patches
    for seed_curves in table.curves.values():
        assert {len(points) * table.every for points in seed_curves.values()} == {base.train.budget_patches}


def test_the_best_of_the_recorded_grid_is_known() -> None:
    ranked = sorted(read(RECORDED).truth.items(), key=lambda one: -one[1])
    assert ranked[0][0] == ("l2", "8", "0.002", "matlab_bicubic")
    assert ranked[0][1] == pytest.approx(33.6908, abs=1e-4)
    assert [key[3] for key, score in ranked if score >= ranked[0][1] - 0.02] == ["matlab_bicubic", "pillow_bicubic"]


def test_a_grid_in_random_order_costs_what_counting_says() -> None:
    """Of n settings in random order the first of k good ones comes after a draw known from combinatorics."""
    _, experiment = load_experiment(str(SEARCH_GRID))
    table = read(RECORDED)
    best = max(table.truth.values())
    n, good = len(table.truth), sum(score >= best - 0.2 for score in table.truth.values())
    unstopped = replace(experiment, sampler="grid", scheduler="none")
    courses = [simulate(unstopped, table, seed=seed, trials=n, goal=0.2) for seed in range(40)]
    mean = np.mean([course.patches_to(0.2) for course in courses]) / experiment.base.train.budget_patches
    expected = (n + 1) / (good + 1)
    assert abs(mean - expected) < 3 * expected / math.sqrt(len(courses))  # a waiting time's sd is at most its mean
