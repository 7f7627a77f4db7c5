"""Importances while a study runs are measured in another process, so that the study does not wait for them."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from study.record.journal import Journal
from study.screen import background_importance
from study.screen.background_importance import BackgroundImportance
from study.statistics import importance

PLAIN = replace(EXPERIMENT, references={}, replicates=0)
LOSSES = {"l1": 30.0, "l2": 31.0, "charbonnier": 29.0}


@pytest.fixture
def study_with(history: Callable[..., Any], tmp_path: Path) -> Callable[[int], Any]:
    """study_with(count): a study of that many finished trials whose scores depend on the loss, with its journal."""

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


def test_they_are_those_of_the_result_and_come_without_anybody_waiting(study_with: Any, tmp_path: Path) -> None:
    study = study_with(12)
    background = BackgroundImportance(PLAIN, tmp_path / "journal.jsonl")
    begun = time.monotonic()
    try:
        while not (sentences := background.sentences(study.state)):
            assert time.monotonic() - begun < 120
            time.sleep(0.05)
    finally:
        background.close()
    expected = importance.importance_sentences(importance.importances(study.state, PLAIN), PLAIN.sampler)
    assert sentences == [f"after 12 finished trials, {expected[0]}", *expected[1:]]
    assert "train.loss" in sentences[0]


def test_the_number_of_trials_they_are_from_is_that_of_the_forest_s_points(history: Callable[..., Any]) -> None:
    experiment = replace(PLAIN, references={"known": PLAIN.base})
    study = history(experiment)
    study.session()
    number = study.propose(reference="known")
    study.start(number)
    study.validate(number, *[30.5] * 4)
    study.end(number)
    losses = list(LOSSES)
    for i in range(12):
        values = {**PLAIN.base.dotted(), "train.loss": losses[i % 3], "model.temperature": (0.1, 1.0, 10.0)[i % 3]}
        study.try_out({name: values[name] for name in PLAIN.space.names}, 29.0 + i % 3 + i / 1000)
    study_with = background_importance._describe(study.state, experiment)
    points, _ = importance.located(study.state, experiment.space, experiment.base.dotted())
    assert len(points) == 13 and study_with[0].startswith("after 13 finished trials, importance")


def test_the_measure_does_not_hear_the_terminal_s_ctrl_c_and_the_caller_still_does(
    study_with: Any, tmp_path: Path
) -> None:
    study_with(10)
    look = (  # in a process of its own, where nothing has started Python's resource tracker yet
        "import signal, sys\nfrom dataclasses import replace\nfrom pathlib import Path\n"
        "from experiments.quickstart import EXPERIMENT\n"
        "from study.screen.background_importance import BackgroundImportance\n"
        "from study.record.journal import read\nfrom study.record.state import fold\n"
        "background = BackgroundImportance(replace(EXPERIMENT, references={}, replicates=0), Path(sys.argv[1]))\n"
        "background.sentences(fold(read(Path(sys.argv[1]))))\n"
        "status = Path(f'/proc/{background._process.pid}/status').read_text()\n"
        "print(status.partition('SigBlk:')[2].split()[0], len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
        "background.close()\n"
    )
    argv = [sys.executable, "-c", look, tmp_path / "journal.jsonl"]
    ended = subprocess.run(argv, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    blocked, own = ended.stdout.split()
    assert int(blocked, 16) == 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1
    assert own == "0"


def test_too_few_trials_start_no_process(study_with: Any, tmp_path: Path) -> None:
    study, background = study_with(9), BackgroundImportance(PLAIN, tmp_path / "journal.jsonl")
    assert background.sentences(study.state) == [] and background._process is None


def test_a_measure_under_way_ends_with_the_view_and_none_begins_after_it(study_with: Any, tmp_path: Path) -> None:
    study, background = study_with(10), BackgroundImportance(PLAIN, tmp_path / "journal.jsonl")
    begun = time.monotonic()
    assert background.sentences(study.state) == []
    process = background._process
    assert process is not None and process.is_alive()
    background.close()
    assert process.exitcode is not None and time.monotonic() - begun < 5
    assert background.sentences(study.state) == [] and background._process is None


def test_a_measure_that_died_is_not_repeated_at_once(study_with: Any, tmp_path: Path) -> None:
    study, background = study_with(10), BackgroundImportance(PLAIN, tmp_path / "journal.jsonl")
    background.sentences(study.state)
    assert background._process is not None
    background._process.kill()
    background._process.join()
    for _ in range(3):
        assert background.sentences(study.state) == []
    assert background._process is None
    background.close()
