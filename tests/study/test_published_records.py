"""The records that lie in experiments/records, and the weights that were released from them."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import experiments
from experiments import a2n_x2_cpu, a2n_x2_small_pictures
from experiments.longer import main as longer
from sr_core.model.network import A2N
from sr_core.model.weights import load_model
from sr_core.training.checkpoint import digest_of, weights_of
from study.config import TrialConfig
from study.events import Finished
from study.journal import read
from study.opening import runtime_of
from study.state import StudyState, fold
from study.statistics.stats import paired

FOLDER = Path(experiments.__path__[0])
RECORDS = sorted(path.parent for path in FOLDER.glob("records/*/journal.jsonl.gz"))

PUBLISHED = FOLDER / "records"
SEARCH = PUBLISHED / "a2n_x2_cpu"


def page() -> str:
    """The results page, every white space a single blank."""
    return " ".join((FOLDER.parent / "docs/RESULTS.md").read_text().split())


def recorded(folder: Path) -> StudyState:
    return fold(read(folder / "journal.jsonl.gz"))


def released_from() -> Path:
    """The record of the winner's longer training."""
    best = recorded(SEARCH).best()
    assert best is not None
    [folder] = SEARCH.glob(f"trainings/{best.number:04d}-*")
    return folder


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_of_an_earlier_version_is_trained_again_without_flushing(folder: Path) -> None:
    opened = recorded(folder).opened
    assert opened is not None and "flush_subnormals" not in opened.runtime
    assert runtime_of(opened).flush_subnormals is False


def test_there_are_published_records() -> None:
    assert [folder.name for folder in RECORDS] == ["a2n_x2_cpu", "claims_x2_cpu", "kernels_x2_cpu", "scratch_x4_cpu"]


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_is_small_and_holds_no_picture(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    assert {path.suffix for path in files} <= {".gz", ".csv", ".txt", ".json"}


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_every_trial_is_the_one_that_was_hashed_and_has_ended(folder: Path) -> None:
    state = recorded(folder)
    assert state.complete and state.trials
    for trial in state.trials.values():
        assert trial.config.digest() == trial.proposed.config_hash
        assert trial.ended and trial.curve[-1].patches <= trial.config.train.budget_patches


def test_the_search_has_at_least_fifty_trials_and_five_seeds_of_each_finalist() -> None:
    state = recorded(SEARCH)
    assert state.counted >= 50
    seeds = Counter(trial.proposed.name for trial in state.trials.values() if trial.is_replicate)
    assert len(seeds) == 3 and min(seeds.values()) >= 5


def test_the_released_weights_are_those_that_the_winner_s_longer_training_came_to() -> None:
    [trial] = recorded(released_from()).trials.values()
    released = FOLDER / "released/a2n_small_x2"
    assert isinstance(trial.end, Finished) and not trial.proposed.initial
    assert digest_of(weights_of(load_model(released / "weights.safetensors", None))) == trial.end.weights
    assert trial.config == TrialConfig.from_json(json.loads((released / "config.json").read_text()))
    card = " ".join((released / "README.md").read_text().split())
    assert f"Trial {trial.number} of the study `a2n_x2_cpu`" in card and f"{trial.patches:,} LR patches" in card


@pytest.mark.parametrize("folder", RECORDS[:3], ids=lambda folder: folder.name)
def test_the_verdicts_of_the_records_stand_on_the_results_page_word_for_word(folder: Path) -> None:
    verdicts = [
        line.strip() for line in (folder / "results/verdict.txt").read_text().splitlines() if " dB (95 %" in line
    ]
    assert verdicts
    assert [line for line in verdicts if " ".join(line.split()) not in page()] == []


def test_what_the_longer_trainings_are_said_to_differ_by_is_what_the_records_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert longer(["--root", str(PUBLISHED)]) == 0
    differences = [line for line in capsys.readouterr().out.splitlines() if " on Set" in line]
    assert len(differences) == 4
    assert [line for line in differences if line not in page()] == []


def test_what_x4_gains_by_x2_weights_is_what_the_records_say() -> None:
    scratch = recorded(PUBLISHED / "scratch_x4_cpu")
    scores = []
    for journal in sorted(PUBLISHED.glob("scratch_x4_cpu/trainings/*/journal.jsonl.gz")):
        [trial] = fold(read(journal)).trials.values()
        assert trial.proposed.initial and trial.score is not None
        scores.append((trial.score, scratch.trials[trial.number].score))
    d = paired(*zip(*scores, strict=True))
    assert f"{d.mean:+.3f} dB (95 % {d.low:.3f} to {d.high:.3f}, {d.count} seeds)" in page()


def test_the_cost_on_the_results_page_is_that_of_the_records() -> None:
    patches, seconds = 0, 0.0
    for journal in PUBLISHED.rglob("journal.jsonl.gz"):
        for trial in fold(read(journal)).trials.values():
            patches += trial.patches
            seconds += sum((getattr(trial.end, "seconds", None) or trial.curve[-1].seconds).values())
    assert f"{patches:,} patches" in page()
    assert f"{seconds / 3600:.1f} hours of one core" in page()
    assert seconds >= 3 * 3600


def test_one_run_labels_two_numbers_of_ours_and_no_verdict() -> None:
    text = (FOLDER.parent / "docs/RESULTS.md").read_text()
    [row] = [line for line in text.splitlines() if line.startswith("| released here")]
    scores = json.loads((FOLDER / "released/a2n_small_x2/scores.json").read_text())
    assert row.split("|")[2:4] == [f" {scores[name]['psnr']:.3f} *one run* " for name in ("Set5", "Set14")]
    assert text.count("*one run*") == 2
    assert f"{scores['Set5']['psnr']:.2f} dB on Set5 x2 (one run)" in (FOLDER.parent / "README.md").read_text()


def test_the_full_network_s_patch_takes_as_many_times_the_arithmetic_as_the_results_page_says() -> None:
    counts = []
    for base in (a2n_x2_cpu.BASE, a2n_x2_small_pictures.BASE):
        size = base.data.lr_patch_size
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            A2N(base.model, base.data.scale)(torch.zeros(1, 3, size, size))
        counts.append(counter.get_total_flops() / 2e9)  # a multiply-add is two operations
    small, full = counts
    assert f"{small:.3f} G multiply-adds forward, {full:.2f} G the full network" in page()
    assert f"{full / small:.0f} times as many" in page()
    assert f"{full / small:.0f} times the multiply-adds" in " ".join((a2n_x2_cpu.__doc__ or "").split())
