"""`python -m study.train best --patches N`: train the configuration of a trial with a larger budget.

The same command resumes an interrupted training. Once the training is complete, the command prints its result again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, add_take_over_flag, at_least_one, folder_from, seconds
from study.executors.placement import add_placement_flags, placement_of


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments."""
    flags = Parser(
        "python -m study.train",
        description="Train the configuration of a trial with a larger budget. The same command resumes an interrupted "
        "training; once the training is complete, it prints the result again.",
    )
    flags.add_argument("trial", metavar="best|TRIAL", help="the best trial, or a trial's number")
    flags.add_argument(
        "--patches",
        type=at_least_one,
        required=True,
        metavar="N",
        help="training budget in patches; learning rate schedules are stretched to it",
    )
    flags.add_argument(
        "--transfer-from",
        type=Path,
        metavar="F",
        help="start from the weights in this file, of any scale; tensors whose name or shape differs start fresh",
    )
    add_study_flags(flags)
    flags.add_argument("--data", type=Path, metavar="DIR", help="folder of the study's images, if it has moved")
    flags.add_argument(
        "--timeout", type=seconds, metavar="T", help="stop cleanly after this time, e.g. 90s, 20m, 2h (default: never)"
    )
    add_placement_flags(flags)
    flags.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: mlflow.db under --root)"
    )
    add_take_over_flag(flags)
    flags.add_argument("--profile", action="store_true", help="print at the end how the wall time was spent")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 success, 2 bad usage or input, 3 the training failed, 75 resume later, 130 interrupted."""
    started = time.perf_counter()
    args = parser().parse_args(argv)
    if args.trial != "best" and not args.trial.isdecimal():
        parser().error(f"expected best or a trial's number, got {args.trial!r}")

    def body() -> int:
        placement = placement_of(args)
        if placement.slots > 1:
            raise SuiteError(f"a training uses one slot, got {placement.slots}; name one GPU, or none")
        study = folder_from(args).require()

        from study.record.wall_time import WallTime
        from study.session.options import RunOptions
        from study.session.session import run_session
        from study.session.training import training_session

        session = training_session(
            study,
            args.trial,
            patches=args.patches,
            transfer_from=args.transfer_from,
            options=RunOptions.of_training(args),
            placement=placement,
            wall_time=WallTime(started),
        )
        return run_session(session)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
