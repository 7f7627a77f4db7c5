"""A study that is carried from machine to machine with the few files that it needs, and one that compares settings.

Run with `pytest -m long tests/study/end_to_end/test_carry.py`.
"""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from study.record.folder import StudyFolder

pytestmark = pytest.mark.long

COMPARING = """
from dataclasses import replace
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment

BASE = TrialConfig(
    model=ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1, temperature=1.0),
    data=DataConfig(scale=2, lr_patch_size=8),
    train=TrainConfig(budget_patches=120, batch_size=4, learning_rate=4e-3, ema_horizon_patches=20.0),
    evaluation=EvaluationConfig(every_patches=60, crops=4, lr_crop_size=24),
    seed=1,
)
EXPERIMENT = Experiment(
    question="Is a tenth of the rate too little?",
    base=BASE,
    references={"slow": BASE.with_values({"train.learning_rate": 4e-4})},
    scheduler="none",
    replicates=2,
    comparisons={"Does the faster rate learn faster?": [("base", "slow")]},
)
"""

KILLED_AT_A_CHECKPOINT = """
import os, signal
from study.record.journal import Journal
append = Journal.append
def dying(self, event):
    append(self, event)
    if type(event).__name__ == "Checkpointed" and event.trial == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = dying
"""


def test_a_study_goes_on_elsewhere_with_what_was_carried(
    tmp_path: Path, tiny: Any, finished: Any, commands: Any, outcome_of: Any, tree_of: Any
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    commands.run("study.run", *tiny.argv(here), first=KILLED_AT_A_CHECKPOINT)
    carried = commands.run("experiments.carry", "--root", here, "--to", there)
    assert carried.status == 0, carried.err
    files = {name for name in tree_of(there) if not name.startswith("tiny/sessions/")}  # where code was changed
    assert "tiny/journal.jsonl" in files
    assert "tiny/trials/0004/checkpoint.safetensors" in files
    assert sum(name.endswith("weights.safetensors") for name in files) == 1  # of seven trials, the best one's
    assert sum(name.endswith("config.json") for name in files) == 1  # without it nobody can load them
    assert len(files) == 4
    shutil.rmtree(here)
    went_on = commands.run("study.run", *tiny.argv(there))
    assert went_on.status == 0, went_on.err
    assert outcome_of(there) == outcome_of(finished.root)


def test_a_study_is_not_carried_into_its_own_root(finished: Any, commands: Any) -> None:
    ended = commands.run("experiments.carry", "--root", finished.root, "--to", finished.root)
    assert ended.status == 2
    assert "that is the study's own --root" in ended.err


def test_settings_named_beforehand_are_trained_compared_and_told(
    tmp_path: Path, tiny: Any, commands: Any, state_of: Any
) -> None:
    question, root = tmp_path / "comparing.py", tmp_path / "root"
    question.write_text(COMPARING)
    argv = ["--experiment", question, "--data", tiny.data, "--root", root]
    ended = commands.run("study.run", *argv, "--tracking-uri", "none", "--storage", "none")
    assert ended.status == 0, ended.err
    trials = state_of(root, "comparing").trials
    assert [(t.proposed.role, t.proposed.name, t.proposed.replicate) for t in trials.values()] == [
        ("reference", "slow", 0),
        ("search", "", 0),
        *(("replicate", name, seed) for seed in (1, 2) for name in ("finalist 1", "slow")),
    ]
    results = StudyFolder(root, "comparing").results
    told = (results / "verdict.txt").read_text().splitlines()
    assert told[1] == "  Does the faster rate learn faster?"
    assert told[2].startswith('    "base" ') and ' "slow"' in told[2] and "3 seeds" in told[2]
    assert told[2] in ended.out.splitlines()
    reported = commands.run("study.report", "--root", root, "--no-pictures", "--out", tmp_path / "report")
    assert reported.status == 0, reported.err
    assert "Does the faster rate learn faster?" in (tmp_path / "report" / "report.html").read_text()
    [row] = csv.DictReader((results / "comparisons.csv").read_text().splitlines())
    scores = {number: trial.score for number, trial in trials.items()}
    differences = [scores[1] - scores[0], scores[2] - scores[3], scores[4] - scores[5]]
    assert float(row["difference"]) == pytest.approx(sum(differences) / 3)
    assert (row["one"], row["other"], row["seeds"], row["family"]) == ("base", "slow", "3", "1")
