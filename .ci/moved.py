"""Prints the versions of the requirements on stdin, and of what else constraints.txt names with another version."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PINS = Path(__file__).resolve().parents[1] / "constraints.txt"


def main() -> int:
    asked = {re.split(r"[<>=\[ ]", line, maxsplit=1)[0].lower() for line in sys.stdin.read().splitlines()}
    for line in _PINS.read_text("utf-8").splitlines():
        name, _, pinned = line.strip().partition("==")
        if not pinned or name.startswith("#"):
            continue
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "not installed"
        if name.lower() in asked or here != pinned:
            print(f"{name} {here}" + ("" if here == pinned else f" ({pinned} in constraints.txt)"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
