"""The records that lie in experiments/records, and the weights that were released from them."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import experiments
from experiments import a2n_x2_cpu, a2n_x2_small_pictures
from sr_core.model.network import A2N
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


def test_the_released_training_went_on_from_what_the_trial_had_come_to_and_the_card_says_so() -> None:
    search = fold(read(FOLDER / "records/a2n_x2_cpu/journal.jsonl.gz"))
    [training] = fold(read(RELEASED_FROM / "journal.jsonl.gz")).trials.values()
    found = Counter((trial.proposed.role, trial.status) for trial in search.trials.values())
    assert found == {
        ("reference", "finished"): 2,
        ("search", "finished"): 1,
        ("search", "paused"): 5,
        ("search", "running"): 1,
    }
    before = search.trials[6]
    assert isinstance(before.end, Finished)
    assert training.proposed.initial == before.end.weights
    card = " ".join((FOLDER / "released/a2n_small_x2/README.md").read_text().split())
    assert "the only proposal that finished" in card
    assert "two references, the recipes, which finished at lower scores, five proposals paused at a rung" in card
    assert f"weights {before.end.weights[:8]}" in card
    assert f"{before.patches + training.patches:,} patches" in card


def test_every_score_of_ours_on_the_results_page_is_labelled_one_run() -> None:
    page = (FOLDER.parent / "docs/RESULTS.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith("| released here")]
    scores = json.loads((FOLDER / "released/a2n_small_x2/scores.json").read_text())
    assert row.split("|")[2:4] == [f" {scores[name]['psnr']:.3f} *one run* " for name in ("Set5", "Set14")]
    assert f"{scores['Set5']['psnr']:.2f} dB on Set5 x2 (one run)" in (FOLDER.parent / "README.md").read_text()


def test_the_full_network_s_patch_takes_as_many_times_the_arithmetic_as_the_results_page_says() -> None:
    counts = []
    for base in (a2n_x2_cpu.BASE, a2n_x2_small_pictures.BASE):
        size = base.data.lr_patch_size
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            A2N(base.model, base.data.scale)(torch.zeros(1, 3, size, size))
        counts.append(counter.get_total_flops() / 2e9)  # a multiply-add is two operations
    small, full = counts
    page = " ".join((FOLDER.parent / "docs/RESULTS.md").read_text().split())
    assert f"{small:.3f} G multiply-adds forward, {full:.2f} G the full network" in page
    assert f"{full / small:.0f} times as many" in page
    assert f"{full / small:.0f} times the multiply-adds" in " ".join((a2n_x2_cpu.__doc__ or "").split())
