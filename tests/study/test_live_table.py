"""The live view's screen at every size: what it shows, what goes first where there is no room."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from experiments.quickstart import EXPERIMENT
from study.record import events as ev
from study.screen.live_table import ScreenState, screen
from study.screen.sparkline import SparklineScale, scale_of, sparkline
from study.search.replicates import due
from study.statistics import pace

VALUES = {
    "train.loss": "l2",
    "train.batch_size": 8,
    "train.learning_rate": 0.002,
    "model.temperature": 30.0,
    "model.input_range": 255,
    "model.reduction": 4,
    "data.train_kernel": "matlab_bicubic",
}


@pytest.fixture
def shown(history: Callable[..., Any]) -> Callable[..., ScreenState]:
    """shown(slots): references, ten finished and two pruned trials, and one running trial on every slot but the last
    two, of which one starts a trial and one is idle."""

    def make(slots: int = 3, **more: Any) -> ScreenState:
        study = history(replace(EXPERIMENT, replicates=3))
        study.session()
        for name, score in (("authors", 28.5), ("blog", 28.0)):
            number = study.propose(reference=name)
            study.start(number)
            study.validate(number, 27.0, 27.5, 28.0, score)
            study.end(number)
        for i in range(10):
            number = study.propose(VALUES)
            study.start(number)
            study.validate(number, 27.0 + i / 10, 28.0, 29.0, 29.0 + i / 10)
            study.end(number)
        for _ in range(2):
            study.try_out(VALUES, 26.0, "pruned")
        laps: Any = {}
        for slot in range(slots - 2):
            number = study.propose(VALUES)
            event = ev.Started(time=study.events[-1].time, trial=number, slot=slot, epoch=1, patches=0, source="feed")
            study.events.append(event)
            study.state = study.state.apply(event)
            laps = pace.follow(laps, event)
            laps = pace.follow(laps, ev.Ticked(time=event.time + 2, trial=number, patches=400, loss=1.0))
        if slots > 1:
            study.propose(VALUES)
        now = study.state.session.time + 100
        content = {"last_heard": dict.fromkeys(laps, now)} | more
        return ScreenState(state=study.state, asked=50, slots=slots, laps=laps, now=now, **content)

    return make


def text(lines: Any) -> str:
    return "\n".join(line.plain for line in lines)


def test_a_wide_screen_shows_slots_curves_speed_best_time_left_and_what_pruning_saved(shown: Any) -> None:
    content = shown()
    lines = text(screen(content, 140, 40)).splitlines()
    patches = 12 * 1_920 + 2 * 960 + 400
    rate = patches / 100
    assert lines[0] == "small: searching; 14 of 50 trials"
    assert f"1 min 40 s so far, about {round(pace.to_do(content.state, 50, content.laps) / rate) // 60} min" in lines[2]
    assert f"{rate:,.0f} patches/s · pruning saved {round(2 * 960 / rate)} s (wall)" in lines[2]
    assert "best: trial 11, 29.900 dB, +1.900 dB over bicubic" in lines[2]
    top = next(i for i, line in enumerate(lines) if line.startswith("slot  trial  curve"))
    assert lines[top + 1].split()[:5] == ["0", "14", "····", "200", "400/1920"]
    assert lines[top + 1].endswith("l2  8  0.002  30  255  4  matlab_bicubic")
    assert lines[top + 2].startswith("1     15     starting: l2")
    assert lines[top + 3] == "2     idle"
    ranks = next(i for i, line in enumerate(lines) if line.startswith("rank  trial  curve"))
    assert lines[ranks + 1].split()[:2] == ["1", "11"]
    assert lines[ranks + 12].split()[:2] == ["12", "1"] and lines[ranks + 12].endswith("reference: blog")


@pytest.mark.parametrize("slots", [1, 3, 12])
def test_no_screen_is_larger_than_its_terminal_and_all_say_what_the_study_does(slots: int, shown: Any) -> None:
    content = shown(slots, importance=["importance: " + "word " * 30], messages=["a message " * 30])
    for width in (20, 40, 60, 80, 120, 200):
        for height in (1, 2, 3, 4, 6, 10, 16, 24, 50):
            lines = screen(content, width, height)
            assert len(lines) <= height and max(line.cell_len for line in lines) <= width
            assert lines[0].plain.startswith("small: searching; ")


def test_forty_columns_still_show_slot_trial_curve_and_score(shown: Any) -> None:
    lines = text(screen(shown(), 40, 30)).splitlines()
    assert any(line.startswith("slot  trial  curve") and line.endswith("PSNR [dB]") for line in lines)
    assert not any(line.endswith("…") for line in lines if "starting" not in line), "columns are left out whole"


def test_slots_that_find_no_row_are_counted_by_what_they_do(shown: Any) -> None:
    assert text(screen(shown(12), 60, 6)).splitlines()[-1] == "9 more slots: 7 training, 1 starting, 1 idle"
    assert text(screen(shown(12), 60, 3)).splitlines()[-1] == "12 slots: 10 training, 1 starting, 1 idle"
    assert text(screen(shown(1), 60, 2)).splitlines()[-1] == "0     idle"
    assert sum(line[:2].strip().isdecimal() for line in text(screen(shown(12), 80, 14)).splitlines()) == 12


def test_on_a_short_screen_slots_and_messages_come_before_the_ranking_and_the_importances(shown: Any) -> None:
    content = shown(3, importance=["importance: x"], messages=["the worker died"])
    drawn = text(screen(content, 100, 9))
    assert "2     idle" in drawn and "the worker died" in drawn
    assert "rank" not in drawn and "importance" not in drawn


def test_a_slot_that_says_nothing_is_told_from_a_slow_one(shown: Any) -> None:
    content = shown()
    late = replace(content, last_heard=dict.fromkeys(content.laps, content.now - 65))
    assert "silent 1 min 05 s" in text(screen(late, 120, 40)) and "silent" not in text(screen(content, 120, 40))


def test_where_no_trial_runs_the_screen_says_what_happens_instead(shown: Any) -> None:
    content = replace(shown(), doing="concluding: tables", laps={}, problems=["mlflow: cannot be written"])
    drawn = text(screen(content, 120, 40))
    assert drawn.startswith("small: concluding: tables; 14 of 50 trials")
    assert "mlflow: cannot be written" in drawn and "starting" not in drawn
    assert "time limit in 1 min 30 s" in text(screen(replace(shown(), deadline=content.now + 90), 120, 40))


def test_replicates_are_counted_beside_the_trials(history: Any) -> None:
    experiment = replace(EXPERIMENT, references={}, replicates=3)
    study = history(experiment)
    study.session(trials=1)
    study.try_out(VALUES, 30.0)
    study.replicate(due(study.state, experiment), 30.1)
    content = ScreenState(state=study.state, asked=1, slots=1, now=study.state.session.time + 10)
    assert screen(content, 100, 10)[0].plain == "small: training the finalists again; 1 of 1 trials, 1 of 3 replicates"
    study.start(study.propose({"train.loss": "l2"}))  # more trials were asked for
    content = ScreenState(state=study.state, asked=2, slots=1, now=study.state.session.time + 20)
    assert screen(content, 100, 10)[0].plain == "small: searching; 1 of 2 trials, 1 of 3 replicates"


def test_a_longer_training_is_no_search(history: Any) -> None:
    study = history(replace(EXPERIMENT, references={}, replicates=0))
    study.session(trials=1)
    config = study.experiment.base.with_values({"train.budget_patches": 19_200})
    longer = {"role": "training", "name": "", "config": config.to_json(), "config_hash": "feed", "values": {}}
    study.tell(ev.Proposed, trial=12, **longer)
    content = ScreenState(state=study.state, asked=1, slots=1, now=study.state.session.time + 10)
    assert screen(content, 100, 10)[0].plain == "small: training trial 12 with 19,200 patches"
    stopping = replace(content, doing="stopping after a checkpoint")
    assert screen(stopping, 100, 10)[0].plain.startswith("small: stopping after a checkpoint; ")


def test_all_curves_share_one_scale_that_first_validations_do_not_stretch(history: Any) -> None:
    study = history(EXPERIMENT)
    study.session()
    for low in (12.0, 20.0, 28.0):
        number = study.propose(VALUES)
        study.start(number)
        study.validate(number, low, 30.0, 31.0, 32.0)
    scale = scale_of(study.state)
    assert scale == SparklineScale(20.0, 32.0), "a tenth of the validations lie below it"
    assert [sparkline(t, scale, 4) for t in study.state.trials.values()] == ["▁▇██", "▁▇██", "▆▇██"]


def test_a_curve_ends_where_its_trial_ended_and_has_dots_where_it_may_still_go(history: Any) -> None:
    study = history(EXPERIMENT)
    study.session()
    assert scale_of(study.state) is None
    study.try_out(VALUES, 30.0, "pruned")
    running = study.propose(VALUES)
    study.start(running)
    study.validate(running, 20.0)
    scale = SparklineScale(20.0, 30.0)
    assert sparkline(study.state.trials[0], scale, 4) == "██  "
    assert sparkline(study.state.trials[running], scale, 4) == "▁···"
    assert sparkline(study.state.trials[running], scale, 8) == "▁▁······", "a quarter of the budget, whatever the cells"
    assert sparkline(study.state.trials[0], scale, 2) == "█ "


def test_a_terminal_without_these_signs_gets_plain_ones(shown: Any) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    Console(file=file, width=120, height=40, force_terminal=True, no_color=True).print(shown())
    file.flush()
    drawn = file.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]
    assert "...." in drawn and "#" in drawn and "?" not in drawn
