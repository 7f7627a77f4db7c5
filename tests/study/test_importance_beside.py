"""Importances while a study runs: measured elsewhere, so that nobody waits for them."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study import importance
from study.importance_beside import ImportanceBeside
from study.journal import Journal

PLAIN = replace(EXPERIMENT, references={}, replicates=0)
LOSSES = {"l1": 30.0, "l2": 31.0, "charbonnier": 29.0}


@pytest.fixture
def told(history: Callable[..., Any], tmp_path: Path) -> Callable[[int], Any]:
    """told(count): a study of so many finished trials whose scores the loss decides, with its journal."""

    def make(count: int) -> Any:
        study = history(PLAIN)
        study.session()
        for i in range(count):
            loss = list(LOSSES)[i % 3]
            values = {**PLAIN.base.dotted(), "train.loss": loss, "model.temperature": (0.1, 1.0, 10.0, 100.0)[i % 4]}
            study.try_out({name: values[name] for name in PLAIN.space.names}, LOSSES[loss] + i / 1000)
        journal = Journal(tmp_path / "journal.jsonl")
        for event in study.events:
            journal.append(event)
        journal.close()
        return study

    return make


def test_they_are_those_of_the_result_and_come_without_anybody_waiting(told: Any, tmp_path: Path) -> None:
    study = told(12)
    beside = ImportanceBeside(PLAIN, tmp_path / "journal.jsonl")
    begun = time.monotonic()
    try:
        while not (found := beside.sentences(study.state)):
            assert time.monotonic() - begun < 120
            time.sleep(0.05)
    finally:
        beside.close()
    expected = importance.sentences(importance.importances(study.state, PLAIN), PLAIN.sampler)
    assert found == [f"after 12 finished trials, {expected[0]}", *expected[1:]]
    assert "train.loss" in found[0]


def test_too_few_trials_start_no_process(told: Any, tmp_path: Path) -> None:
    study, beside = told(9), ImportanceBeside(PLAIN, tmp_path / "journal.jsonl")
    assert beside.sentences(study.state) == [] and beside._process is None


def test_a_measure_under_way_ends_with_the_view_and_none_begins_after_it(told: Any, tmp_path: Path) -> None:
    study, beside = told(10), ImportanceBeside(PLAIN, tmp_path / "journal.jsonl")
    begun = time.monotonic()
    assert beside.sentences(study.state) == []
    process = beside._process
    assert process is not None and process.is_alive()
    beside.close()
    assert process.exitcode is not None and time.monotonic() - begun < 5
    assert beside.sentences(study.state) == [] and beside._process is None


def test_a_measure_that_died_is_not_repeated_at_once(told: Any, tmp_path: Path) -> None:
    study, beside = told(10), ImportanceBeside(PLAIN, tmp_path / "journal.jsonl")
    beside.sentences(study.state)
    assert beside._process is not None
    beside._process.kill()
    beside._process.join()
    for _ in range(3):
        assert beside.sentences(study.state) == []
    assert beside._process is None
    beside.close()
