"""Slots and the cores of the machine."""

import argparse
import os

import pytest

from sr_core.errors import SuiteError
from study.executors.placement import Placement, add_placement_flags, placement_of


@pytest.mark.parametrize(("slots", "threads", "cores"), [(1, 2, 2), (1, 8, 2), (2, 1, 2), (2, 2, 4)])
def test_slots_that_the_cores_are_enough_for_are_taken(slots: int, threads: int, cores: int) -> None:
    Placement(slots=slots, executor="processes").check({"threads": threads}, cores)


def test_a_study_of_more_threads_than_a_slot_has_cores_says_that_they_stay() -> None:
    with pytest.raises(SuiteError) as refused:
        Placement(slots=2, executor="processes").check({"threads": 2}, 2)
    assert str(refused.value) == (
        "--slots 2: expected at most 1, because each slot needs 2 threads and the machine has 2 cores; a study keeps "
        "the number of threads that it began with: begin a new study under another --study-name"
    )


def test_on_a_cluster_the_machine_of_the_coordinator_says_nothing() -> None:
    Placement(slots=64, executor="ray").check({"threads": 2}, 2)


@pytest.mark.parametrize(("trials_per_gpu", "slots_per_device"), [(0, 1), (1, 1), (2, 2)])
def test_on_a_cluster_as_many_trials_share_a_gpu_as_were_asked_for(trials_per_gpu: int, slots_per_device: int) -> None:
    assert Placement(executor="ray", slots=8, trials_per_gpu=trials_per_gpu).slots_per_device == slots_per_device


def placed(monkeypatch: pytest.MonkeyPatch, gpus: str, visible: str | None) -> Placement:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what is set goes with the test
    parser = argparse.ArgumentParser()
    add_placement_flags(parser)
    return placement_of(parser.parse_args(["--gpus", gpus]))


@pytest.mark.parametrize(
    ("gpus", "visible", "names"),
    [
        ("0", None, ("0",)),
        ("1,0", "4,7", ("7", "4")),
        ("1", " 2 , 3 ", ("3",)),
        ("0", "GPU-8932f937-d72c", ("GPU-8932f937-d72c",)),
        ("1", "MIG-a,MIG-b", ("MIG-b",)),
        ("0", "5,-1,6", ("5",)),
    ],
)
def test_gpus_are_counted_among_those_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, gpus: str, visible: str | None, names: tuple[str, ...]
) -> None:
    assert placed(monkeypatch, gpus, visible).gpus == names
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(names)
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "as nvidia-smi counts them"


@pytest.mark.parametrize("visible", ["", " ", "-1", "NoDevFiles", "none", "-1,0", "3,3"])
def test_a_job_that_was_given_no_gpu_takes_none(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with pytest.raises(SuiteError, match=f"--gpus 0: CUDA_VISIBLE_DEVICES={visible} leaves none"):
        placed(monkeypatch, "0", visible)


@pytest.mark.parametrize("visible", ["0", "0,-1,1", "GPU-a"])
def test_a_gpu_beyond_those_that_are_visible_is_refused(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    with pytest.raises(SuiteError, match="leaves 1, counted from 0"):
        placed(monkeypatch, "1", visible)


def test_an_order_of_gpus_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    parser = argparse.ArgumentParser()
    add_placement_flags(parser)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    placement_of(parser.parse_args(["--gpus", "0"]))
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
