"""The records that lie in experiments/records, and the weights that were released from them."""

import csv
import gzip
import hashlib
import json
import re
from collections import Counter
from contextlib import closing
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
from study.question.config import TrialConfig, short_digest
from study.question.experiment import load_experiment
from study.record.events import Finished, Warned
from study.record.folder import StudyFolder
from study.record.journal import Journal, read, study_id
from study.record.state import StudyState, fold
from study.report.answer import answer
from study.report.ranking import ranking
from study.report.record import record_of
from study.results import trials
from study.session.opening import question_of, runtime_of
from study.statistics.stats import paired
from study.statistics.verdict import verdict, words
from study.status import main as status

FOLDER = Path(experiments.__path__[0])
RECORDS = sorted(path.parent for path in FOLDER.glob("records/*/journal.jsonl.gz"))

PUBLISHED = FOLDER / "records"
SEARCH = PUBLISHED / "a2n_x2_cpu"


IDENTITIES = {
    "a2n_x2_cpu": ("7f84e3a3f5cd1c7a", "2bb47736a485eaa2", "a007e1a050be860f"),
    "a2n_x2_cpu/trainings/0000-61440": ("596cd79be299a297", "ee6060f558ce6df7", "77923e4bdb074fad"),
    "a2n_x2_cpu/trainings/0001-61440": ("f620a086bfad8e0a", "543b10198bd5e976", "cb9d998e2afa79db"),
    "a2n_x2_cpu/trainings/0038-61440": ("176b21f2fd1d461d", "338ea2604fea0274", "b59443a07368ee93"),
    "claims_x2_cpu": ("9232acd30de47a66", "919fa19cdb868103", "f3a567ec639ffb35"),
    "kernels_x2_cpu": ("d9b37a702beeb852", "0536e14e58675aee", "7b27d96bdd5235b0"),
    "scratch_x4_cpu": ("63b646dc5a8f30cf", "a88ffed6df411110", "9446472a28b2f889"),
    "scratch_x4_cpu/trainings/0000-3840-from-9749cd13": ("d462bd5742a61793", "c52bfbfb65616c79", "75cf112420cfc38e"),
    "scratch_x4_cpu/trainings/0001-3840-from-0af94f01": ("86815c130329ebc2", "1a56e004c3187edc", "ea8c7e16c0d273c8"),
    "scratch_x4_cpu/trainings/0002-3840-from-a6b0b482": ("cfb8737aeb94f04e", "f31abff1946c6c36", "bee7a06822f74833"),
    "scratch_x4_cpu/trainings/0003-3840-from-7f568382": ("bbb4144d1586f496", "f12620fd0acb024a", "3ea1b424bb1c1a42"),
    "scratch_x4_cpu/trainings/0004-3840-from-da46b1cd": ("b29bdc7ff7d54674", "dbc01fc757d73762", "b21ab5d2c568d2ba"),
}
"""By the folder of each journal: the study's id, its question's digest, and a digest of its trials' config hashes, all
as version 0.1 computes them."""


def page() -> str:
    """The results page, every white space a single blank."""
    return " ".join((FOLDER.parent / "docs/development/results.md").read_text().split())


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
def test_a_record_is_small_and_holds_no_image(folder: Path) -> None:
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
    text = (FOLDER.parent / "docs/development/results.md").read_text()
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


# Records outlive code


def identity(journal: Path) -> tuple[str, str, str]:
    """As in `IDENTITIES`, computed from what the journal says rather than read from it."""
    state = fold(read(journal))
    assert state.opened is not None
    hashes = " ".join(trial.config.digest() for trial in state.trials.values())
    digest = short_digest(state.opened.question)
    assert digest == state.opened.digest
    return study_id(state.opened), digest, hashlib.sha256(hashes.encode()).hexdigest()[:16]


def test_every_journal_has_the_identity_that_version_0_1_gave_it() -> None:
    found = {
        journal.parent.relative_to(PUBLISHED).as_posix(): identity(journal)
        for journal in sorted(PUBLISHED.rglob("journal.jsonl.gz"))
    }
    assert found == IDENTITIES


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_the_experiment_of_a_record_still_asks_the_recorded_question(folder: Path) -> None:
    opened = recorded(folder).opened
    assert opened is not None
    _, experiment = load_experiment(opened.experiment)
    assert short_digest(question_of(experiment, opened.seed, opened.data["fingerprint"])) == opened.digest


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_is_told_listed_and_ranked_as_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["--root", str(PUBLISHED), "--study-name", folder.name]) == 0
    assert folder.name in capsys.readouterr().out
    state = recorded(folder)
    table = trials(folder.name, PUBLISHED)
    assert len(table) == sum(not trial.is_replicate for trial in state.trials.values())
    written = list(csv.DictReader((folder / "results/ranking.csv").read_text("utf-8").splitlines()))
    finished = table[table["rank"].notna()]
    assert list(finished["trial"]) == [int(row["trial"]) for row in written if row["state"] == "finished"]
    assert [f"{psnr:.4f}" for psnr in finished["val/psnr"]] == [
        f"{float(row['val/psnr']):.4f}" for row in written if row["state"] == "finished"
    ]


@pytest.mark.parametrize("folder", RECORDS[:3], ids=lambda folder: folder.name)
def test_the_verdict_of_a_record_has_the_numbers_that_it_was_published_with(folder: Path) -> None:
    published = (folder / "results/verdict.txt").read_text("utf-8")
    decibels = re.compile(r"\d+\.\d\d(?= dB)")
    now = set(decibels.findall("\n".join(words(recorded(folder)))))
    first_two = [decibels.findall(line)[0] for line in published.splitlines()[1:] if "95 %" in line]
    assert first_two and set(first_two) <= now


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_is_reported_without_its_images(folder: Path) -> None:
    place = StudyFolder(PUBLISHED, folder.name)
    record = record_of(place, read(place.journal), None)
    assert record.phase == "complete"
    assert record.base.recorded() == {**record.opened.question["base"], "seed": 0}
    best = record.state.best()
    shown = str(answer(record, verdict(record.state))) + str(ranking(record).body)
    if best is not None:
        assert f"{best.score:.3f} dB" in shown
    assert str(max(record.state.trials)) in shown or not record.state.best()


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_a_record_that_was_unpacked_under_another_root_can_be_owned_and_continued(folder: Path, tmp_path: Path) -> None:
    place = StudyFolder(tmp_path, folder.name)
    place.create()
    lines = gzip.decompress((folder / "journal.jsonl.gz").read_bytes())
    place.journal.write_bytes(lines)
    with closing(Journal(place.journal)) as journal:
        journal.append(Warned(time=0.0, message="continued"))
    assert place.journal.read_bytes().startswith(lines)
    state = fold(read(place.journal))
    assert state.warnings[-1] == "continued"
    assert state.trials == recorded(folder).trials
