"""How much of a study a view's database holds, read without the view's library."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.record.folder import StudyFolder
from study.record.standing import standing_of
from study.record.state import StudyState
from study.tracking import held
from study.tracking.follow import sync
from study.tracking.views import addresses_of, hold_all, sinks_of

VIEWS = ("mlflow", "optuna")


@pytest.fixture(scope="module")
def _shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shown")


@pytest.fixture
def shown(_shown: Path, story: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[StudyFolder, StudyState]]:
    """A study whose views hold all of it, in a folder of its own. Both databases are made once."""
    root = tmp_path / "root"
    told = story().whole()
    told.close()
    if not (_shown / "mlflow.db").exists():
        for sink in sinks_of(told.folder, None, None):
            sync(told.folder.journal, sink)
            assert held.holds_all(told.folder, told.state, sink.name, addresses_of(told.folder, None, None)[sink.name])
        shutil.copytree(root, _shown, dirs_exist_ok=True)
    else:
        shutil.copytree(_shown, root, dirs_exist_ok=True)
    change(root / "mlflow.db", "UPDATE experiments SET artifact_location = ? || '/small' WHERE name = 'small'",
           (root / "artifacts").as_uri())  # fmt: skip
    yield told.folder, told.state


def change(database: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def known(shown: tuple[StudyFolder, StudyState], view: str) -> bool:
    folder, state = shown
    return held.holds_all(folder, state, view, addresses_of(folder, None, None)[view])


@pytest.mark.parametrize("view", VIEWS)
def test_views_that_have_every_event_are_known_to(shown: Any, view: str) -> None:
    assert known(shown, view)
    folder, state = shown
    assert not known((folder, replace(state, count=state.count + 1)), view)
    assert not known((folder, replace(state, count=state.count - 1)), view)


@pytest.mark.parametrize(
    ("view", "statement"),
    [
        ("mlflow", "UPDATE tags SET value = '3' WHERE key = 'study.synced'"),
        ("mlflow", "DELETE FROM tags WHERE key = 'study.synced'"),
        ("mlflow", "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'small'"),
        ("mlflow", "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'small'"),
        ("mlflow", "UPDATE experiments SET artifact_location = 'file:///elsewhere/small' WHERE name = 'small'"),
        ("mlflow", "UPDATE tags SET value = 'another' WHERE key = 'study.id'"),
        ("mlflow", "UPDATE tags SET key = 'study.files_missing' WHERE key = 'study.hardware'"),
        ("mlflow", "INSERT INTO tags SELECT 'study.folder', 'other', run_uuid FROM tags WHERE key = 'study.synced'"),
        ("mlflow", "ALTER TABLE tags RENAME COLUMN value TO content"),
        ("optuna", "UPDATE study_user_attributes SET value_json = '3' WHERE key = 'study.synced'"),
        ("optuna", "UPDATE study_user_attributes SET value_json = '\"another\"' WHERE key = 'study.id'"),
        ("optuna", "DELETE FROM studies"),
        ("optuna", "DROP TABLE studies"),
    ],
)
def test_a_database_that_lacks_something_or_was_changed_is_not_known_to_have_all(
    shown: Any, view: str, statement: str
) -> None:
    with closing(sqlite3.connect(shown[0].root / f"{view}.db")) as connection, connection:
        connection.execute(statement)
    assert not known(shown, view)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("content", [None, b"", b"no database at all, whatever its name says" * 9])
def test_a_database_that_is_gone_empty_or_damaged_is_not_known_to_have_all(
    shown: Any, view: str, content: bytes | None
) -> None:
    path = shown[0].root / f"{view}.db"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert not known(shown, view)
    assert path.exists() == (content is not None), "asking makes no database"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("change", [{"events": 3}, {"error": "down"}, {"version": "0.1"}, None], ids=str)
def test_the_state_file_has_to_say_so_too(shown: Any, view: str, change: dict[str, Any] | None) -> None:
    path = shown[0].path / f".{view}.json"
    text = "{" if change is None else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    assert not known(shown, view)


def test_a_locked_database_is_not_waited_for(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_PATIENCE_SECONDS", 0.05)
    with closing(sqlite3.connect(shown[0].root / "optuna.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        assert not known(shown, "optuna")


def test_a_server_or_another_databases_is_not_known_to_have_all_and_no_view_lacks_nothing(shown: Any) -> None:
    folder, state = shown
    assert hold_all(folder, state, None, None)
    assert hold_all(folder, state, "none", "none")
    assert not hold_all(folder, state, "http://127.0.0.1:9", "none")
    assert not hold_all(folder, state, "none", f"sqlite:///{folder.root}/other.db")


def test_the_state_file_names_the_database_so_that_the_root_can_be_moved(shown: Any, tmp_path: Path) -> None:
    folder, _ = shown
    for view in VIEWS:
        standing = standing_of(folder.journal, view)
        assert standing is not None and standing.store == f"../{view}.db"
        assert standing.missing_store(folder.journal) is None
    moved = StudyFolder(shutil.move(folder.root, tmp_path / "moved"), folder.study)
    standing = standing_of(moved.journal, "mlflow")
    assert standing is not None and standing.missing_store(moved.journal) is None
    (moved.root / "mlflow.db").unlink()
    assert standing.missing_store(moved.journal) == moved.root / "mlflow.db"


def test_state_files_of_earlier_versions_are_read(shown: Any) -> None:
    folder, _ = shown
    path = folder.path / ".mlflow.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("store", "version")}
    path.write_text(json.dumps(old))
    (folder.root / "mlflow.db").unlink()
    standing = standing_of(folder.journal, "mlflow")
    assert standing is not None and standing.events == old["events"]
    assert standing.missing_store(folder.journal) is None, "it does not say where the database was"


def test_asking_imports_no_tracker_and_views_import_theirs_when_they_are_first_used(shown: Any) -> None:
    folder, _ = shown
    code = f"""
import sys
from pathlib import Path
from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import fold
from study.tracking.views import hold_all, sinks_of
folder = StudyFolder(Path({str(folder.root)!r}), "small")
assert hold_all(folder, fold(read(folder.journal)), None, None)
sinks = sinks_of(folder, None, None)
[sink.close() for sink in sinks]
print([name for name in ("mlflow", "optuna", "sqlalchemy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
