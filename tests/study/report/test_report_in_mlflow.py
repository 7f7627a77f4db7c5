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
def study(story: Callable[..., Any]) -> Any:
    """A complete study under a root of its own."""
    return story().whole()


def show(study: Any) -> None:
    sync(study.folder.journal, MlflowSink(default_tracking_uri(study.folder.root), study.folder))


def in_mlflow(study: Any) -> list[bytes]:
    return [path.read_bytes() for path in artifact_root(study.folder.root).rglob("report.html")]


@pytest.mark.slow
def test_the_page_is_added_to_the_study_s_run_and_comes_back_with_a_deleted_store(
    study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study.folder.root
    show(study)
    assert in_mlflow(study) == []
    assert command.main(["--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("added to the study's run in MLflow (sqlite:///")
    page = study.folder.report.read_bytes()
    assert in_mlflow(study) == [page]

    (root / "mlflow.db").unlink()
    shutil.rmtree(artifact_root(root))
    assert write_report(study.folder, read(study.folder.journal)).read_bytes() == page  # nothing of it came from there
    show(study)
    assert in_mlflow(study) == [page]


def test_a_root_without_a_store_gets_none(study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.add_to_mlflow(study.folder, tmp_path / "report.html", None)
    assert not (study.folder.root / "mlflow.db").exists()
    assert capsys.readouterr().out == ""


def test_a_server_that_cannot_be_reached_is_an_error_only_where_it_was_asked_for(
    study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    page.touch()
    with pytest.raises(ViewError):
        command.add_to_mlflow(study.folder, page, "http://127.0.0.1:9")  # nothing listens there
    (study.folder.root / "mlflow.db").write_text("no database")
    command.add_to_mlflow(study.folder, page, None)
    assert capsys.readouterr().out.startswith("not added to MLflow: ")
