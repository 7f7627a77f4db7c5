"""Slots and the cores of the machine."""

import pytest

from sr_core.errors import SuiteError
from study.placement import Placement


@pytest.mark.parametrize(("slots", "threads", "cores"), [(1, 2, 2), (1, 8, 2), (2, 1, 2), (2, 2, 4)])
def test_slots_that_the_cores_are_enough_for_are_taken(slots: int, threads: int, cores: int) -> None:
    Placement(slots=slots, executor="processes").check({"threads": threads}, cores)


def test_a_study_of_more_threads_than_a_slot_has_cores_says_that_they_stay() -> None:
    with pytest.raises(SuiteError) as refused:
        Placement(slots=2, executor="processes").check({"threads": 2}, 2)
    assert str(refused.value) == (
        "--slots 2: expected at most 1, for each trains with 2 threads and the machine offers 2 cores; a study keeps "
        "the threads that it began with: begin one under another --study-name"
    )


def test_on_a_cluster_the_machine_of_the_coordinator_says_nothing() -> None:
    Placement(slots=64, executor="ray").check({"threads": 2}, 2)
