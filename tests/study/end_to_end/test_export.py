"""`study.reproduce --export` writes a self-contained folder that reproduces its trial without the study."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.question.config import TrialConfig


@pytest.fixture
def stand_alone(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """stand_alone(script, *argv): what `python reproduce.py argv` says, in another folder, without this checkout."""

    def run(script: Path, *argv: object) -> subprocess.CompletedProcess[str]:
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "study").mkdir(parents=True, exist_ok=True)
        (elsewhere / "study" / "__init__.py").write_text("raise RuntimeError('the package of another project')")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [sys.executable, str(script), *map(str, argv)]
        return subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)

    return run


@pytest.mark.slow
def test_the_folder_reproduces_the_winner_when_study_weights_and_store_are_gone(
    finished_copy: Any, tiny: Any, commands: Any, tmp_path: Path, stand_alone: Any
) -> None:
    best = finished_copy.state.best()
    shutil.rmtree(finished_copy.folder.path / "trials")
    to = tmp_path / "export"
    told = commands.run("study.reproduce", "best", "--root", finished_copy.root, "--export", to)
    assert (told.status, told.err) == (0, "")
    assert told.last_line == f"next: python {to / 'reproduce.py'} --data DIR"
    shutil.rmtree(finished_copy.root)

    moved = tmp_path / "on another machine"
    to.rename(moved)
    found = json.loads((moved / "trial.json").read_text())
    assert TrialConfig.from_json(found["config"]) == best.config
    assert (found["weights"], found["seeds"]["trial"]) == (best.end.weights, best.config.seed)
    assert [p["val/psnr"] for p in found["curve"]] == [p.scores["val/psnr"] for p in best.curve]
    with (moved / "pictures.csv").open() as file:
        rows = [tuple(row) for row in csv.reader(file)][1:]
    assert rows == [tuple(row) for row in finished_copy_images(moved)]
    sums = dict(line.split("  ")[::-1] for line in (moved / "SHA256SUMS").read_text().splitlines())
    there = {p.relative_to(moved).as_posix() for p in moved.rglob("*") if p.is_file()}
    assert there == {*sums, "SHA256SUMS"}
    assert all(hashlib.sha256((moved / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    assert not [name for name in there if name.endswith((".png", ".jpg", ".h5", ".safetensors"))]
    pins = [line.partition("  #")[0] for line in (moved / "requirements.txt").read_text().splitlines()]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    assert {"torch", "numpy", "opencv-python-headless", "safetensors"} <= {pin.partition("==")[0] for pin in pins}

    said = stand_alone(moved / "reproduce.py", "--no-venv", "--data", tiny.data, "--strict")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines()[-1] == "verdict: bit-identical, every point of the curve and the weights"
    assert f"trial {best.number} of tiny: config {best.proposed.config_hash}, 240 patches" in said.stdout


def finished_copy_images(export: Path) -> list[list[str]]:
    """The images of the exported record's first line."""
    from study.record.folder import StudyFolder
    from study.record.journal import read

    return next(read(StudyFolder(export / "record", "tiny").journal)).data["pictures"]  # type: ignore[attr-defined]


def check_refused(said: Any, *words: str) -> None:
    assert (said.status, len(said.err.splitlines())) == (2, 1)
    assert all(word in said.err for word in words), said.err


def test_what_is_there_already_is_kept_and_what_makes_no_sense_is_refused(
    finished: Any, commands: Any, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    taken = here / "taken"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("mine")
    argv = ("study.reproduce", 0, "--root", finished.root, "--export")
    check_refused(commands.run(*argv, taken), str(taken), "expected a new or an empty folder")
    check_refused(commands.run(*argv, taken / "mine.txt"), "expected a new or an empty folder")
    check_refused(commands.run(*argv, taken / "mine.txt" / "below"), "cannot be written")
    check_refused(commands.run(*argv, here / "new", "--strict"), "--export neither trains nor compares")
    assert [p.relative_to(here).as_posix() for p in sorted(here.rglob("*"))] == ["taken", "taken/mine.txt"]


def test_a_record_that_contradicts_itself_is_not_exported(finished_copy: Any, commands: Any, tmp_path: Path) -> None:
    path = finished_copy.folder.trial(0) / "config.json"
    path.write_text(path.read_text().replace('"seed": ', '"seed": 1'))
    said = commands.run("study.reproduce", 0, "--root", finished_copy.root, "--export", tmp_path / "export")
    assert (said.status, said.last_line) == (4, "verdict: different")
    assert not (tmp_path / "export").exists()


@pytest.mark.long
def test_a_replicate_is_exported_and_reproduced_in_a_fresh_virtual_environment(
    tiny: Any, commands: Any, tmp_path: Path, stand_alone: Any, state_of: Any
) -> None:
    """On scikit-image's images, with what pip installs for the exported pins. Minutes: torch is large."""
    experiment = tmp_path / "embedded.py"
    experiment.write_text(tiny.experiment.read_text().replace("replicates=0", "replicates=2"))
    root, to = tmp_path / "root", tmp_path / "export"
    argv = ["--experiment", experiment, "--root", root, "--trials", 4, "--tracking-uri", "none", "--storage", "none"]
    assert commands.run("study.run", *argv).status == 0
    replicate = next(t for t in state_of(root, "embedded").trials.values() if t.is_replicate)
    told = commands.run("study.reproduce", replicate.number, "--root", root, "--export", to)
    assert (told.status, told.last_line) == (0, f"next: python {to / 'reproduce.py'}")
    shutil.rmtree(root)
    said = stand_alone(to / "reproduce.py", "--strict")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.splitlines()[-1] == "verdict: bit-identical, every point of the curve and the weights"
    installed = subprocess.run(
        [to / ".venv" / "bin" / "python", "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True
    ).stdout.lower()
    assert "optuna" not in installed and "mlflow" not in installed
    again = stand_alone(to / "reproduce.py")
    assert again.returncode == 0 and "installing" not in again.stdout
