"""Importances, parallel coordinates and slices of studies whose scores follow a known rule."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question import space as ranges
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Choice, Dimension, Float, Grid, Together, recorded_space
from study.record.folder import StudyFolder
from study.report import space_views
from study.report.cache import Cache
from study.report.course import psnr_limits
from study.report.drawing import DrawnFigure
from study.report.importances import importances
from study.report.kernels import kernels_of
from study.report.record import StudyRecord, record_of
from study.report.space_views import _place, parallel, slices
from study.statistics.importance import Importance

BASE = TrialConfig(
    model=ModelConfig(n_feats=8, n_blocks=1),
    data=DataConfig(lr_patch_size=8),
    train=TrainConfig(budget_patches=240, batch_size=4),
    evaluation=EvaluationConfig(every_patches=120),
)
EXPERIMENT = Experiment(
    question="Which?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2"),
        "model.temperature": Float(0.1, 100.0, log=True),
        "model.reduction": Grid(2, 4, 8),
        Together("train.batch_size", "train.learning_rate"): [(2, 1e-3), (4, 2e-3)],
    },
    rungs=(120,),
    reduction_factor=2.0,
)

POINT = {
    "train.loss": "l1",
    "model.temperature": 1.0,
    "model.reduction": 2,
    "train.batch_size": 2,
    "train.learning_rate": 1e-3,
}
"""In the space."""


@pytest.fixture(scope="module")
def record(history: type[Any]) -> StudyRecord:
    """Thirty trials whose PSNR is decided by the loss alone; every fifth one is pruned."""
    study = history(EXPERIMENT)
    study.session(30)
    for number in range(30):
        values = {
            "train.loss": ("l1", "l2")[number * 7 % 10 // 5],
            "model.temperature": 0.1 * 1000 ** ((number * 13 % 30) / 29),
            "model.reduction": (2, 4, 8)[number * 11 % 3],
            "train.batch_size": (2, 4)[number % 2],
            "train.learning_rate": (1e-3, 2e-3)[number % 2],
        }
        psnr = 30.0 + 2.0 * (values["train.loss"] == "l2")
        study.try_out(values, psnr, "pruned" if number % 5 == 4 else "finished")
    return record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)


def rows(section: Any, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(section.files[f"figures/{name}.csv"].decode())))


def test_the_recorded_space_is_the_experiment_s(record: StudyRecord) -> None:
    assert record.space == EXPERIMENT.space
    assert record.base.dotted() == BASE.dotted()


@pytest.mark.parametrize(
    "range_",
    [Float(0.1, 1.0), Float(0.1, 1.0, log=True), ranges.Int(1, 9), Choice("a", "b"), Grid(1, 2), Choice(True, None)],
)
def test_a_range_comes_back_from_its_description(range_: Any) -> None:
    dimension = Dimension(("model.n_feats",), range_, "nuisance")
    assert recorded_space({"model.n_feats": dimension.describe()}).dimensions == (dimension,)


def test_what_decides_is_named_and_the_rest_is_not_resolved(record: StudyRecord, tmp_path: Path) -> None:
    section = importances(record, Cache(tmp_path))
    by_name = {row["hyperparameter"]: row for row in rows(section, "importance")}
    assert by_name["train.loss"]["resolved"] == "True"
    assert float(by_name["train.loss"]["share"]) > 0.8
    assert {name for name, row in by_name.items() if row["resolved"] == "True"} == {"train.loss"}
    assert "not resolved from noise: " in section.body
    assert "so the shares hold for these regions only" in section.body  # TPE is adaptive
    assert "The scheduler (successive halving) stopped 6 trials with worse scores, which are left out." in section.body
    assert "from 3% to 97% over 64 trees" in section.body
    assert "nine of ten" not in section.body


@pytest.mark.parametrize(
    ("sampler", "count", "how", "expected"),
    [
        ("random", 50, None, "In simulations, nine of ten such intervals contained the true value"),
        ("qmc", 50, None, "In simulations, nine of ten such intervals contained the true value"),
        ("random", 49, None, "was not measured"),
        ("random", 50, "failed", "was not measured"),
        (
            "random",
            50,
            "pruned",
            "(asha) stopped 1 trial with a worse score, which is left out. How often the intervals",
        ),
        ("tpe", 50, None, "hold for these regions only. How often the intervals"),
    ],
)
def test_how_often_intervals_hold_the_truth_is_said_only_where_it_was_measured(
    history: type[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: Any,
    count: int,
    how: str,
    expected: str,
) -> None:
    study = history(replace(EXPERIMENT, sampler=sampler, scheduler="asha"))
    study.session(count)
    for number in range(count):
        study.try_out(POINT | {"train.loss": ("l1", "l2")[number % 2]}, 30.0 + number % 2)
    if how:
        study.try_out(POINT, 20.0, how)
    measured = [Importance("train.loss", 1.0, 0.9, 1.0, True, 1.0)]
    monkeypatch.setattr(
        "study.statistics.importance.measure_importances", lambda *_: measured
    )  # what is measured is tested elsewhere
    section = importances(record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None), Cache(tmp_path))
    assert expected in section.body
    assert ("nine of ten" in section.body) == ("nine of ten" in expected)


def test_importances_are_computed_once(record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = importances(record, Cache(tmp_path))

    def no(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("study.statistics.importance.measure_importances", no)
    assert importances(record, Cache(tmp_path)) == first


def test_too_few_trials_are_said_to_be_too_few(history: type[Any], tmp_path: Path) -> None:
    study = history(EXPERIMENT)
    study.session(3)
    study.try_out({"train.loss": "l2"}, 30.0)
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    assert "need 10 finished trials" in importances(record, Cache(tmp_path)).body
    assert "two or more validated trials" in parallel(record).body


def test_places_on_an_axis_follow_the_range() -> None:
    log = Dimension(("model.temperature",), Float(0.1, 10.0, log=True), "nuisance")
    plain = Dimension(("model.temperature",), Float(0.0, 10.0), "nuisance")
    grid = Dimension(("model.reduction",), Grid(2, 4, 8), "nuisance")
    assert _place(log, 1.0) == pytest.approx(0.5)
    assert _place(plain, 2.5) == pytest.approx(0.25)
    assert [_place(grid, v) for v in (2, 4, 8)] == [0, 0.5, 1]


@pytest.mark.parametrize(("section", "name"), [(parallel, "parallel-coordinates"), (slices, "slices")])
def test_every_trial_is_in_the_figure_with_its_values(
    record: StudyRecord, section: Callable[[StudyRecord], Any], name: str
) -> None:
    drawn = section(record)
    assert {int(row["trial"]) for row in rows(drawn, name)} == set(range(30))
    assert sum(row["state"] == "pruned" for row in rows(drawn, name)) == (6 if name == "parallel-coordinates" else 24)
    assert drawn.files[f"figures/{name}.png"].startswith(b"\x89PNG")
    assert "<img" in drawn.body


def test_trials_that_run_or_failed_do_not_look_stopped_early(
    history: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = DrawnFigure("nothing", b"<svg/>", b"", "", (1, 1))  # the captions alone are looked at
    monkeypatch.setattr(space_views, "_parallel", lambda *_: nothing)
    monkeypatch.setattr(space_views, "_slices", lambda *_: nothing)
    study = history(EXPERIMENT)
    study.session(6)
    study.try_out(POINT | {"train.loss": "l2"}, 30.0)
    study.try_out(POINT, 29.0)
    running, failed = study.propose(POINT | {"train.loss": "l2"}), study.propose(POINT)
    for number in (running, failed):
        study.start(number)
        study.validate(number, 29.5)
    half = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    study.end(failed, "failed")
    over = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    for view, going, broken, stopped in (
        (parallel, "dotted: under way or half done", "dash-dotted: failed", "stopped early"),
        (slices, "three-armed marks: under way or half done", "crosses: failed", "stopped early"),
    ):
        assert going in view(half).body and broken not in view(half).body and stopped not in view(half).body
        assert going in view(over).body and broken in view(over).body and stopped not in view(over).body
    study.try_out(POINT, 20.0, "pruned")
    pruned = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    assert "dashed: stopped early; dotted: under way" in parallel(pruned).body
    assert "open marks: stopped early; three-armed marks: under way" in slices(pruned).body


def test_every_kind_of_trial_has_a_look_of_its_own(history: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    study = history(EXPERIMENT)
    study.session(6)
    study.try_out(POINT | {"train.loss": "l2"}, 30.0)
    study.try_out(POINT | {"train.loss": "l2"}, 28.0, "pruned")
    running, failed = study.propose(POINT | {"train.loss": "l2"}), study.propose(POINT | {"train.loss": "l2"})
    for number in (running, failed):
        study.start(number)
        study.validate(number, 29.0 + number / 10)
    study.end(failed, "failed")
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    figures: list[Any] = []
    monkeypatch.setattr(space_views, "draw_figure", lambda name, numbers, draw: figures.append(draw()))
    space_views._parallel(record, space_views._placed(record))
    lines = {line.get_linestyle() for line in figures[0].axes[0].lines if len(line.get_xdata()) == 5}
    assert lines == {"-", "--", ":", "-."}
    space_views._slices(record, space_views._placed(record))
    assert [text.get_text() for text in figures[1].legends[0].get_texts()][-3:] == [
        "stopped early", "under way or half done", "failed"
    ]  # fmt: skip
    panel = figures[1].axes[0]
    looks = [
        (c.get_paths()[0].vertices.shape, len(c.get_facecolor())) for c in panel.collections if len(c.get_offsets())
    ]
    assert len(looks) == len(set(looks)) == 4


def test_slices_tell_the_loss_by_colour_only_if_it_was_searched(record: StudyRecord, history: type[Any]) -> None:
    assert "Colour and marker show the loss." in slices(record).body
    study = history(replace(EXPERIMENT, nuisance={"model.reduction": Grid(2, 4, 8)}))
    study.session(3)
    for reduction in (2, 4, 8):
        study.try_out({"model.reduction": reduction}, 30.0)
    other = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    assert "show the loss" not in slices(other).body


def test_a_hopeless_trial_does_not_squeeze_the_axis() -> None:
    low, high = psnr_limits([33.0 + 0.01 * i for i in range(50)] + [8.0], 32.8)
    assert 32 < low < 32.8 and 33.49 < high < 34  # bicubic is on it, too
    low, _ = psnr_limits([37.0, 37.1, 37.2], 33.6)
    assert low > 36  # bicubic is far below
    assert psnr_limits([]) == (0.0, 1.0)


def test_training_kernels_that_move_together_with_another_value_have_their_columns(history: type[Any]) -> None:
    pairs = Together("data.train_kernel", "train.loss")
    study = history(replace(EXPERIMENT, nuisance={pairs: [("pillow_box", "l1"), ("cv2_cubic", "l2")]}))
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    assert {"pillow_box", "cv2_cubic"} <= set(kernels_of(record))
