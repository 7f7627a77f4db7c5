"""Study folders that were renamed or copied, and `study.branch`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError
from study.question.config import short_digest
from study.record.branching import branch
from study.record.events import StudyOpened
from study.record.folder import StudyFolder
from study.record.journal import encode, read, study_id
from study.record.state import fold
from study.report.__main__ import add_to_mlflow
from study.tracking.databases import default_tracking_uri


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
    made = root / "mine"
    assert not (made / "link.txt").exists()
    assert not (made / "lock").exists()
    original, copy = (fold(read(folder / "journal.jsonl")) for folder in (study.path, made))
    assert copy.trials == original.trials
    assert copy.opened is not None and copy.opened.study == "mine"
    assert copy.opened.data["branched_from"]["study"] == "tiny"
    assert copy.opened.digest == original.opened.digest  # type: ignore[union-attr]
    weights = "trials/0000/weights.safetensors"
    assert (made / weights).read_bytes() == before[weights]
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


def test_a_study_that_goes_on_while_it_is_copied_is_not_branched(
    finished_copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished_copy.folder
    copy_one = shutil.copy2

    def go_on(source: Path, target: Path) -> Any:
        with study.journal.open("ab") as file:
            file.write(b"a line of a session that began by now\n")
        return copy_one(source, target)

    monkeypatch.setattr(shutil, "copy2", go_on)
    with pytest.raises(SuiteError, match="continued while it was copied"):
        branch(study, replace(study, study="mine"))
    assert not [path for path in finished_copy.root.iterdir() if "mine" in path.name]


def opened_of(folder: StudyFolder) -> StudyOpened:
    first = next(read(folder.journal))
    assert isinstance(first, StudyOpened)
    return first


def test_longer_trainings_of_a_renamed_folder_belong_to_the_study_under_its_new_name(
    finished_copy: Any, commands: Any
) -> None:
    root = finished_copy.root
    before = opened_of(finished_copy.folder)
    question = {**before.question, "training": {"study": study_id(before), "trial": 0}}
    training = replace(before, question=question, digest=short_digest(question))
    finished_copy.folder.path.rename(root / "mine")
    folder = StudyFolder(root, "mine", "0000-99")
    folder.path.mkdir(parents=True)
    folder.journal.write_bytes(encode(0, training))
    said = commands.run("study.branch", "mine", "--root", root, "--study-name", "mine")
    assert (said.status, said.err) == (0, "")
    after, study = opened_of(folder), opened_of(StudyFolder(root, "mine"))
    assert (after.study, after.question["training"]) == ("mine", {"study": study_id(study), "trial": 0})
    assert after.digest == short_digest(after.question)
    assert study_id(after) != study_id(training)


def test_a_copy_s_report_does_not_go_into_the_run_of_the_original(
    finished_copy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = finished_copy.root
    shutil.copytree(finished_copy.folder.path, root / "mine")
    page = root / "mine" / "page.html"
    page.write_text("a copy's")
    add_to_mlflow(StudyFolder(root, "mine"), page, None)
    assert "not added to MLflow: " in capsys.readouterr().out
    assert not list((root / "artifacts").rglob(page.name))
    with pytest.raises(SuiteError, match="renamed or copied"):
        add_to_mlflow(StudyFolder(root, "mine"), page, default_tracking_uri(root))


def test_a_branch_that_cannot_be_made_changes_nothing(finished_copy: Any, commands: Any) -> None:
    root = finished_copy.root
    before = contents(root)
    (root / "taken").mkdir()
    for name, word in (("taken", "already exists"), ("tiny", "already has that name"), ("a/b", "study name")):
        assert word in one_line(commands.run("study.branch", name, "--root", root, "--study-name", "tiny"))
    assert contents(root) == before
