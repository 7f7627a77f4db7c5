"""How far a view is and what it costs: a small file next to the journal, for `study.status` and for measurements."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sr_core.process.durable import temporary_name
from study.record.addresses import sqlite_file

VIEWS = ("mlflow", "optuna")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The state of a view (MLflow or Optuna) when it was last updated."""

    time: float
    """When this was written, as Unix time in seconds."""
    events: int = 0
    """Number of the journal's events that the view holds."""
    busy_seconds: float = 0.0
    """Wall time that this session, or this study.sync, has spent on updating the view."""
    cpu_seconds: float = 0.0
    """Processor time that it has spent on updating the view."""
    waited_seconds: float = 0.0
    """Wall time for which the study's loop has waited for the view in this session."""
    error: str = ""
    """Why the last update failed, in one line and without passwords. Empty if it succeeded."""
    store: str = ""
    """The view's database file, relative to the journal's folder if it lies in a parent of it. Empty for a server."""
    version: str = ""
    """Version of the tool that wrote to the store."""

    def save(self, journal: Path, view: str, where: str = "") -> None:
        """Write the file next to the journal. An error is ignored, because the file is only for information.

        Args:
            where: the address of the view's store.
        """
        path = _path(journal, view)
        temporary = temporary_name(path)
        standing = replace(self, store=_store_at(where, journal), version=version_of(view))
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(standing)))
            temporary.replace(path)

    def missing_store(self, journal: Path) -> Path | None:
        """Path of the view's database file if it has been removed; None if it exists or the store is a server."""
        if not self.store:
            return None
        path = (journal.parent / self.store).resolve()
        return None if path.exists() else path


def standing_of(journal: Path, view: str) -> Standing | None:
    """The last saved state of a view; None if there is none or it cannot be read."""
    try:
        return Standing(**json.loads(_path(journal, view).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(journal: Path, view: str) -> Path:
    return journal.with_name(f".{view}.json")


def version_of(view: str) -> str:
    """The installed version of the tool that shows a view; empty if it is not installed."""
    try:
        return version(view)
    except PackageNotFoundError:
        return ""


def _store_at(where: str, journal: Path) -> str:
    """The database file at an address, as a relative path if the root can be moved with it; empty if there is none."""
    path = sqlite_file(where)
    if path is None or not path.is_file():
        return ""
    store = path.resolve()
    folder = journal.parent.resolve()
    if store.parent in folder.parents:
        return os.path.relpath(store, folder)
    return str(store)
