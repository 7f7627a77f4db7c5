"""Converts between SQLite files and their addresses in SQLAlchemy, which MLflow and Optuna use."""

import re
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote

from sr_core.errors import SuiteError
from sr_core.process.names import printable


def sqlite_uri(path: Path) -> str:
    """The SQLAlchemy address of a SQLite file, for MLflow and Optuna.

    Raises:
        SuiteError: the path cannot be expressed as an address.
    """
    text = str(path)
    if any(ord(character) < 32 for character in text) or printable(text) != text:
        raise SuiteError(
            f"{printable(text)!r}: expected a path in UTF-8 without control characters, because MLflow and Optuna "
            "accept no other; choose another --root, or run without them (--tracking-uri none --storage none)"
        )
    if _decodes_paths():
        # SQLAlchemy ends the path at `?` and decodes %-escapes. Optuna replaces placeholders in braces.
        return "sqlite:///" + re.sub(r"[?{}]|%(?=[0-9A-Fa-f]{2})", lambda match: quote(match[0]), text)
    if re.search(r"[?{}]", text):
        raise SuiteError(
            f"{text}: expected a path without '?' and braces, because SQLAlchemy before 2.1 cannot open it; update "
            "SQLAlchemy, or choose another --root"
        )
    return f"sqlite:///{text}"


def sqlite_file(uri: str) -> Path | None:
    """The file at a SQLite address, or None for any other kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    path, _, query = uri.removeprefix("sqlite:///").partition("?")
    if _decodes_paths():
        path = unquote(path)
    if path.startswith("file:") and "uri=" in query:
        path = unquote(path.removeprefix("file:"))
    return Path(path)


def _decodes_paths() -> bool:
    """True if SQLAlchemy decodes %-escapes in the path of an address, which it does from version 2.1 on."""
    major, minor = version("sqlalchemy").split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (2, 1)
