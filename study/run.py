"""`python -m study.run`: one command searches, and everything is recorded.

Typed again it goes on where it was; when the study is complete it only prints the result.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, add_take_over_flag, at_least_one, folder_from, seconds
from study.executors.placement import add_placement_flags, placement_of


def seed(text: str) -> int:
    """A study seed, of the same range as a config's."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0 … 2^63 - 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The flags say how to run, never a hyperparameter."""
    made = Parser("python -m study.run", description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument(
        "--experiment", default="quickstart", metavar="NAME|FILE.py", help="the question (default: quickstart)"
    )
    add_study_flags(made)
    made.add_argument(
        "--trials",
        type=at_least_one,
        default=50,
        metavar="N",
        help="trials in all, references included (default: 50)",
    )
    made.add_argument("--data", type=Path, metavar="DIR", help="images (default: those in scikit-image's wheel)")
    made.add_argument("--seed", type=seed, metavar="S", help="study seed (default: the experiment's)")
    made.add_argument("--timeout", type=seconds, metavar="T", help="end cleanly after this time, e.g. 90s, 20m, 2h")
    add_placement_flags(made)
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: under --root)")
    made.add_argument("--storage", metavar="URL", help="database of the Optuna view, or none (default: under --root)")
    made.add_argument(
        "--allow-leak", action="store_true", help="go on though training images are held out too; it is recorded"
    )
    add_take_over_flag(made)
    made.add_argument("--profile", action="store_true", help="say at the end what the wall time went into")
    made.add_argument("--dry-run", action="store_true", help="print space, budget, first trials, time; write nothing")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    begun = time.perf_counter()
    args = parser().parse_args(argv)

    def body() -> int:
        from study.question.experiment import load_experiment

        placement = placement_of(args)
        name, experiment = load_experiment(args.experiment)
        if args.dry_run:
            from study.session.dry_run import show

            return show(name, experiment, args, placement)
        from study.record.wall_time import WallTime
        from study.session.outcome import Outcome, shown_again

        outcome = Outcome(
            name=name,
            experiment=experiment,
            args=args,
            placement=placement,
            folder=folder_from(args, default=name),
            wall_time=WallTime(begun),
        )
        shown = shown_again(outcome)
        if shown is not None:
            return shown
        from study.session.session import Session, run_session

        return run_session(Session.of(outcome))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
