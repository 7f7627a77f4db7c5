"""The root's own databases: how an address names their file, and on which disks SQLite uses a write-ahead log."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url

from sr_core.errors import SuiteError
from study.record.addresses import sqlite_file, sqlite_uri
from study.record.folder import StudyFolder
from study.tracking import local_disk
from study.tracking.databases import create_once, default_storage, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.mlflow.store import client_of
from study.tracking.optuna import OptunaSink
from study.tracking.views import check_addresses

ODD_ROOTS = [
    "a?b",
    "a#b?c%20d",
    "a%2Fb",
    "100%",
    "a@b:c",
    "a b",
    "ü漢",
    "a&b=c;d",
    "it's",
    "{SCHEMA_VERSION}",
    "file:x",
    "a\\b",
]


@pytest.mark.parametrize("name", ODD_ROOTS)
def test_an_address_of_a_database_leads_back_to_its_file(name: str) -> None:
    path = Path("/somewhere") / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(path)) == path
    assert make_url(sqlite_uri(path)).database == str(path)


def test_an_ordinary_address_is_written_as_ever() -> None:
    assert sqlite_uri(Path("/my root/ü@home/mlflow.db")) == "sqlite:////my root/ü@home/mlflow.db"
    assert sqlite_file("postgresql://db/x") is None


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\udce9b"])
def test_a_root_that_no_address_can_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(SuiteError, match="choose another --root") as caught:
        check_addresses(None, None, Path("/somewhere") / name)
    assert "\n" not in str(caught.value) and str(caught.value).encode()
    check_addresses("none", "none", Path("/somewhere") / name)


def test_both_views_stay_under_a_root_of_any_name(story: Callable[..., Any], tmp_path: Path) -> None:
    told = story()
    told.carry_to(tmp_path / "roots" / "a#b?c%20d{x}")
    told.open()
    root = told.folder.root
    sync(told.folder.journal, MlflowSink(default_tracking_uri(root), told.folder))
    sync(told.folder.journal, OptunaSink(default_storage(root)))
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    assert {path.name for path in root.iterdir()} >= {"mlflow.db", "optuna.db", "small"}
    assert client_of(default_tracking_uri(root)).get_experiment_by_name("small") is not None
    assert optuna.get_all_study_names(RDBStorage(default_storage(root))) == ["small"]


# Write-ahead log


def mode_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def make_table(uri: str) -> None:
    with closing(sqlite3.connect(str(sqlite_file(uri)))) as connection, connection:
        connection.execute("CREATE TABLE t (x INTEGER)")


@pytest.mark.parametrize(
    ("kind", "mode"), [(0xEF53, "wal"), (0x6969, "delete"), (0xFF534D42, "delete"), (None, "delete")]
)
def test_a_database_is_written_ahead_only_on_a_file_system_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int | None, mode: str
) -> None:
    """ext4, NFS, SMB, and a file system that the system does not name."""
    monkeypatch.setattr(local_disk, "file_system", lambda folder: kind)
    assert create_once(tmp_path / "x.db", make_table)
    assert mode_of(tmp_path / "x.db") == mode


def test_a_write_ahead_log_on_a_shared_file_system_is_left_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_disk, "file_system", lambda folder: 0xEF53)
    create_once(tmp_path / "x.db", make_table)
    monkeypatch.setattr(local_disk, "file_system", lambda folder: 0x6969)
    for _ in range(2):
        assert not create_once(tmp_path / "x.db", make_table)
    assert mode_of(tmp_path / "x.db") == "wal"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and str(tmp_path / "x.db") in record.message


def test_the_kernel_s_own_file_systems_are_told_apart() -> None:
    assert local_disk.file_system(Path("/proc")) == 0x9FA0
    assert not local_disk.is_local(Path("/proc"))
    assert local_disk.file_system(Path("/nowhere")) is None


@pytest.mark.parametrize("name", ["mlflow.db", "MLflow.DB", "mlflow.db-wal", "optuna.db-journal", "artifacts"])
def test_a_study_cannot_have_the_name_of_a_database(tmp_path: Path, name: str) -> None:
    with pytest.raises(SuiteError, match=r"none of artifacts, compiled, mlflow\.db, optuna\.db, stores"):
        StudyFolder(tmp_path, name)
