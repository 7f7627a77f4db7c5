"""Reproduce the trial in this folder: install the recorded versions, retrain, and compare with the record.

`study.reproduce --export` copies this file as `reproduce.py` into the folder that it exports. It uses only Python's
standard library.
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
    """Reproduce the trial; returns the exit status of `study.reproduce`, or 2 if the environment cannot be made."""
    parser = argparse.ArgumentParser("python reproduce.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="folder of the study's images (not needed for built-in images)")
    parser.add_argument("--strict", action="store_true", help="also exit with 4 if only code or versions differ")
    parser.add_argument(
        "--no-venv", action="store_true", help="use the installed packages instead of making a virtual environment"
    )
    args = parser.parse_args(argv)
    trial = json.loads((HERE / "trial.json").read_text("utf-8"))
    try:
        python = sys.executable if args.no_venv else environment(HERE / ".venv", HERE / "requirements.txt")
    except (OSError, subprocess.CalledProcessError) as exc:
        print(
            f"error: {HERE / '.venv'}: cannot create the environment ({exc}); install requirements.txt yourself, then "
            "add --no-venv",
            file=sys.stderr,
        )
        return BAD_INPUT
    # -P: a package in the current folder must not replace the exported one.
    command = [python, "-P", "-m", "study.reproduce", str(trial["trial"]), "--root", str(HERE / "record")]
    command += ["--study-name", trial["study"]]
    if args.data:
        command += ["--data", args.data]
    if args.strict:
        command.append("--strict")
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(HERE / "code")})


def environment(folder: Path, requirements: Path) -> str:
    """Path of the Python in a virtual environment with exactly these packages. Creates the environment if needed.

    Raises:
        OSError: the environment cannot be created.
        subprocess.CalledProcessError: pip failed.
    """
    python = folder / "bin" / "python"
    complete = folder / "installed.txt"
    if not complete.is_file() or complete.read_bytes() != requirements.read_bytes():
        print(f"installing the recorded versions into {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "-r", requirements])
        complete.write_bytes(requirements.read_bytes())
    return str(python)


if __name__ == "__main__":
    sys.exit(main())
