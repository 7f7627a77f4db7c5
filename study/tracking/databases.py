"""The databases of a study's views: their addresses, their creation, and the error that a failing one raises."""

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
    """A view cannot be read or written: its tracker is down, or its store is not usable."""


_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def check_address(flag: str, uri: str, *, server: bool) -> None:
    """Raises SuiteError if no tracker or database can have this address.

    Args:
        flag: the command-line flag that set the address, for the message.
        server: also accept http and https.
    """
    kind = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    accepted = list(_DATABASES)
    examples = ["sqlite:///FILE", "postgresql+psycopg://HOST/DATABASE or none"]
    if server:
        accepted += ["http", "https"]
        examples.insert(0, "http://HOST:PORT")
    if kind not in accepted:
        raise SuiteError(f"{flag}: expected {', '.join(examples)}; got an address of kind {kind or 'unknown'!r}")


def default_tracking_uri(root: Path) -> str:
    """Returns the address of MLflow's store under a root."""
    return sqlite_uri(root.resolve() / "mlflow.db")


def default_storage(root: Path) -> str:
    """Returns the address of Optuna's database under a root."""
    return sqlite_uri(root.resolve() / "optuna.db")


def artifact_root(root: Path) -> Path:
    """Returns the folder for the files of runs in the MLflow store of a root."""
    return root.resolve() / "artifacts"


def plain_uri(uri: str, folder: Path) -> str:
    """Returns an address of the same SQLite file without %-escapes, through a link in `folder`.

    MLflow creates the folder of a database. It takes the name from the address as it stands, %-escapes included.
    """
    file = sqlite_file(uri)
    if file is None or "%" not in uri:
        return uri
    link = folder / "store"
    link.symlink_to(file.parent)
    return sqlite_uri(link / file.name)


def identity(uri: str) -> int | None:
    """Returns a number that changes when another file takes a database's place; None if there is no file.

    A connection to a deleted file reports no error, and what it writes is lost.
    """
    path = sqlite_file(uri)
    return path.stat().st_ino if path and path.exists() else None


def create_once(path: Path, build: Callable[[str], None]) -> bool:
    """Creates a SQLite database unless it exists, and returns whether it did. One process at a time does this.

    The file gets its name when it is complete, because a kill during its many migrations would leave it unusable.
    A write-ahead log needs memory that all its users share. A database on a file system that several machines may
    mount therefore gets none.

    Args:
        build: creates the tables in the database of this URI, and closes its connections.
    """
    with _only_process(path.parent):
        if path.exists():
            _warn_of_log(path)
            return False
        for unfinished in path.parent.glob(f".{path.name}-*"):  # left by a kill during an earlier attempt
            unfinished.unlink()
        fresh = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
        build(sqlite_uri(fresh))
        with closing(sqlite3.connect(fresh)) as connection:
            # A write takes a third of the time with WAL. The file keeps the mode.
            mode = "WAL" if is_local(path.parent) else "DELETE"
            connection.execute(f"PRAGMA journal_mode = {mode}")
        fresh.rename(path)
        return True


_warned = set[Path]()


def _warn_of_log(path: Path) -> None:
    """Warns, once per process and file, of a write-ahead log on a file system that other machines may share."""
    if path in _warned or is_local(path.parent):
        return
    with suppress(OSError), path.open("rb") as file:
        if file.read(20)[18:20] == b"\x02\x02":  # read and write version in SQLite's header
            _warned.add(path)
            logger.warning(
                "%s: this database has a write-ahead log, which is unsafe on this file system if several machines open "
                "it at once; to turn the log off while nothing uses the file: "
                "sqlite3 FILE 'PRAGMA journal_mode = DELETE'",
                path,
            )


@contextmanager
def view_errors(tool: str, uri: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raises errors of the tool, its database or the network in the block as a ViewError of one line.

    The line contains no password.

    Args:
        tool: the tool's name, for the message.
        uri: the address of its store.
        kinds: the tool's own exceptions.
    """
    expected: tuple[type[Exception], ...] = (*kinds, sqlite3.Error, OSError)
    try:
        yield
    except expected as exc:
        reason = redact_with(uri, str(exc).strip().partition("\n")[0])[:300]
        raise ViewError(f"{tool} at {redact(uri)}: {reason}") from exc


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Keeps other processes out of such a block for the same folder. Without locks, SQLite cannot work there either."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)
