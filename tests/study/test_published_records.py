"""The records that lie in experiments/records, and the weights that were released from them."""

import gzip
import json
from pathlib import Path

import pytest

import experiments
from sr_core.model.weights import load_model
from sr_core.training.checkpoint import digest_of, weights_of
from study.config import TrialConfig
from study.events import Finished
from study.journal import read
from study.state import StudyState, fold

FOLDER = Path(experiments.__path__[0])
RECORDS = sorted(path.parent for path in FOLDER.glob("records/*/journal.jsonl.gz"))

RELEASED_FROM = FOLDER / "records/a2n_x2_cpu/trainings/0006-5760-from-074b3434"


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> StudyState:
    """The fold of a published journal."""
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(gzip.decompress((request.param / "journal.jsonl.gz").read_bytes()))
    return fold(read(journal))


def test_there_are_published_records() -> None:
    assert [folder.name for folder in RECORDS] == ["a2n_x2_cpu"]


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_is_small_and_holds_no_picture(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    assert {path.suffix for path in files} <= {".gz", ".csv", ".txt", ".json"}


@pytest.mark.parametrize("state", RECORDS, ids=lambda folder: folder.name, indirect=True)
def test_every_line_is_whole_and_every_trial_is_the_one_that_was_hashed(state: StudyState) -> None:
    assert state.opened is not None and state.trials
    for trial in state.trials.values():
        assert trial.config.digest() == trial.proposed.config_hash
        assert not trial.curve or trial.curve[-1].patches <= trial.config.train.budget_patches


@pytest.mark.parametrize("state", [RELEASED_FROM], ids=["training"], indirect=True)
def test_the_released_weights_are_those_that_the_recorded_training_came_to(state: StudyState) -> None:
    [trial] = state.trials.values()
    released = FOLDER / "released/a2n_small_x2"
    assert isinstance(trial.end, Finished)
    assert digest_of(weights_of(load_model(released / "weights.safetensors", None))) == trial.end.weights
    assert trial.config == TrialConfig.from_json(json.loads((released / "config.json").read_text()))


@pytest.mark.parametrize("state", [FOLDER / "records/a2n_x2_cpu"], ids=["a2n_x2_cpu"], indirect=True)
def test_the_released_training_is_of_the_record_s_best_trial(state: StudyState) -> None:
    best = state.best()
    assert best is not None
    assert RELEASED_FROM.name.startswith(f"{best.number:04d}-")
