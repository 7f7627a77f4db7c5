"""Study folders that were renamed or copied, and `study.branch`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from study.journal import read
from study.state import fold


def one_line(said: Any) -> str:
    assert (said.status, len(said.err.splitlines())) == (2, 1), said.err
    return str(said.err)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("command", ["run", "sync"])
def test_a_copied_folder_does_not_continue_under_the_identity_of_the_original(
    finished_copy: Any, tiny: Any, commands: Any, command: str
) -> None:
    root, study = finished_copy.root, finished_copy.folder.path
    shutil.copytree(study, root / "mine")
    before = contents(root / "mine")
    argv = tiny.argv(root) if command == "run" else ["--root", root]
    said = one_line(commands.run(f"study.{command}", *argv, "--study-name", "mine"))
    assert "'tiny'" in said and "python -m study.branch mine" in said
    assert contents(root / "mine") == before


def test_a_branch_has_all_trials_and_an_identity_of_its_own_and_leaves_the_original_alone(
    finished_copy: Any, commands: Any
) -> None:
    root, study = finished_copy.root, finished_copy.folder
    outside = root / "secret.txt"
    outside.write_text("secret")
    (study.path / "link.txt").symlink_to(outside)
    before = contents(study.path)
    said = commands.run("study.branch", "mine", "--root", root, "--study-name", "tiny")
    assert (said.status, said.err) == (0, "")
    assert contents(study.path) == before
    branch = root / "mine"
    assert not (branch / "link.txt").exists()
    assert not (branch / "lock").exists()
    original, copy = (fold(read(folder / "journal.jsonl")) for folder in (study.path, branch))
    assert copy.trials == original.trials
    assert copy.opened is not None and copy.opened.study == "mine"
    assert copy.opened.data["branched_from"]["study"] == "tiny"
    assert copy.opened.digest == original.opened.digest  # type: ignore[union-attr]
    weights = "trials/0000/weights.safetensors"
    assert (branch / weights).read_bytes() == before[weights]
    reported = commands.run("study.sync", "--root", root, "--study-name", "mine")
    assert (reported.status, reported.err) == (0, "")
    assert "new events" in reported.out


def test_a_folder_renamed_by_hand_gets_its_new_name_in_place(finished_copy: Any, commands: Any) -> None:
    root, study = finished_copy.root, finished_copy.folder.path
    study.rename(root / "mine")
    said = commands.run("study.branch", "mine", "--root", root, "--study-name", "mine")
    assert (said.status, said.err) == (0, "")
    first = json.loads((root / "mine" / "journal.jsonl").read_text().splitlines()[0])
    assert (first["study"], first["data"]["branched_from"]["study"]) == ("mine", "tiny")
    assert commands.run("study.sync", "--root", root, "--study-name", "mine").status == 0


def test_a_branch_that_cannot_be_made_changes_nothing(finished_copy: Any, commands: Any) -> None:
    root = finished_copy.root
    before = contents(root)
    (root / "taken").mkdir()
    for name, word in (("taken", "exists already"), ("tiny", "has that name already"), ("a/b", "study name")):
        assert word in one_line(commands.run("study.branch", name, "--root", root, "--study-name", "tiny"))
    assert contents(root) == before
