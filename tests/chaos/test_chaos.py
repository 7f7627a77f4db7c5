"""Whatever is done to a study, in the end it has come to the same, bit for bit, and nothing runs any more.

The short version is one study hurt in four ways; the long one (`pytest -m long tests/chaos`) hurts studies more than
thirty times. Moments are drawn from a seed, so a failure can be repeated as far as clocks allow.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.record.events import WorkerLost
from study.record.journal import read

Fault = Callable[[Any, random.Random], None]
"""Hurts a running study, and starts it again where that ended it."""

FULL_DISK = """
import errno, os
from pathlib import Path

_fsync, _flag = os.fsync, Path(os.environ["CHAOS_DISK_FULL"])

def fsync(number):
    if _flag.exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _fsync(number)

os.fsync = fsync
"""
"""Run at the start of every process of a study, workers too: nothing can be written durably while a file is there."""


@pytest.fixture
def busy_worker(wait_until: Any) -> Callable[[Any, random.Random], int]:
    """busy_worker(command, random): the process of one slot, once both are there."""

    def find(command: Any, chance: random.Random) -> int:
        wait_until(lambda: command.ended() or len(command.workers()) == 2)
        workers = command.workers()
        return chance.choice(workers) if workers else 0

    return find


@pytest.fixture
def worker_killed(busy_worker: Any, wait_until: Any, alive: Any) -> Fault:
    def fault(command: Any, chance: random.Random) -> None:
        pid = busy_worker(command, chance)
        if pid:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not alive(pid))

    return fault


@pytest.fixture
def worker_segfaults(busy_worker: Any, wait_until: Any, alive: Any) -> Fault:
    def fault(command: Any, chance: random.Random) -> None:
        pid = busy_worker(command, chance)
        if pid:
            os.kill(pid, signal.SIGSEGV)
            wait_until(lambda: not alive(pid))

    return fault


@pytest.fixture
def coordinator_killed(wait_until: Any, alive: Any) -> Fault:
    def fault(command: Any, chance: random.Random) -> None:
        workers = command.workers()
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        wait_until(lambda: not any(map(alive, workers)), seconds=5)  # promise 4
        command.start()

    return fault


@pytest.fixture
def terminated() -> Fault:
    """As a preempted machine does it: SIGTERM to everyone."""

    def fault(command: Any, chance: random.Random) -> None:
        begun = time.monotonic()
        os.killpg(command.pid, signal.SIGTERM)
        status = command.wait()
        assert time.monotonic() - begun < 30
        assert status in (75, 0), command.err  # 0 where it was complete by then
        command.start()

    return fault


@pytest.fixture
def interrupted() -> Fault:
    """As a terminal does it: SIGINT to everyone in the foreground."""

    def fault(command: Any, chance: random.Random) -> None:
        os.killpg(command.pid, signal.SIGINT)
        assert command.wait() in (130, 0), command.err
        command.start()

    return fault


@pytest.fixture
def stopped(busy_worker: Any) -> Fault:
    """SIGSTOP for some seconds: to one worker, to the coordinator, or to all of them (Ctrl-Z)."""

    def fault(command: Any, chance: random.Random) -> None:
        whom = chance.choice(["worker", "coordinator", "group"])
        pid = busy_worker(command, chance) if whom == "worker" else command.pid
        if not pid or command.ended():
            return
        send = os.killpg if whom == "group" else os.kill
        send(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(2, 7))
        send(pid, signal.SIGCONT)

    return fault


@pytest.fixture
def hung(busy_worker: Any, wait_until: Any) -> Fault:
    """A worker stops for good; it is given up by the study itself."""

    def fault(command: Any, chance: random.Random) -> None:
        pid = busy_worker(command, chance)
        if pid:
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: command.ended() or pid not in command.workers())

    return fault


def hurt_often(command: Any, faults: list[Fault], seed: int) -> int:
    """Run the study with these faults, each some validations after the one before; how many struck it running."""
    chance = random.Random(seed)
    command.start()
    struck = 0
    for fault in faults:
        if not command.until_further(chance.randint(1, 3)):
            break
        time.sleep(chance.uniform(0, 1.5))
        if command.ended():
            break
        fault(command, chance)
        struck += 1
    command.finish()
    return struck


@pytest.mark.slow
def test_a_study_that_is_hurt_in_every_way_comes_to_the_same(
    hurt: Any, unharmed: Any, worker_killed: Fault, terminated: Fault, stopped: Fault, coordinator_killed: Fault
) -> None:
    command = hurt()
    assert hurt_often(command, [worker_killed, terminated, stopped, coordinator_killed], seed=1) == 4
    unharmed(command)
    assert any(isinstance(event, WorkerLost) for event in read(command.folder.journal))


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("worker_killed", 6),
        ("worker_segfaults", 3),
        ("coordinator_killed", 6),
        ("terminated", 5),
        ("interrupted", 3),
        ("stopped", 5),
        ("hung", 3),
    ],
)
def test_a_study_that_is_hurt_again_and_again_comes_to_the_same(
    kind: str, times: int, hurt: Any, unharmed: Any, request: pytest.FixtureRequest
) -> None:
    command = hurt("--hang-timeout", "20s") if kind == "hung" else hurt()
    struck = hurt_often(command, [request.getfixturevalue(kind)] * times, seed=times)
    assert struck == times, "the study was over before"
    unharmed(command)
    losses = [event for event in read(command.folder.journal) if isinstance(event, WorkerLost)]
    if kind in ("worker_killed", "worker_segfaults", "hung"):
        assert losses, "no fault struck a trial"


@pytest.mark.long
def test_a_disk_that_is_full_again_and_again_stops_the_study_which_then_comes_to_the_same(
    hurt: Any, unharmed: Any, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FULL_DISK)
    full = tmp_path / "full"
    paths = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    command = hurt(PYTHONPATH=paths, CHAOS_DISK_FULL=str(full))

    def fault(command: Any, chance: random.Random) -> None:
        full.touch()
        status = command.wait()
        full.unlink()
        assert status == 75, command.err
        assert "No space left on device" in command.err
        command.start()

    assert hurt_often(command, [fault] * 4, seed=4) == 4
    unharmed(command)


@pytest.mark.long
def test_a_tracker_that_goes_away_and_a_database_that_is_restarted_show_everything_in_the_end(
    hurt: Any, unharmed: Any, postgres: Any, make_tracker: Any
) -> None:
    tracker = make_tracker(postgres.new_database())
    command = hurt("--tracking-uri", tracker.uri, "--storage", postgres.new_database())

    def both(command: Any, chance: random.Random) -> None:
        postgres.restart()
        tracker.kill()
        command.until_further(1)
        tracker.start()

    assert hurt_often(command, [both] * 3, seed=6) == 3
    unharmed(command)


@pytest.mark.long
def test_sigterm_ends_within_30_seconds_though_a_worker_does_not_answer(hurt: Any, unharmed: Any) -> None:
    command = hurt()
    command.start()
    assert command.until_further(2)
    os.kill(command.workers()[0], signal.SIGSTOP)
    begun = time.monotonic()
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait() == 75
    assert time.monotonic() - begun < 30
    command.finish()
    unharmed(command)


@pytest.mark.long
def test_a_second_ctrl_c_ends_everything_at_once(hurt: Any, unharmed: Any, wait_until: Any, alive: Any) -> None:
    command = hurt()
    command.start()
    assert command.until_further(2)
    workers = command.workers()
    for worker in workers:  # so that the first cannot have its way
        os.kill(worker, signal.SIGSTOP)
    os.killpg(command.pid, signal.SIGINT)
    wait_until(lambda: "Ctrl-C again" in command.err)
    begun = time.monotonic()
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    assert time.monotonic() - begun < 15, "views are given 8 seconds"
    wait_until(lambda: not any(map(alive, workers)), seconds=5)
    command.finish()
    unharmed(command)


@pytest.mark.long
def test_a_time_limit_ends_with_a_ranking_and_the_same_command_goes_on(hurt: Any, unharmed: Any) -> None:
    command = hurt("--timeout", "15s")
    command.start()
    status = command.wait()
    assert command.state.ended is not None
    assert command.state.ended.reason == "timeout"
    assert status == 0, command.err
    assert "ranking by PSNR" in (command.root / "1.out").read_text()
    while not command.state.complete:
        command.start()
        assert command.wait() == 0, command.err
    command.finish()
    unharmed(command)
