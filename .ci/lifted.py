"""Prints the suite's requirements without upper bounds, one per line. Usage: lifted.py [PYPROJECT].

Only torch stays at the version of constraints.txt, because a newer one would install gigabytes of CUDA libraries.
"""

import re
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_EXTRAS = ("dashboard", "postgres", "ray", "test")
_UPPER = re.compile(r",?\s*<=?\s*[^,;\]]+")


def lifted(settings: Path, constraints: Path) -> list[str]:
    """Returns the requirements of the project and its extras without upper bounds, and the pinned torch."""
    project = tomllib.loads(settings.read_text("utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in _EXTRAS:
        requirements += project["optional-dependencies"][extra]
    pinned = [line.strip() for line in constraints.read_text("utf-8").splitlines() if line.startswith("torch==")]
    pinned_or_own = re.compile(rf"(torch|{re.escape(project['name'])})\b(?!-)")
    others = [_UPPER.sub("", requirement) for requirement in requirements if not pinned_or_own.match(requirement)]
    return [*pinned, *others]


def main(arguments: list[str]) -> int:
    """Prints the requirements of the PYPROJECT, by default this project's."""
    settings = Path(arguments[0]) if arguments else _ROOT / "pyproject.toml"
    print(*lifted(settings, _ROOT / "constraints.txt"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
