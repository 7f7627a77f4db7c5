"""Slots elsewhere, with workers that only pretend: who waits, who died, who is given up, and what that makes known."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError, TakenOverError
from study.executors import remote
from study.executors.remote import Limits, RemoteExecutor, WorkerGoneError
from study.executors.trial import Command, TrialTask
from study.executors.worker import Answer, Begin, Broken, Left, Logged, Message, Order, Ready, Suspend, TakenOver
from study.question.config import TrialConfig
from study.record import events as ev

CONFIG = TrialConfig()


def task(number: int, slot: int) -> TrialTask:
    return TrialTask(number=number, config=CONFIG, config_hash="", folder=Path(), epoch=1, slot=slot, source="")


def tick(trial: int) -> ev.Ticked:
    return ev.Ticked(time=0.0, trial=trial, patches=10, loss=0.5)


def progress(trial: int) -> ev.Validated:
    return ev.Validated(time=0.0, trial=trial, patches=60, scores={}, loss=0.5, learning_rate=1e-3)


@dataclass
class FakeWorker:
    """Sends the messages that a test gives it, and keeps the orders that it receives."""

    messages: deque[Message | WorkerGoneError] = field(default_factory=deque)
    orders: list[Order] = field(default_factory=list)
    ended: bool = False

    def send(self, order: Order) -> None:
        assert not self.ended
        self.orders.append(order)

    def receive(self) -> Message:
        message = self.messages.popleft()
        if isinstance(message, WorkerGoneError):
            raise message
        return message

    def end(self) -> None:
        self.ended = True


class Clock:
    """Stands still unless it is moved, or somebody waits in vain."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class FakePool:
    def __init__(self, clock: Clock) -> None:
        self.started: list[FakeWorker] = []
        self.closed = False
        self._clock = clock

    def start_worker(self, slot: int) -> FakeWorker:
        self.started.append(FakeWorker(deque([Ready()])))
        return self.started[-1]

    def ready(self, workers: Sequence[FakeWorker], timeout: float) -> list[FakeWorker]:
        events = [worker for worker in workers if worker.messages]
        if not events:
            self._clock.now += timeout
        return events

    def close(self) -> None:
        self.closed = True


@dataclass
class Stage:
    clock: Clock
    pool: FakePool
    executor: RemoteExecutor[FakeWorker]

    def begin(self, number: int, slot: int) -> FakeWorker:
        """The worker that has just been given this trial."""
        self.executor.start(task(number, slot))
        return self.pool.started[-1]

    def events(self, most: int = 20) -> list[ev.TrialEvent]:
        """What is told until nothing more is."""
        events = [self.executor.next_event() for _ in range(most)]
        return [event for event in events if event is not None]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    clock = Clock()
    monkeypatch.setattr(remote, "time", clock)
    pool = FakePool(clock)
    return Stage(clock, pool, RemoteExecutor(pool, 2, Limits(silence=60.0, trial=300.0, suspension=15.0)))


def test_a_worker_is_started_when_its_slot_first_gets_a_trial_and_kept_for_the_next(stage: Stage) -> None:
    assert (stage.executor.free_slots(), stage.executor.running(), stage.pool.started) == ([0, 1], [], [])
    worker = stage.begin(4, 1)
    assert (stage.executor.free_slots(), stage.executor.running()) == ([0], [4])
    worker.messages.append(Left(4))
    stage.events()
    assert stage.executor.free_slots() == [0, 1]
    stage.begin(5, 1)
    assert stage.pool.started == [worker]
    assert worker.orders == [Begin(task(4, 1)), Begin(task(5, 1))]


def test_a_validation_is_answered_when_the_next_event_is_asked_for_and_a_tick_never(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.extend([tick(4), progress(4)])
    while not isinstance(stage.executor.next_event(), ev.Validated):
        assert len(worker.orders) == 1
    assert len(worker.orders) == 1
    stage.executor.next_event()
    assert worker.orders[1:] == [Answer(Command.CONTINUE)]
    stage.executor.next_event()
    assert len(worker.orders) == 2


def test_a_trial_that_is_taken_off_hears_it_and_its_last_words_do_not_count(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(progress(4))
    while stage.executor.next_event() is None:
        pass
    stage.executor.end(4)
    assert worker.orders[-1] == Answer(None)
    assert stage.executor.free_slots() == [0, 1]
    stage.begin(5, 0)
    worker.messages.extend([Left(4), tick(4), tick(5)])
    assert stage.events() == [tick(5)]
    assert stage.executor.running() == [5]


def test_no_slot_is_heard_at_another_s_cost(stage: Stage) -> None:
    one, other = stage.begin(4, 0), stage.begin(5, 1)
    one.messages.extend([tick(4)] * 50)
    other.messages.append(progress(5))
    events = stage.events(8)
    assert progress(5) in events[:3]


def test_a_worker_that_dies_is_told_with_its_trial_after_all_that_it_had_said(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.extend([progress(4), WorkerGoneError("ended by SIGKILL")])
    events = stage.events()
    assert events[0] == progress(4)
    assert isinstance(events[1], ev.WorkerLost)
    assert (events[1].trial, events[1].slot, events[1].reason) == (4, 0, "ended by SIGKILL")
    assert worker.ended
    assert stage.executor.free_slots() == [0, 1]
    assert stage.begin(4, 0) is not worker


def test_a_worker_that_dies_between_two_trials_is_replaced_without_a_word(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.extend([Left(4), WorkerGoneError("ended by SIGKILL")])
    assert stage.events() == []
    assert stage.begin(5, 0) is not worker


def test_workers_that_do_not_even_start_stop_the_study_in_one_line(stage: Stage) -> None:
    with pytest.raises(SuiteError, match=r"the worker of slot 0 does not start \(ended with status 1\)"):
        for _ in range(3):
            worker = stage.begin(4, 0)
            worker.messages.clear()
            worker.messages.append(WorkerGoneError("ended with status 1"))
            assert stage.events() == []
    assert len(stage.pool.started) == 3


def test_workers_that_are_killed_from_outside_while_they_start_are_replaced_more_often(stage: Stage) -> None:
    for _ in range(10):
        worker = stage.begin(4, 0)
        worker.messages.clear()
        worker.messages.append(WorkerGoneError("ended by SIGKILL", hit=True))
        assert stage.events() == []
    worker = stage.begin(4, 0)
    worker.messages.append(tick(4))
    assert stage.events() == [tick(4)]


def test_silence_is_ended(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(tick(4))
    events = stage.events(200)
    assert [type(event) for event in events] == [ev.Ticked, ev.WorkerLost]
    assert events[1].reason == "no sign of life for 60 s"  # type: ignore[attr-defined]
    assert worker.ended


def test_a_trial_beyond_its_limit_is_ended_though_it_shows_life(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    events: list[Any] = []
    while not events or not isinstance(events[-1], ev.WorkerLost):
        assert stage.clock.now < 1400
        worker.messages.append(tick(4))
        events += stage.events(3)
    assert events[-1].reason == "ran longer than 300 s"


def test_who_waits_for_an_answer_is_not_silent(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(progress(4))
    while stage.executor.next_event() is None:
        pass
    stage.clock.now += 59  # the coordinator is slow, less than what counts as an absence or not
    assert stage.executor.next_event() is None
    assert not worker.ended


def test_after_an_absence_of_the_coordinator_nobody_is_given_up_for_it(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    stage.events(3)
    stage.clock.now += 100_000  # stopped with its whole group
    stage.events(20)
    assert not worker.ended
    stage.events(200)
    assert worker.ended


def test_suspending_is_said_once_and_the_trial_may_tell_its_checkpoint(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    stage.executor.suspend(4)
    stage.executor.suspend(4)
    assert worker.orders[1:] == [Suspend()]
    saved = ev.Checkpointed(time=0.0, trial=4, patches=30)
    worker.messages.extend([saved, Left(4)])
    assert stage.events() == [saved]
    assert stage.executor.running() == []
    assert not worker.ended


def test_who_does_not_suspend_in_time_is_ended_and_counts_as_no_loss(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    stage.executor.suspend(4)
    assert stage.events(60) == []
    assert worker.ended
    assert stage.executor.running() == []


def test_a_machine_that_fails_is_the_coordinator_s_business(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(Broken(28, "No space left on device", "/root/x"))
    with pytest.raises(OSError, match="No space left on device: '/root/x'"):
        stage.events()


def test_a_study_that_belongs_to_a_later_owner_by_now_ends_this_one_s_session(stage: Stage) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(TakenOver("written by owner 3"))
    with pytest.raises(TakenOverError, match="written by owner 3"):
        stage.events()


def test_log_lines_come_out_here(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    worker = stage.begin(4, 0)
    worker.messages.append(Logged("study.trial", 30, "trial 4 starts over: 100 %"))
    assert stage.events() == []
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("study.trial", "WARNING", "trial 4 starts over: 100 %")
    ]


def test_closing_ends_every_worker(stage: Stage) -> None:
    workers = stage.begin(4, 0), stage.begin(5, 1)
    stage.executor.close()
    assert all(worker.ended for worker in workers)
    assert stage.pool.closed
    assert stage.executor.running() == []


# Slots on machines of their own


@pytest.fixture
def cluster(stage: Stage) -> Stage:
    stage.executor = RemoteExecutor(stage.pool, 3, Limits(), one_machine=False)
    return stage


def test_a_broken_machine_of_several_costs_its_slot_and_its_trial_goes_on_elsewhere(
    cluster: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    worker = cluster.begin(4, 0)
    worker.messages.append(Broken(28, "No space left on device", "/tmp/x"))
    (lost,) = cluster.events()
    assert isinstance(lost, ev.WorkerLost)
    assert (lost.trial, lost.slot, lost.reason) == (4, 0, "No space left on device: /tmp/x")
    assert worker.ended
    assert (cluster.executor.free_slots(), cluster.executor.running()) == ([1, 2], [])
    assert "slot 0 gets no more trials in this session" in caplog.text and "/tmp/x" in caplog.text
    cluster.begin(4, 1).messages.append(tick(4))
    assert cluster.events() == [tick(4)]


def test_a_machine_on_which_no_worker_starts_costs_its_slot(cluster: Stage) -> None:
    for _ in range(3):
        worker = cluster.begin(4, 2)
        worker.messages.clear()
        worker.messages.append(WorkerGoneError("node-7 has other code than the coordinator"))
        assert cluster.events() == []
    assert cluster.executor.free_slots() == [0, 1]


def test_a_machine_that_breaks_before_its_worker_is_ready_loses_no_trial(cluster: Stage) -> None:
    worker = cluster.begin(4, 0)
    worker.messages.clear()
    worker.messages.append(Broken(28, "No space left on device", "/tmp/x"))
    assert cluster.events() == []
    assert (cluster.executor.free_slots(), cluster.executor.running()) == ([1, 2], [])


def test_the_last_slot_s_machine_is_the_coordinator_s_business_again(cluster: Stage) -> None:
    for slot in (0, 1):
        cluster.begin(4, slot).messages.append(Broken(28, "No space left on device", "/tmp/x"))
        cluster.events()
    assert cluster.executor.free_slots() == [2]
    cluster.begin(4, 2).messages.append(Broken(28, "No space left on device", "/tmp/x"))
    with pytest.raises(OSError, match="No space left on device"):
        cluster.events()
