"""The databases of a study's views: where they are, how one is created, how a URI is shown without its password."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path


def default_tracking_uri(root: Path) -> str:
    """MLflow's store under a root."""
    return sqlite_uri(root.resolve() / "mlflow.db")


def default_storage(root: Path) -> str:
    """Optuna's database under a root."""
    return sqlite_uri(root.resolve() / "optuna.db")


def artifact_root(root: Path) -> Path:
    """Where runs in MLflow's store under a root keep their files."""
    return root.resolve() / "artifacts"


def sqlite_uri(path: Path) -> str:
    return f"sqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, or None for any other kind of store."""
    return Path(uri.partition(":///")[2]) if uri.startswith("sqlite:///") else None


def identity(uri: str) -> int | None:
    """Tells a database file from one that took its place; None without a file.

    A connection to a file that was deleted goes on without complaint, and what it writes is lost.
    """
    path = sqlite_file(uri)
    return path.stat().st_ino if path and path.exists() else None


def create_once(path: Path, build: Callable[[str], None]) -> bool:
    """Make a SQLite database unless it is there; as one process alone, however many try. Whether it was made.

    It has another name until it is whole: a kill amid its many migrations would leave one that nobody can use.

    Args:
        build: creates the tables in the database of this URI and lets go of it.
    """
    with _alone(path.parent):
        if path.exists():
            return False
        fresh = path.with_name(f".{path.name}-{os.getpid()}")
        fresh.unlink(missing_ok=True)
        build(sqlite_uri(fresh))
        with closing(sqlite3.connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # a third of the time per write; kept in the file
        fresh.rename(path)
        return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block for the same folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def redact(text: str) -> str:
    """The text with whatever opens a door in its URIs (user, password, token) replaced by stars."""
    text = re.sub(r"://[^\s/]*@", "://***@", text)
    return re.sub(r"(?i)\b((?:pass\w*|pwd|token|secret|\w*key)=)[^&\s]+", r"\1***", text)
