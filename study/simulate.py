"""`python -m study.simulate`: what a sampler and a scheduler would cost, on recorded curves, before it is paid for.

Every combination runs simulated studies on the curves of --curves, or of a finished study.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, at_least_one, folder_from


def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def patch_counts(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"expected patch counts such as 480,960, got {text!r}")
    return tuple(map(int, text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m study.simulate", description="replay recorded learning curves through any search")
    parser.add_argument("--experiment", default="quickstart", metavar="NAME|FILE.py", help="space and rungs")
    parser.add_argument("--curves", type=Path, metavar="CSV", help="recorded curves (default: those of the study)")
    parser.add_argument("--record", nargs="+", metavar="STUDY", help="print the curves of these studies as a table")
    parser.add_argument("--samplers", type=names, default=["tpe", "random"], metavar="A,B", help="default: tpe,random")
    parser.add_argument(
        "--schedulers", type=names, default=["none", "successive_halving", "asha"], metavar="A,B", help="default: all"
    )
    parser.add_argument("--rungs", type=patch_counts, metavar="P,Q", help="patch counts (default: the experiment's)")
    parser.add_argument("--reduction-factor", type=float, metavar="F", help="default: the experiment's")
    parser.add_argument("--trials", type=at_least_one, default=50, metavar="N", help="of a study (default: 50)")
    parser.add_argument("--studies", type=at_least_one, default=50, metavar="S", help="of each kind (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first simulated study (default: 0)")
    parser.add_argument("--goal", type=float, default=0.02, metavar="DB", help="from the best, in dB (default: 0.02)")
    parser.add_argument("--rate", type=float, metavar="R", help="patches/s of one slot, to have hours beside patches")
    parser.add_argument("--processes", type=at_least_one, default=1, metavar="N", help="at once (default: 1)")
    add_study_flags(parser)
    args = parser.parse_args(argv)
    return run_command(lambda: _record(args) if args.record else _simulate(args))


def _record(args: argparse.Namespace) -> int:
    from study.record.folder import StudyFolder
    from study.record.journal import read
    from study.record.state import fold
    from study.search.simulation import record, write

    root = folder_from(args, default="any").root
    states = [fold(read(StudyFolder(root, name).require().journal)) for name in args.record]
    sys.stdout.write(write(record(states)))
    return 0


def _simulate(args: argparse.Namespace) -> int:
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
