"""How a trial ends, and how the one slot of this process drives it: with trainings that only pretend."""

import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sr_core.errors import CheckpointError, DivergedError
from sr_core.process.floats import can_flush, flushing
from sr_core.training.runtime import resolve
from study.executors import inline, trial
from study.executors.inline import InlineExecutor
from study.executors.trial import Command, TrialTask
from study.question.config import TrialConfig
from study.record import events as ev

Story = Generator[ev.TrialEvent, Command, None]


@pytest.fixture
def task(tmp_path: Path) -> TrialTask:
    config = TrialConfig()
    return TrialTask(number=3, config=config, config_hash=config.digest(), folder=tmp_path, epoch=1, slot=0, source="")


def started() -> ev.Started:
    return ev.Started(time=time.time(), trial=3, slot=0, epoch=1, patches=0, source="")


def told_by(task: TrialTask, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[ev.TrialEvent]:
    def train(*_: object) -> Iterator[ev.TrialEvent]:
        yield started()
        raise error

    monkeypatch.setattr(trial, "_train", train)
    return list(trial.run_trial(task, context=None))  # type: ignore[arg-type]


# Endings


@pytest.mark.parametrize(
    ("error", "cause", "reason"),
    [
        (DivergedError("the training loss is nan after 16 patches"), "diverged", "the training loss is nan after 16"),
        (MemoryError(), "out of memory", "the machine is out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"), "out of memory", "CUDA out of memory."),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel"), "out of memory", "CUDA error: out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you"),
            "out of memory",
            "DefaultCPUAllocator: can't",
        ),
        (OSError(12, "Cannot allocate memory"), "out of memory", "[Errno 12] Cannot allocate memory"),
        (CheckpointError("c: not a whole checkpoint"), "input", "c: not a whole checkpoint"),
        (KeyError("x"), "bug", "KeyError: 'x'"),
        (RuntimeError("CUDA error: misaligned\nCUDA kernel"), "bug", "RuntimeError: CUDA error: misaligned"),
    ],
    ids=["diverged", "host memory", "device memory", "CUDA", "CPU", "ENOMEM", "input", "bug", "another bug"],
)
def test_a_trial_that_breaks_ends_failed_with_its_cause(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str, reason: str
) -> None:
    first, last = told_by(task, monkeypatch, error)
    assert isinstance(first, ev.Started)
    assert isinstance(last, ev.Failed)
    assert (last.trial, last.cause) == (3, cause)
    assert last.reason.startswith(reason)
    assert "\n" not in last.reason
    assert bool(last.traceback) == (cause == "bug")


def test_a_bug_s_traceback_names_the_line_that_raised_it(task: TrialTask, monkeypatch: pytest.MonkeyPatch) -> None:
    _, last = told_by(task, monkeypatch, KeyError("x"))
    assert isinstance(last, ev.Failed)
    assert "raise error" in last.traceback


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
def test_what_is_no_trial_s_fault_ends_no_trial(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        told_by(task, monkeypatch, error)


# The slot


class Stage:
    """A slot whose trial plays a given story; `commands` notes what was sent to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, task: TrialTask, events: int = 3) -> None:
        self.commands: list[Command] = []
        self.left = False
        monkeypatch.setattr(inline, "run_trial", lambda *_: self._story(events))
        self.executor = InlineExecutor(_Bench())  # type: ignore[arg-type]
        self.executor.start(task)

    def _story(self, events: int) -> Story:
        try:
            for i in range(events):
                command = yield ev.Ticked(time=0.0, trial=3, patches=i, loss=0.0)
                self.commands.append(command)
                if command is Command.SUSPEND:
                    return
        finally:
            self.left = True


class _Bench:
    class runtime:  # noqa: N801
        @staticmethod
        def apply() -> None: ...


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, task: TrialTask) -> Stage:
    return Stage(monkeypatch, task)


def test_a_trial_holds_its_slot_until_it_has_told_everything(stage: Stage) -> None:
    executor = stage.executor
    events: list[Any] = []
    while executor.running():
        assert (executor.running(), executor.free_slots()) == ([3], [])
        events.append(executor.next_event())
    assert [event and event.patches for event in events] == [0, 1, 2, None]
    assert (executor.running(), executor.free_slots()) == ([], [0])
    assert stage.commands == [Command.CONTINUE] * 3
    assert executor.next_event() is None


def test_a_trial_waits_until_it_is_asked_for_its_next_event(stage: Stage) -> None:
    stage.executor.next_event()
    assert stage.commands == []
    stage.executor.next_event()
    assert stage.commands == [Command.CONTINUE]


def test_a_trial_that_is_suspended_hears_it_with_its_next_event(stage: Stage) -> None:
    stage.executor.next_event()
    stage.executor.suspend(3)
    assert stage.executor.next_event() is None
    assert stage.commands == [Command.SUSPEND]
    assert stage.executor.free_slots() == [0]


def test_a_trial_that_has_told_nothing_yet_is_suspended_once_it_has(stage: Stage) -> None:
    stage.executor.suspend(3)
    assert stage.executor.next_event() is not None
    stage.executor.suspend(3)
    assert stage.executor.next_event() is None
    assert stage.commands == [Command.SUSPEND]


@pytest.mark.parametrize("how", ["end", "close"])
def test_a_trial_that_is_taken_off_its_slot_cleans_up_and_tells_nothing_more(stage: Stage, how: str) -> None:
    stage.executor.next_event()
    stage.executor.end(3) if how == "end" else stage.executor.close()
    assert stage.left
    assert (stage.commands, stage.executor.free_slots()) == ([], [0])
    stage.executor.close()


@pytest.mark.skipif(not can_flush(), reason="this CPU has no mode that flushes subnormal numbers")
def test_a_trial_flushes_subnormal_numbers_and_whoever_drives_it_does_not(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes: list[set[bool]] = []

    def story(*_: object) -> Story:
        for patches in (16, 32):
            flushes.append(flushing())
            yield ev.Ticked(time=0.0, trial=3, patches=patches, loss=0.0)

    monkeypatch.setattr(inline, "run_trial", story)
    context = SimpleNamespace(runtime=resolve(threads=2))
    threads = torch.get_num_threads()
    executor = InlineExecutor(context)  # type: ignore[arg-type]
    try:
        executor.start(task)
        while executor.next_event() is not None:
            assert 1e-310 * float("1") != 0
            assert flushing() == {False}
    finally:
        executor.close()
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    assert flushes == [{True}, {True}]


def test_a_second_ctrl_c_ends_the_trial_where_it_is(task: TrialTask, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def story(*_: object) -> Story:
        try:
            yield ev.Ticked(time=0.0, trial=3, patches=16, loss=0.0)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            yield ev.Ticked(time=0.0, trial=3, patches=32, loss=0.0)
        finally:
            left.append(3)

    monkeypatch.setattr(inline, "run_trial", story)
    executor = InlineExecutor(_Bench())  # type: ignore[arg-type]
    executor.start(task)
    assert executor.next_event() is not None
    with pytest.raises(KeyboardInterrupt):
        executor.next_event()
    executor.close()
    assert (left, executor.running()) == ([3], [])


def test_a_slot_that_came_free_takes_another_trial(stage: Stage, task: TrialTask) -> None:
    stage.executor.next_event()
    stage.executor.end(3)
    stage.executor.start(task)
    assert stage.executor.next_event() is not None
