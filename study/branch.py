"""`python -m study.branch NEW`: copy a study so that the copy continues as a study of its own."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments."""
    flags = Parser(
        "python -m study.branch",
        description="Copy a study to the name NEW. The copy has all trials of the original and an identity of its own: "
        "it continues separately, with separate runs in MLflow. Longer trainings (study.train) are not copied. If you "
        "renamed or copied the study's folder by hand, pass its present name as NEW: the folder gets a new identity "
        "in place.",
    )
    flags.add_argument("new", metavar="NEW", help="name of the new study")
    add_study_flags(flags)
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 branched, 2 bad usage or input, 130 interrupted."""
    args = parser().parse_args(argv)

    def body() -> int:
        from dataclasses import replace

        from study.record.branching import branch

        folder = folder_from(args).require()
        for line in branch(folder, replace(folder, study=args.new)):
            print(line)

        root_flag = f" --root {shlex.quote(str(folder.root))}" if args.root else ""
        print(f"next: python -m study.status{root_flag} --study-name {args.new}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
