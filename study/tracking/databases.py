"""The databases of a study's views: where they are, how one is made and moved, what is said when one fails."""

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.locks import lock
from sr_core.process.redaction import redact, redact_with
from study.record.addresses import sqlite_file, sqlite_uri
from study.tracking.local_disk import is_local

logger = logging.getLogger(__name__)


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


def plain_uri(uri: str, folder: Path) -> str:
    """Returns an address of the same SQLite file without %-escapes, through a link in this folder.

    MLflow makes the folder of a database, under the name that stands in its address, escapes and all.
    """
    file = sqlite_file(uri)
    if file is None or "%" not in uri:
        return uri
    link = folder / "store"
    link.symlink_to(file.parent)
    return sqlite_uri(link / file.name)


def identity(uri: str) -> int | None:
    """Tells a database file from one that took its place; None without a file.

    A connection to a file that was deleted goes on without complaint, and what it writes is lost.
    """
    path = sqlite_file(uri)
    return path.stat().st_ino if path and path.exists() else None


def create_once(path: Path, build: Callable[[str], None]) -> bool:
    """Make a SQLite database unless it is there; as one process alone, however many try. Whether it was made.

    It has another name until it is whole: a kill amid its many migrations would leave one that nobody can use. Its
    write-ahead log needs memory that all who open it share, so on a file system of several machines it gets none.

    Args:
        build: creates the tables in the database of this URI and lets go of it.
    """
    with _alone(path.parent):
        if path.exists():
            _warn_of_log(path)
            return False
        for left in path.parent.glob(f".{path.name}-*"):  # by a kill amid an earlier attempt
            left.unlink()
        fresh = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
        build(sqlite_uri(fresh))
        with closing(sqlite3.connect(fresh)) as connection:
            # WAL takes a third of the time per write. The mode is kept in the file.
            connection.execute(f"PRAGMA journal_mode = {'WAL' if is_local(path.parent) else 'DELETE'}")
        fresh.rename(path)
        return True


_warned = set[Path]()


def _warn_of_log(path: Path) -> None:
    """Say, once a process, that a database's write-ahead log is on a file system that other machines may share."""
    if path in _warned or is_local(path.parent):
        return
    with suppress(OSError), path.open("rb") as file:
        if file.read(20)[18:20] == b"\x02\x02":  # read and write version in SQLite's header
            _warned.add(path)
            logger.warning(
                "%s: has a write-ahead log, which is unsafe if several machines open it at once on this file system; "
                "to change that while nothing uses it: sqlite3 FILE 'PRAGMA journal_mode = DELETE'",
                path,
            )


@contextmanager
def view_errors(tool: str, uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """What a tool, its database or the network raise, as a ViewError of one line without a password."""
    expected: tuple[type[Exception], ...] = (*kinds, sqlite3.Error, OSError)
    try:
        yield
    except expected as exc:
        what = redact_with(uri, str(exc).strip().partition("\n")[0])[:300]
        raise ViewError(f"{tool} at {redact(uri)}: {what}") from exc


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block for the same folder; without locks SQLite cannot work there either."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)
