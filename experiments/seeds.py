"""Which trials of two studies of one configuration share a seed: python -m experiments.seeds --help.

A trial's number depends on what failed before it; the seed's number, in the journal, does not.
"""

import argparse
import sys
from collections.abc import Sequence

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState


def add_x2_flag(made: argparse.ArgumentParser) -> None:
    """--x2: the study whose base made the weights that trainings at another scale start from."""
    made.add_argument("--x2", metavar="NAME", default="claims_x2_cpu", help="whose base gives weights (%(default)s)")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        "python -m experiments.seeds",
        description="One line for each seed that finished in both studies: the trial of --study-name, and the weights "
        "of the trial of --x2 that has its seed.",
    )
    add_study_flags(made)
    add_x2_flag(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="scratch_x4_cpu").require(), args.x2))


def show(scratch: StudyFolder, x2: str) -> int:
    """The lines; seeds that are left out are told on stderr."""
    from study.record.journal import read
    from study.record.state import fold

    source = StudyFolder(scratch.root, x2).require()
    pairs, left_out = same_seed(fold(read(scratch.journal)), fold(read(source.journal)), (scratch.study, x2))
    for line in left_out:
        print(line, file=sys.stderr)
    for trial, origin in pairs:
        print(trial.number, source.trial(origin.number) / "weights.safetensors")
    return 0


def base_trials(state: StudyState, study: str) -> dict[int, TrialState]:
    """The trials of a study's one configuration by the number of their seed, whatever became of them.

    Raises:
        SuiteError: the study searches, so that no configuration is the one.
    """
    searched = [t for t in state.trials.values() if t.proposed.role == "search"]
    if len(searched) > 1:
        raise SuiteError(
            f"study {study!r}: expected a study of one base configuration (an experiment without ranges), "
            f"found {len(searched)} proposals"
        )
    return {0: trial, **state.replicates_of(trial.number)} if (trial := next(iter(searched), None)) else {}


def same_seed(
    scratch: StudyState, x2: StudyState, names: tuple[str, str]
) -> tuple[list[tuple[TrialState, TrialState]], list[str]]:
    """(trial, x2 trial) for each seed that finished in both, and a line for each that did not.

    Raises:
        SuiteError: the studies drew their seeds from different ones.
    """
    pairs, left_out = [], []
    found = [base_trials(state, name) for state, name in zip((scratch, x2), names, strict=True)]
    for seed in sorted(found[0].keys() | found[1].keys()):
        trials = [of.get(seed) for of in found]
        missing = [
            f"{name} has no trial of it" if trial is None else f"trial {trial.number} of {name} is {trial.status}"
            for trial, name in zip(trials, names, strict=True)
            if trial is None or trial.status != "finished"
        ]
        if missing:
            left_out.append(f"seed {seed} is left out: {', '.join(missing)}")
            continue
        here, there = (trial for trial in trials if trial is not None)
        if here.config.seed != there.config.seed:
            raise SuiteError(
                f"seed {seed}: trial {here.number} of {names[0]} has {here.config.seed}, trial {there.number} of "
                f"{names[1]} has {there.config.seed}; run both studies with the same --seed"
            )
        pairs.append((here, there))
    return pairs, left_out


if __name__ == "__main__":
    sys.exit(main())
