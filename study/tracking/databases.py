"""The databases of a study's views: where they are, how one is made and moved, what is said when one fails."""

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.locks import lock


class ViewError(SuiteError):
    """A view cannot be read or written: its tracker is down, or its store is not what it should be."""


_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def check_address(flag: str, uri: str, *, server: bool) -> None:
    """Raises SuiteError where no tracker or database can ever be behind an address.

    Args:
        server: whether http and https will do too.
    """
    kind = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    if kind not in (*_DATABASES, *(("http", "https") if server else ())):
        known = ("http://HOST:PORT, " if server else "") + "sqlite:///FILE, postgresql+psycopg://HOST/DATABASE or none"
        raise SuiteError(f"{flag}: expected {known}; got an address of kind {kind or 'unknown'!r}")


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
        for left in path.parent.glob(f".{path.name}-*"):  # by a kill amid an earlier attempt
            left.unlink()
        fresh = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
        build(sqlite_uri(fresh))
        with closing(sqlite3.connect(fresh)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # a third of the time per write; kept in the file
        fresh.rename(path)
        return True


def move_artifacts(store: Path, old: str, new: str) -> None:
    """Let an MLflow store name its files by another URI: it names them absolutely, and a root may be carried away."""
    with closing(sqlite3.connect(store)) as connection, connection:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )


@contextmanager
def told_plainly(tool: str, uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """What a tool, its database or the network raise, as a ViewError of one line without a password."""
    expected: tuple[type[Exception], ...] = (*kinds, sqlite3.Error, OSError)
    try:
        yield
    except expected as exc:
        what = str(exc).strip().partition("\n")[0][:300]
        raise ViewError(redact(f"{tool} at {uri}: {what}")) from exc


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block for the same folder; without locks SQLite cannot work there either."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def redact(text: str) -> str:
    """The text with whatever opens a door in its URIs (user, password, token) replaced by stars."""
    text = re.sub(r"://\S*@", "://***@", text)  # SQLAlchemy takes a password with / and @ in it, unquoted
    return re.sub(r"(?i)\b((?:pass\w*|pwd|token|secret|\w*key)=)[^&\s]+", r"\1***", text)
