"""Addresses of SQLite files, as SQLAlchemy, and so MLflow and Optuna, read them."""

import re
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote

from sr_core.errors import SuiteError
from sr_core.process.names import printable


def sqlite_uri(path: Path) -> str:
    """Returns the address of a SQLite file, as SQLAlchemy, and so MLflow and Optuna, read it back.

    Raises:
        SuiteError: no address can hold the path.
    """
    text = str(path)
    if any(ord(character) < 32 for character in text) or printable(text) != text:
        raise SuiteError(
            f"{printable(text)!r}: expected a path without control characters, in UTF-8; MLflow and Optuna cannot name "
            "this one: choose another --root, or record without them (--tracking-uri none --storage none)"
        )
    if _decodes_paths():
        # SQLAlchemy reads `?` as the end of the path and decodes %-escapes; Optuna fills in what is in braces.
        return "sqlite:///" + re.sub(r"[?{}]|%(?=[0-9A-Fa-f]{2})", lambda found: quote(found[0]), text)
    if re.search(r"[?{}]", text):
        raise SuiteError(f"{text}: SQLAlchemy before 2.1 cannot name a file with '?' or braces in its path; update it")
    return f"sqlite:///{text}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, or None for any other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    path, _, query = uri.removeprefix("sqlite:///").partition("?")
    if _decodes_paths():
        path = unquote(path)
    if path.startswith("file:") and "uri=" in query:
        path = unquote(path.removeprefix("file:"))
    return Path(path)


def _decodes_paths() -> bool:
    """Whether SQLAlchemy decodes %-escapes in the path of an address: from version 2.1 on."""
    major, minor = version("sqlalchemy").split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (2, 1)
