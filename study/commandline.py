"""Flags and argument types that the study commands share."""

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.redaction import redact
from study.record.folder import StudyFolder, default_root, recorded

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """--root and --study-name: where studies are, and which one."""
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help=f"where studies and their databases are (default: {default_root()})"
    )
    parser.add_argument(
        "--study-name", metavar="NAME", help="the study (default: the only one under --root, or the experiment's name)"
    )


def add_take_over_flag(parser: argparse.ArgumentParser) -> None:
    """--take-over: for commands that own what they run."""
    parser.add_argument(
        "--take-over", action="store_true", help="own it though another process does; that one ends itself"
    )


def folder_from(args: argparse.Namespace, default: str | None = None) -> StudyFolder:
    """The study's folder that the shared flags name; it need not exist.

    Args:
        default: the name without --study-name; by default that of the only study under the root, else `quickstart`.
    """
    root = (args.root or default_root()).expanduser().resolve()
    if args.study_name is not None:
        return StudyFolder(root, args.study_name)
    if default is None:
        return StudyFolder(root, _only_study(root) or "quickstart")
    try:
        return StudyFolder(root, default)
    except SuiteError as exc:
        raise SuiteError(f"{exc}; the file keeps its name if you name the study: --study-name NAME") from exc


def _only_study(root: Path) -> str | None:
    preparing = (path.parent.name for path in root.glob("*/lock"))  # without a record yet
    found = recorded(root) or list(preparing)
    return found[0] if len(found) == 1 else None


def typed(arguments: Iterable[str]) -> str:
    """Arguments as one types them after a command, a space before each; passwords in their URLs as stars."""
    return "".join(f" {shlex.quote(redact(a) if '://' in a else a)}" for a in arguments)


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Seconds of a time such as 90, 90s, 20m, 1.5h or 2d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a time above 0 such as 90s, 20m or 2h, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]
