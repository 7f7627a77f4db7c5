"""Prints the installed versions of the requirements on stdin, and of all packages that differ from constraints.txt."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PINS = Path(__file__).resolve().parents[1] / "constraints.txt"


def main() -> int:
    """Prints one line per package: its name, its installed version and, if it differs, the pinned one."""
    required = {re.split(r"[<>=\[ ]", line, maxsplit=1)[0].lower() for line in sys.stdin.read().splitlines()}
    for line in _PINS.read_text("utf-8").splitlines():
        name, _, pinned = line.strip().partition("==")
        if not pinned or name.startswith("#"):
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not installed"
        if installed != pinned:
            print(f"{name} {installed} ({pinned} in constraints.txt)")
        elif name.lower() in required:
            print(f"{name} {installed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
