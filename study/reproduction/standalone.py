"""Reproduce the trial in this folder: makes an environment with the recorded versions, trains again, compares.

`study.reproduce --export` copies this file, as `reproduce.py`, to where it works; it needs Python's own library alone.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python reproduce.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="the study's images, where scikit-image does not bring them")
    parser.add_argument("--strict", action="store_true", help="exit 4 for other code or versions too")
    parser.add_argument("--no-venv", action="store_true", help="use the packages of the Python that runs this")
    args = parser.parse_args(argv)
    trial = json.loads((HERE / "trial.json").read_text("utf-8"))
    try:
        python = sys.executable if args.no_venv else environment(HERE / ".venv", HERE / "requirements.txt")
    except (OSError, subprocess.CalledProcessError) as exc:
        print(f"error: {HERE / '.venv'}: cannot be made ({exc}); install requirements.txt yourself, then add --no-venv",
              file=sys.stderr)  # fmt: skip
        return BAD_INPUT
    # -P: no package in the current folder takes the place of the exported one.
    command = [python, "-P", "-m", "study.reproduce", str(trial["trial"]), "--root", str(HERE / "record")]
    command += ["--study-name", trial["study"]]
    command += ["--data", args.data] if args.data else []
    command += ["--strict"] if args.strict else []
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(HERE / "code")})


def environment(folder: Path, requirements: Path) -> str:
    """The Python of a virtual environment that has exactly these packages; made if it is not there."""
    python = folder / "bin" / "python"
    complete = folder / "installed.txt"
    if not complete.is_file() or complete.read_bytes() != requirements.read_bytes():
        print(f"installing the recorded versions in {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "-r", requirements])
        complete.write_bytes(requirements.read_bytes())
    return str(python)


if __name__ == "__main__":
    sys.exit(main())
