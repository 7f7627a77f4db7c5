"""Work that is distributed to processes."""

import os
import signal
import time

import pytest

from sr_core.errors import ImageError, SuiteError
from sr_core.process.workers import Workers


def squared(number: int) -> int:
    return number * number


def refused_at_five(number: int) -> int:
    if number == 5:
        raise ImageError("the sixth")
    return number


def killed_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_every_task_gives_its_result_once(count: int) -> None:
    with Workers(count) as workers:
        found = list(workers.results(squared, range(100)))
    assert len(found) == 100
    assert dict(found) == {number: number * number for number in range(100)}


def test_tasks_are_handed_over_as_results_are_taken() -> None:
    """Waiting results stay in memory, so the pool must not work on all images of a large set in advance."""

    class Tasks(list[int]):
        taken = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(1000):
                self.taken += 1
                yield number

    tasks = Tasks()
    with Workers(2) as workers:
        results = workers.results(squared, tasks)
        next(results)
        time.sleep(0.2)
        assert tasks.taken <= 16
        results.close()  # type: ignore[attr-defined]


def test_what_the_work_raises_comes_up() -> None:
    with Workers(2) as workers, pytest.raises(ImageError, match="the sixth"):
        list(workers.results(refused_at_five, range(100)))


def test_a_process_that_is_killed_is_one_clear_error() -> None:
    with Workers(2) as workers, pytest.raises(SuiteError, match="ended from outside"):
        list(workers.results(killed_at_five, range(100)))
