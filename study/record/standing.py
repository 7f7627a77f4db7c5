"""How far a view is and what it costs: a small file beside the journal, for `study.status` and for measurements."""

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
    """What whoever keeps a view last knew of it."""

    time: float
    """Unix time of this knowledge."""
    events: int = 0
    """How many of the journal's events the view holds."""
    busy_seconds: float = 0.0
    """Wall time that was spent handing over, by this session or this study.sync."""
    cpu_seconds: float = 0.0
    """Processor time of the same."""
    waited_seconds: float = 0.0
    """Wall time for which the study's loop waited for that, in this session."""
    error: str = ""
    """Why the last attempt to hand over failed, in one line without passwords; empty if it did not."""
    store: str = ""
    """The view's database file, relative to the journal's folder if it lies above that; empty for a server."""
    version: str = ""
    """Of the tool that wrote to the store."""

    def save(self, journal: Path, view: str, where: str = "") -> None:
        """Put it next to the journal. If that cannot be written nothing happens: it is for information alone.

        Args:
            where: the address of the view's store.
        """
        path = _path(journal, view)
        aside = temporary_name(path)
        told = replace(self, store=_store_at(where, journal), version=version_of(view))
        with suppress(OSError):
            aside.write_text(json.dumps(asdict(told)))
            aside.replace(path)

    def missing_store(self, journal: Path) -> Path | None:
        """The database file that was there and is no longer; None if it is there, or the store is a server."""
        if not self.store:
            return None
        path = (journal.parent / self.store).resolve()
        return None if path.exists() else path


def standing_of(journal: Path, view: str) -> Standing | None:
    """What is known of a view; None if nothing is, or nothing that can be read."""
    try:
        return Standing(**json.loads(_path(journal, view).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(journal: Path, view: str) -> Path:
    return journal.with_name(f".{view}.json")


def version_of(view: str) -> str:
    """The version of the tool that shows a view; empty if it is not installed."""
    try:
        return version(view)
    except PackageNotFoundError:
        return ""


def _store_at(where: str, journal: Path) -> str:
    """The database file at an address, named so that the root can be moved; empty if there is no such file."""
    path = sqlite_file(where)
    if path is None or not path.is_file():
        return ""
    place = path.resolve()
    folder = journal.parent.resolve()
    if place.parent in folder.parents:
        return os.path.relpath(place, folder)
    return str(place)
