"""What study.status says to type next, and of databases that are gone."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study import run, status
from study.screen.next_step import next_command
from study.screen.overview import as_text, overview

Tell = Callable[..., Any]


def said(told: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of study.status."""
    assert status.main(["--root", str(told.folder.root), "--study-name", "small"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_of_a_complete_study_the_report_is_next_and_then_the_reproduction(
    story: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    told = story().whole()
    where = f"--root {told.folder.root} --study-name small"
    assert said(told, capsys)[-1] == f"next: python -m study.report {where}"
    told.folder.report.parent.mkdir()
    told.folder.report.touch()
    assert said(told, capsys)[-1] == f"next: python -m study.reproduce best {where}"


@pytest.mark.parametrize("reason", ["interrupted", "terminated", "timeout", "failures", None])
def test_of_a_study_that_stopped_early_the_command_that_goes_on_is_next(
    story: Tell, capsys: pytest.CaptureFixture[str], reason: str | None
) -> None:
    told = story()
    told.open()
    told.session(trials=9)
    told.finish(told.propose("authors"), 29.0)
    if reason:
        told.end_session(reason)
    last = said(told, capsys)[-1]
    assert last.startswith("next: python -m study.run ")
    args = run.parser().parse_args(shlex.split(last)[4:])
    assert (args.experiment, args.trials, args.seed) == ("quickstart", 9, 1)
    assert (args.root, args.study_name, args.data) == (told.folder.root, "small", None)


def test_while_a_study_runs_its_curves_are_next(story: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    told = story()
    told.open()
    told.session(trials=9)
    with told.folder.lock():
        assert said(told, capsys)[-1].startswith("next: python -m study.status --root ")
        (told.folder.root / "mlflow.db").touch()
        assert said(told, capsys)[-1].startswith("next: python -m study.ui --root ")


def test_of_a_study_of_references_alone_more_trials_are_next(story: Tell) -> None:
    told = story()
    told.open()
    told.session(trials=1)
    told.finish(told.propose("authors"), 29.0)
    told.end_session("complete")
    found = next_command(told.folder, told.state, running=False)
    assert found is not None and "--trials 11" in found


def test_a_database_that_was_deleted_is_named_with_the_command_that_makes_it_again(
    story: Tell, capsys: pytest.CaptureFixture[str]
) -> None:
    from study.tracking.follow import sync
    from study.tracking.views import sinks_of

    told = story().whole()
    (_, optuna) = sinks_of(told.folder, None, None)
    sync(told.folder.journal, optuna)
    assert "optuna" not in "\n".join(said(told, capsys))
    database = told.folder.root / "optuna.db"
    database.unlink()
    how = f"python -m study.sync --root {told.folder.root} --study-name small"
    assert f"optuna: {database} is missing; rebuild it: {how}" in said(told, capsys)
    with told.folder.lock():
        found = overview(told.folder, told.state) | {"trainings": []}
        assert f"optuna: {database} is missing; the running session rebuilds it" in as_text(found).splitlines()
    sync(told.folder.journal, optuna)
    assert "is missing" not in "\n".join(said(told, capsys))
    assert database.exists()


def test_a_default_root_is_not_named(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    from study.screen import next_step

    told = story().whole()
    root: Path = told.folder.root
    monkeypatch.setattr(next_step, "default_root", lambda: root)
    assert next_command(told.folder, told.state, running=False) == "python -m study.report --study-name small"
