"""`python -m study.run`: run or continue a hyperparameter study.

The same command resumes an interrupted study. Once the study is complete, the command prints its result again.
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
    """The study seed that `text` states, from 0 to 2^63 - 1 like the seed of a config.

    Raises:
        argparse.ArgumentTypeError: it is not such a number.
    """
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0 … 2^63 - 1, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments: how to run, never a hyperparameter."""
    flags = Parser(
        "python -m study.run",
        description="Run or continue a hyperparameter study. Every trial is recorded. The same command resumes an "
        "interrupted study; once the study is complete, it prints the result again.",
    )
    flags.add_argument(
        "--experiment",
        default="quickstart",
        metavar="NAME|FILE.py",
        help="experiment to run: base configuration, search space, budget (default: quickstart)",
    )
    add_study_flags(flags)
    flags.add_argument(
        "--trials",
        type=at_least_one,
        default=50,
        metavar="N",
        help="total number of trials, including references and earlier sessions (default: 50)",
    )
    flags.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of images (default: the photographs in scikit-image's wheel)"
    )
    flags.add_argument("--seed", type=seed, metavar="S", help="seed of the study (default: the experiment's)")
    flags.add_argument(
        "--timeout", type=seconds, metavar="T", help="stop cleanly after this time, e.g. 90s, 20m, 2h (default: never)"
    )
    add_placement_flags(flags)
    flags.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: mlflow.db under --root)"
    )
    flags.add_argument(
        "--storage", metavar="URL", help="Optuna storage (a database), or none (default: optuna.db under --root)"
    )
    flags.add_argument(
        "--allow-leak",
        action="store_true",
        help="continue although training images also occur in a held-out set; the study records it",
    )
    add_take_over_flag(flags)
    flags.add_argument("--profile", action="store_true", help="print at the end how the wall time was spent")
    flags.add_argument(
        "--dry-run",
        action="store_true",
        help="print the search space, budget, first trials and estimated time; write nothing",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 success, 2 bad usage or input, 3 no trial succeeded, 75 resume later, 130 interrupted."""
    started = time.perf_counter()
    args = parser().parse_args(argv)

    def body() -> int:
        from study.question.experiment import load_experiment
        from study.session.options import RunOptions

        placement = placement_of(args)
        name, experiment = load_experiment(args.experiment)
        options = RunOptions.of_search(args)
        folder = folder_from(args, default=name)
        if args.dry_run:
            from study.session.dry_run import show

            return show(name, experiment, options, placement, folder)

        from study.record.wall_time import WallTime
        from study.session.outcome import Outcome, shown_again

        outcome = Outcome(
            name=name,
            experiment=experiment,
            options=options,
            placement=placement,
            folder=folder,
            wall_time=WallTime(started),
        )
        status = shown_again(outcome)
        if status is not None:
            return status

        from study.session.session import Session, run_session

        return run_session(Session.of(outcome))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
