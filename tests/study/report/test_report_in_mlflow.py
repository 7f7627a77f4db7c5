"""The report as a file of the study's run in MLflow, also after MLflow's store was deleted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.record.journal import read
from study.report import __main__ as command
from study.report.making import write_report
from study.tracking.databases import ViewError, artifact_root, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow.sink import MlflowSink


@pytest.fixture
def told(story: Callable[..., Any]) -> Any:
    """A complete study under a root of its own."""
    return story().whole()


def show(told: Any) -> None:
    sync(told.folder.journal, MlflowSink(default_tracking_uri(told.folder.root), told.folder))


def in_mlflow(told: Any) -> list[bytes]:
    return [path.read_bytes() for path in artifact_root(told.folder.root).rglob("report.html")]


@pytest.mark.slow
def test_the_page_is_added_to_the_study_s_run_and_comes_back_with_a_deleted_store(
    told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = told.folder.root
    show(told)
    assert in_mlflow(told) == []
    assert command.main(["--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("added to the study's run in MLflow (sqlite:///")
    page = told.folder.report.read_bytes()
    assert in_mlflow(told) == [page]

    (root / "mlflow.db").unlink()
    shutil.rmtree(artifact_root(root))
    assert write_report(told.folder, read(told.folder.journal)).read_bytes() == page  # nothing of it came from there
    show(told)
    assert in_mlflow(told) == [page]


def test_a_root_without_a_store_gets_none(told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.add_to_mlflow(told.folder, tmp_path / "report.html", None)
    assert not (told.folder.root / "mlflow.db").exists()
    assert capsys.readouterr().out == ""


def test_a_server_that_cannot_be_reached_is_an_error_only_where_it_was_asked_for(
    told: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    page.touch()
    with pytest.raises(ViewError):
        command.add_to_mlflow(told.folder, page, "http://127.0.0.1:9")  # where nobody listens
    (told.folder.root / "mlflow.db").write_text("no database")
    command.add_to_mlflow(told.folder, page, None)
    assert capsys.readouterr().out.startswith("not added to MLflow: ")
