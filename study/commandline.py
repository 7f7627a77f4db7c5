"""Flags and argument types that the study commands share."""

import argparse
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.redaction import redact
from study.record.folder import StudyFolder, default_root, recorded

_SECONDS_PER_UNIT = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """Add --root and --study-name, which together select a study."""
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help=f"folder of all studies and their databases (default: {default_root()})",
    )
    parser.add_argument(
        "--study-name",
        metavar="NAME",
        help="name of the study (default: the only study under --root, or the experiment's name)",
    )


def add_take_over_flag(parser: argparse.ArgumentParser) -> None:
    """Add --take-over, for commands that own the study they run."""
    parser.add_argument(
        "--take-over", action="store_true", help="take ownership from another process, which then exits"
    )


def folder_from(args: argparse.Namespace, default: str | None = None) -> StudyFolder:
    """The folder of the study that --root and --study-name select; it need not exist.

    Args:
        default: name of the study without --study-name. If None, it is the only study under the root, or `quickstart`.
    Raises:
        SuiteError: the name cannot be a study's name.
    """
    root = (args.root or default_root()).expanduser().resolve()
    if args.study_name is not None:
        return StudyFolder(root, args.study_name)
    if default is None:
        return StudyFolder(root, _only_study(root) or "quickstart")
    try:
        return StudyFolder(root, default)
    except SuiteError as exc:
        raise SuiteError(f"{exc}; to keep the file's name, name the study with --study-name NAME") from exc


def _only_study(root: Path) -> str | None:
    """The name of the one study under this root; None if there are none or several."""
    names = recorded(root)
    if not names:  # a study that still prepares its images has a lock, but no record yet
        names = [path.parent.name for path in root.glob("*/lock")]
    return names[0] if len(names) == 1 else None


def typed(arguments: Iterable[str]) -> str:
    """Arguments quoted for a shell, each after a space; passwords in URLs become stars."""
    text = ""
    for argument in arguments:
        text += " " + shlex.quote(redact(argument) if "://" in argument else argument)
    return text


def at_least_one(text: str) -> int:
    """The whole number that `text` states, at least 1.

    Raises:
        argparse.ArgumentTypeError: it is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """The seconds in a duration such as 90, 90s, 20m, 1.5h or 2d.

    Raises:
        argparse.ArgumentTypeError: it is not a duration above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"expected a time above 0 such as 90s, 20m or 2h, got {text!r}")
    return float(match[1]) * _SECONDS_PER_UNIT[match[2]]
