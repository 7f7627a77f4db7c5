"""`python -m study.run` on a study that is finished: shown at once, and what is gone is made again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("torch", "mlflow", "optuna", "sqlalchemy", "pandas", "matplotlib", "sklearn", "skimage")
RUN = f"""
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
except SystemExit as exc:
    status = exc.code
sys.stdout.flush()
print("\\n" + json.dumps([status, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


def in_a_fresh_process(*arguments: object) -> tuple[int, list[str], str]:
    """(exit status, heavy libraries loaded, stdout) of `python -m …`."""
    argv = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.stderr == ""
    out, _, last = done.stdout.rstrip("\n").rpartition("\n")
    status, loaded = json.loads(last)
    return status, loaded, out.removesuffix("\n")


def times_of(root: Path) -> dict[str, int]:
    """When each file was last changed."""
    return {p.relative_to(root).as_posix(): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def again(finished_copy: Any, tiny: Any, commands: Any) -> Any:
    """again(): types the study's command again. It has been typed once since the root was copied."""

    def type_it() -> Any:
        ended = commands.run("study.run", *tiny.argv(finished_copy.root, views=True))
        assert (ended.status, ended.err) == (0, "")
        return ended

    type_it()
    return type_it


def test_a_finished_study_is_shown_again_without_training_or_tracking_libraries_and_nothing_is_written(
    finished_copy: Any, tiny: Any, again: Any
) -> None:
    shown = again().out
    before = times_of(finished_copy.root)
    status, loaded, out = in_a_fresh_process("study.run", *tiny.argv(finished_copy.root, views=True))
    assert (status, loaded) == (0, [])
    assert [line.rstrip() for line in out.splitlines()] == [line.rstrip() for line in shown.splitlines()]
    assert f"written to {finished_copy.folder.results}" in out
    assert times_of(finished_copy.root) == before


def test_images_in_another_place_are_read_once(finished_copy: Any, tiny: Any, again: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny.data, tmp_path / "elsewhere")
    argv = [*tiny.argv(finished_copy.root, views=True), "--data", tmp_path / "elsewhere"]
    first, second = (in_a_fresh_process("study.run", *argv) for _ in range(2))
    assert first[0] == second[0] == 0
    assert "torch" in first[1] and second[1] == []


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db"])
def test_a_database_that_was_deleted_is_filled_again(finished_copy: Any, again: Any, name: str) -> None:
    from study.tracking.views import hold_all

    state, folder = finished_copy.state, finished_copy.folder
    assert hold_all(folder, state, None, None)
    (finished_copy.root / name).unlink()
    assert not hold_all(folder, state, None, None)
    again()
    assert hold_all(folder, state, None, None)


def test_results_that_were_deleted_are_made_again_as_they_were(finished_copy: Any, again: Any) -> None:
    names = ("results/curves.png", "results/ranking.csv", "results/best/weights.safetensors")
    before = {path: path.read_bytes() for name in names for path in [finished_copy.folder.path / name]}
    sessions = len(finished_copy.state.sessions)
    for path in before:
        path.unlink()
    again()
    assert {path: path.read_bytes() for path in before} == before
    state = finished_copy.state
    assert (state.complete, state.concluded.missing, state.counted) == (True, (), 7)
    assert len(state.sessions) == sessions + 1
    again()
    assert len(finished_copy.state.sessions) == sessions + 1


def test_results_that_cannot_be_made_again_are_named_and_the_rest_is_shown(finished_copy: Any, again: Any) -> None:
    weights = finished_copy.folder.trial(finished_copy.state.best().number) / "weights.safetensors"
    weights.unlink()
    (finished_copy.folder.results / "curves.png").unlink()
    before = finished_copy.folder.journal.read_bytes()
    out = again().out
    assert f"warning: results/curves.png missing; to make it again, restore the weights {weights}" in out
    assert "best of the search: trial" in out
    assert finished_copy.folder.journal.read_bytes() == before


def test_another_question_and_changed_images_are_still_refused(
    finished_copy: Any, tiny: Any, again: Any, commands: Any
) -> None:
    again()
    ended = commands.run("study.run", *tiny.argv(finished_copy.root, "--seed", 2, views=True))
    assert ended.status == 2 and "asks another question (seed: 1 then, 2 now)" in ended.err


def test_more_trials_search_on(finished_copy: Any, tiny: Any, again: Any, commands: Any) -> None:
    again()
    assert commands.run("study.run", *tiny.argv(finished_copy.root, trials=8)).status == 0
    assert finished_copy.state.counted == 8
