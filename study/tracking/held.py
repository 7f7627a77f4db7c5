"""Reads from a view's database how much it holds, without the view's library. Importing MLflow takes seconds.

A complete study whose views hold all of it is shown again without opening them. If the answer is not known here, the
view is opened and its own library finds out.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from study.record.addresses import sqlite_file
from study.record.folder import StudyFolder
from study.record.journal import study_id
from study.record.standing import standing_of, version_of
from study.record.state import StudyState
from study.tracking.databases import artifact_root
from study.tracking.mlflow.uploads import MISSING

_PATIENCE_SECONDS = 0.5
"""How long another process may lock a database before its content counts as not known."""

_MLFLOW = """
    SELECT synced.value, owner.value, experiments.artifact_location
    FROM tags AS id
    JOIN tags AS role ON role.run_uuid = id.run_uuid AND role.key = 'study.role' AND role.value = :role
    JOIN tags AS synced ON synced.run_uuid = id.run_uuid AND synced.key = 'study.synced'
    JOIN runs ON runs.run_uuid = id.run_uuid AND runs.lifecycle_stage = 'active'
    JOIN experiments ON experiments.experiment_id = runs.experiment_id AND experiments.lifecycle_stage = 'active'
    LEFT JOIN tags AS owner ON owner.run_uuid = id.run_uuid AND owner.key = 'study.folder'
    WHERE id.key = 'study.id' AND id.value = :id
"""
_MLFLOW_LACKS_FILES = """
    SELECT 1 FROM tags AS id JOIN tags AS missing ON missing.run_uuid = id.run_uuid AND missing.key = :missing
    WHERE id.key = 'study.id' AND id.value = :id
"""
_OPTUNA = """
    SELECT synced.value_json, owner.value_json
    FROM study_user_attributes AS id
    JOIN studies ON studies.study_id = id.study_id
    JOIN study_user_attributes AS synced ON synced.study_id = id.study_id AND synced.key = 'study.synced'
    LEFT JOIN study_user_attributes AS owner ON owner.study_id = id.study_id AND owner.key = 'study.folder'
    WHERE id.key = 'study.id' AND id.value_json = :id
"""


def holds_all(folder: StudyFolder, state: StudyState, view: str, address: str) -> bool:
    """Returns True if the view at this address is known to hold every event of the study.

    The view's state file must say so, and its database must agree. A server is not queried, because that takes the
    view's library.

    Args:
        view: "mlflow" or "optuna".
    """
    standing = standing_of(folder.journal, view)
    store = sqlite_file(address)
    if standing is None or store is None or not store.is_file() or state.opened is None:
        return False
    if standing.events != state.count or standing.error or standing.version != version_of(view):
        return False
    query = {"mlflow": _held_by_mlflow, "optuna": _held_by_optuna}[view]
    try:
        uri = f"file:{quote(str(store.resolve()))}?mode=rw"  # a read-only connection cannot open a write-ahead log
        with closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_SECONDS)) as database:
            return query(database, store, folder, state) == (state.count, folder.study)
    except (sqlite3.Error, ValueError, TypeError):  # damaged, locked, or of a version with other tables
        return False


def _held_by_mlflow(
    database: sqlite3.Connection, store: Path, folder: StudyFolder, state: StudyState
) -> tuple[int, str] | None:
    """Returns (events that the study's run holds, its study folder); None if anything is missing or has moved."""
    assert state.opened is not None
    marks = {"id": study_id(state.opened), "role": "training" if folder.training else "study", "missing": MISSING}
    if database.execute(_MLFLOW_LACKS_FILES, marks).fetchone():
        return None

    row = _only_row(database.execute(_MLFLOW, marks).fetchall())
    if row is None:
        return None
    synced, owner, artifacts = row
    expected = artifact_root(folder.root)
    if store.resolve().parent == expected.parent and artifacts.rpartition("/")[0] != expected.as_uri():
        return None  # the root was moved
    return int(synced), owner or state.opened.study


def _held_by_optuna(
    database: sqlite3.Connection, store: Path, folder: StudyFolder, state: StudyState
) -> tuple[int, str] | None:
    """Returns (events that Optuna's study holds, its study folder); None if the database lacks the study."""
    assert state.opened is not None
    row = _only_row(database.execute(_OPTUNA, {"id": json.dumps(study_id(state.opened))}).fetchall())
    if row is None:
        return None
    synced, owner = row
    return int(json.loads(synced)), state.opened.study if owner is None else json.loads(owner)


def _only_row(rows: list[Any]) -> Any:
    """Returns the row if there is exactly one, else None."""
    return rows[0] if len(rows) == 1 else None
