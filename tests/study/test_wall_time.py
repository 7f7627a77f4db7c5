"""Where the wall time of a session went: what is counted, and that it adds up."""

from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.record import wall_time
from study.record.events import Started, Validated
from study.record.wall_time import WallTime, table

WENT_INTO = {"start-up": 1.0, "steps": 8.0, "validations": 2.0, "recording": 0.5}


class Clock:
    """time.perf_counter, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(wall_time.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def validated(told: Any, number: int, times: float) -> None:
    """A validation after which the trial has counted this multiple of WENT_INTO."""
    seconds = {part: times * value for part, value in WENT_INTO.items()}
    scores = {"val/psnr": 30.0, "val/ssim": 0.8}
    told.tell(
        Validated, trial=number, patches=480 * int(times), scores=scores, loss=1.0, learning_rate=1e-3, seconds=seconds
    )


def test_the_parts_are_what_was_counted_and_add_up_to_the_wall_time(history: Any, clock: Clock) -> None:
    wall = WallTime(begun=clock.now)
    clock.now += 7
    wall.started()
    told = history(EXPERIMENT)
    told.session()
    number = told.propose()
    told.start(number)
    validated(told, number, 1)
    validated(told, number, 2)  # counted since the start, so this one says all
    told.end(number, "pruned")
    clock.now += 24
    with wall.spent("conclusion"):
        clock.now += 3
    found = wall.breakdown(told.state)
    assert found == {
        "steps": 16.0, "validations": 4.0, "start-up": 9.0, "recording": 1.0, "conclusion": 3.0, "idle": 1.0
    }  # fmt: skip
    assert sum(found.values()) == 34.0


def test_what_an_earlier_session_trained_is_not_counted_again(history: Any, clock: Clock) -> None:
    told = history(EXPERIMENT)
    told.session()
    before, resumed = told.propose(), told.propose({"train.loss": "l2"})
    for number in (before, resumed):
        told.start(number)
        validated(told, number, 1)
    told.end(before, "pruned")
    told.session(epoch=2)
    told.tell(Started, trial=resumed, slot=0, epoch=2, patches=480, source="feed")
    wall = WallTime(begun=clock.now)
    wall.started()
    assert wall.breakdown(told.state)["steps"] == 0.0, "nothing validated yet"
    validated(told, resumed, 3)
    assert wall.breakdown(told.state)["steps"] == 24.0


def test_where_nothing_was_left_to_train_all_was_start_up(history: Any, clock: Clock) -> None:
    told = history(EXPERIMENT)
    told.session()
    number = told.propose()
    told.start(number)
    validated(told, number, 1)
    wall = WallTime(begun=clock.now - 6, counted={"recording": 2.0})
    found = wall.breakdown(told.state)
    assert (found["start-up"], found["recording"], found["steps"], found["idle"]) == (4.0, 2.0, 0.0, 0.0)


def test_a_trial_that_paused_and_went_on_counts_both_times(history: Any, clock: Clock) -> None:
    told = history(EXPERIMENT)
    told.session()
    number = told.propose()
    told.start(number)
    validated(told, number, 1)
    validated(told, number, 2)
    told.start(number, patches=960)  # its counts start from zero
    validated(told, number, 3)
    wall = WallTime(begun=clock.now - 60)
    wall.started()
    assert wall.breakdown(told.state)["steps"] == (2 + 3) * WENT_INTO["steps"]


def test_with_several_slots_the_mean_slot_is_shown(history: Any, clock: Clock) -> None:
    told = history(EXPERIMENT)
    told.session()
    for values in ({}, {"train.loss": "l2"}):
        number = told.propose(values)
        told.start(number)
        validated(told, number, 1)
    wall = WallTime(begun=clock.now - 20, counted={"start-up": 0.0})
    found = wall.breakdown(told.state, slots=2)
    assert (found["steps"], found["idle"]) == (8.0, 8.5)


def test_the_table_gives_percent_and_seconds_of_every_part(clock: Clock) -> None:
    wall = WallTime(begun=clock.now - 10, counted={"start-up": 2.0, "compilation": 1.0})
    found = {"steps": 5.0, **wall.counted, "idle": 2.0}
    assert [" ".join(line.split("  (")[0].split()) for line in table(found)] == [
        "wall time 10.0 s",
        "training steps 50.0% 5.0 s",
        "start-up 20.0% 2.0 s",
        "compilation 10.0% 1.0 s",
        "idle 20.0% 2.0 s",
    ]
