"""`python -m study.simulate`: replay recorded learning curves to compare what samplers and schedulers cost.

Each combination of a sampler and a scheduler runs simulated studies on the curves of --curves or of a finished study.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, at_least_one, folder_from

_SCHEDULERS = ["none", "successive_halving", "asha"]


def names(text: str) -> list[str]:
    """The names in a list that is separated by commas."""
    return [name for name in text.split(",") if name]


def patch_counts(text: str) -> tuple[int, ...]:
    """The patch counts in a list that is separated by commas.

    Raises:
        argparse.ArgumentTypeError: one of them is not a whole number.
    """
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected patch counts such as 480,960, got {text!r}")
    return tuple(map(int, parts))


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per sampler and scheduler, or the recorded curves as CSV; returns the exit status."""
    parser = Parser(
        "python -m study.simulate",
        description="Replay recorded learning curves with other samplers and schedulers, and print what each would "
        "cost and find. Nothing is trained.",
    )
    parser.add_argument(
        "--experiment",
        default="quickstart",
        metavar="NAME|FILE.py",
        help="experiment with the search space and rungs (default: quickstart)",
    )
    parser.add_argument(
        "--curves", type=Path, metavar="CSV", help="table of recorded curves (default: the curves of the study)"
    )
    parser.add_argument(
        "--record", nargs="+", metavar="STUDY", help="instead print the curves of these studies as a CSV table"
    )
    parser.add_argument(
        "--samplers",
        type=names,
        default=["tpe", "random"],
        metavar="A,B",
        help="samplers to compare (default: tpe,random)",
    )
    parser.add_argument(
        "--schedulers", type=names, default=_SCHEDULERS, metavar="A,B", help="schedulers to compare (default: all)"
    )
    parser.add_argument(
        "--rungs", type=patch_counts, metavar="P,Q", help="rungs in patches (default: the experiment's)"
    )
    parser.add_argument(
        "--reduction-factor", type=float, metavar="F", help="1/F of the trials pass a rung (default: the experiment's)"
    )
    parser.add_argument(
        "--trials", type=at_least_one, default=50, metavar="N", help="trials per simulated study (default: 50)"
    )
    parser.add_argument(
        "--studies", type=at_least_one, default=50, metavar="S", help="simulated studies per combination (default: 50)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the first simulated study (default: 0)"
    )
    parser.add_argument(
        "--goal",
        type=float,
        default=0.02,
        metavar="DB",
        help="a study succeeds within this distance of the best PSNR, in dB (default: 0.02)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="R",
        help="training speed of one slot in patches/s, to print costs in hours too",
    )
    parser.add_argument("--processes", type=at_least_one, default=1, metavar="N", help="worker processes (default: 1)")
    add_study_flags(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: _record(args) if args.record else _simulate(args))


def _record(args: argparse.Namespace) -> int:
    """Print the curves of the named studies as a CSV table."""
    from study.record.folder import StudyFolder
    from study.record.journal import read
    from study.record.state import fold
    from study.search.simulation import record, write

    root = folder_from(args, default="any").root
    states = [fold(read(StudyFolder(root, name).require().journal)) for name in args.record]
    sys.stdout.write(write(record(states)))
    return 0


def _simulate(args: argparse.Namespace) -> int:
    """Simulate studies for each sampler and scheduler, and print a row for each."""
    from study.question.experiment import load_experiment
    from study.record.journal import read
    from study.record.state import fold
    from study.search.economy import HEADER, EconomyPlan, compare_samplers
    from study.search.simulation import complete, record
    from study.search.simulation import read as read_table

    name, experiment = load_experiment(args.experiment)
    if args.curves:
        table = read_table(args.curves)
    else:
        table = record([fold(read(folder_from(args, default=name).require().journal))])

    plan = EconomyPlan(
        experiment=experiment,
        table=complete(table, experiment.space),
        rungs=args.rungs or experiment.rungs,
        reduction_factor=args.reduction_factor or experiment.reduction_factor,
        trials=args.trials,
        studies=args.studies,
        goal=args.goal,
        first=args.seed,
    )
    print(HEADER)
    for row in compare_samplers(plan, args.samplers, args.schedulers, processes=args.processes, report=show_progress):
        show_progress("")
        print(row.line(args.rate), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
