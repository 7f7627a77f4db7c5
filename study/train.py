"""`python -m study.train best --patches N`: a chosen configuration, trained on a longer budget.

Typed again it goes on where it was; when the training is complete it only prints the result.
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
    made = Parser("python -m study.train", description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("trial", metavar="best|TRIAL", help="the winner, or a trial's number")
    made.add_argument(
        "--patches", type=at_least_one, required=True, metavar="N", help="training patches; schedules stretch over them"
    )
    made.add_argument(
        "--transfer-from", type=Path, metavar="F", help="weights to start from where names and shapes fit, any scale's"
    )
    add_study_flags(made)
    made.add_argument("--data", type=Path, metavar="DIR", help="where the study's images are now, if they moved")
    made.add_argument("--timeout", type=seconds, metavar="T", help="end cleanly after this time, e.g. 90s, 20m, 2h")
    add_placement_flags(made)
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: under --root)")
    add_take_over_flag(made)
    made.add_argument("--profile", action="store_true", help="say at the end what the wall time went into")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    begun = time.perf_counter()
    args = parser().parse_args(argv)
    if args.trial != "best" and not args.trial.isdecimal():
        parser().error(f"expected best or a trial's number, got {args.trial!r}")

    def body() -> int:
        placement = placement_of(args)
        if placement.slots > 1:
            raise SuiteError(f"one training takes one slot, {placement.slots} were asked for; name one GPU, or none")
        study = folder_from(args).require()
        from study.record.wall_time import WallTime
        from study.session.session import run_session
        from study.session.training import training_session

        return run_session(training_session(study, args, placement, WallTime(begun)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
