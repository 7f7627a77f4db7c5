"""A study whose folder was copied to another machine, and a study that compares named settings.

Run with `pytest -m long tests/study/end_to_end/test_named_settings.py`.
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


def test_a_study_continues_elsewhere_from_its_folder_alone(
    tmp_path: Path, tiny: Any, finished: Any, commands: Any, outcome_of: Any
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    commands.run("study.run", *tiny.argv(here), first=KILLED_AT_A_CHECKPOINT)
    shutil.copytree(here / "tiny", there / "tiny")
    assert (there / "tiny" / "trials" / "0004" / "checkpoint.safetensors").exists()
    shutil.rmtree(here)
    resumed = commands.run("study.run", *tiny.argv(there))
    assert resumed.status == 0, resumed.err
    assert outcome_of(there) == outcome_of(finished.root)


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
