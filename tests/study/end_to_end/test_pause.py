"""Trials that pause at a rung and are promoted later, trained for real."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def patient(tiny: Any, tmp_path: Path) -> Path:
    """The tiny question with the scheduler that pauses, and replicates at the end."""
    path = tmp_path / "patient.py"
    changed = "    reduction_factor=3.0,\n    scheduler='asha',\n    finalists=1,\n    replicates=2,\n"
    path.write_text(tiny.experiment.read_text().replace("    reduction_factor=2.0,\n    replicates=0,\n", changed))
    return path


def test_a_promoted_trial_is_the_same_trial_and_run_and_bit_for_bit_one_that_never_paused(
    patient: Path, tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    from mlflow.tracking import MlflowClient

    root = tmp_path / "root"
    argv = ["--experiment", patient, "--data", tiny.data, "--root", root]
    ended = commands.run("study.run", *argv, "--trials", 10, "--storage", "none")
    assert (ended.status, ended.err) == (0, "")
    state = state_of(root, "patient")
    promoted = [t for t in state.trials.values() if t.promoted]
    assert promoted
    for trial in promoted:
        assert [start.patches for start in trial.starts] == [0, 120]
        said = commands.run("study.reproduce", trial.number, "--root", root, "--study-name", "patient")
        assert said.last_line == "verdict: bit-identical, every point of the curve and the weights"
    assert not list(root.rglob("*checkpoint.safetensors*"))

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "patient"]
    runs = {r.data.tags.get("study.trial"): r for r in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 1 + len(state.trials)
    assert {r.info.status for r in runs.values()} <= {"FINISHED", "KILLED"}
    for trial in promoted:
        run = runs[str(trial.number)]
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "val/psnr")]
        assert steps == [60, 120, 180, 240]
    names = {r.info.run_name for r in runs.values()}
    again = f"trial {state.best().number} / seed"
    assert {f"{again} 1", f"{again} 2", "authors / seed 1", "blog / seed 2"} <= names
    assert runs[str(state.best().number)].data.tags["study.state"] == "finished"


def test_a_paused_trial_can_be_promoted_after_a_kill(
    patient: Path, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any, state_of: Any, wait_until: Any
) -> None:
    roots = [tmp_path / name for name in ("whole", "killed")]
    argv = ["--experiment", patient, "--data", tiny.data, "--trials", 7, "--storage", "none", "--tracking-uri", "none"]
    assert commands.run("study.run", *argv, "--root", roots[0]).status == 0
    running = commands.start("study.run", *argv, "--root", roots[1])
    journal = roots[1] / "patient" / "journal.jsonl"
    wait_until(lambda: journal.exists() and b'"Paused"' in journal.read_bytes())
    running.kill()
    running.wait()
    assert any(t.status in ("paused", "waiting", "running") for t in state_of(roots[1], "patient").trials.values())
    assert commands.run("study.run", *argv, "--root", roots[1]).status == 0
    assert outcome_of(roots[1], "patient") == outcome_of(roots[0], "patient")
