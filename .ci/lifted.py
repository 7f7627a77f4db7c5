"""Prints what the suite needs, a requirement a line, without upper bounds. Usage: lifted.py [PYPROJECT].

torch alone stays at the version of constraints.txt: a newer one would bring gigabytes of CUDA libraries with it.
"""

import re
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_EXTRAS = ("dashboard", "postgres", "ray", "test")
_UPPER = re.compile(r",?\s*<=?\s*[^,;\]]+")


def lifted(settings: Path, constraints: Path) -> list[str]:
    """Returns the requirements of the project and of its extras; torch as it is pinned."""
    project = tomllib.loads(settings.read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in _EXTRAS:
        wanted += project["optional-dependencies"][extra]
    pinned = [line.strip() for line in constraints.read_text("utf-8").splitlines() if line.startswith("torch==")]
    others = [one for one in wanted if not re.match(rf"(torch|{re.escape(project['name'])})\b(?!-)", one)]
    return [*pinned, *(_UPPER.sub("", one) for one in others)]


def main(arguments: list[str]) -> int:
    settings = Path(arguments[0]) if arguments else _ROOT / "pyproject.toml"
    print(*lifted(settings, _ROOT / "constraints.txt"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
