"""Finds the trials of two studies of one configuration that share a seed: python -m experiments.seeds --help.

A trial's number depends on failures before it. The number of its seed, which the journal holds, does not.
"""

import argparse
import sys
from collections.abc import Sequence

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState


def add_x2_flag(command_line: argparse.ArgumentParser) -> None:
    """Adds --x2, the study whose base trials provide the first weights of trainings at another scale."""
    command_line.add_argument(
        "--x2", metavar="NAME", default="claims_x2_cpu", help="the study that provides weights (default: %(default)s)"
    )


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    command_line = Parser(
        "python -m experiments.seeds",
        description="Print one line for each seed that finished in both studies: the number of its trial in "
        "--study-name, and the weights file of its trial in --x2.",
    )
    add_study_flags(command_line)
    add_x2_flag(command_line)
    return command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="scratch_x4_cpu").require(), args.x2))


def show(scratch: StudyFolder, x2: str) -> int:
    """Prints the lines. Seeds that are left out are listed on stderr."""
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
    """Returns the trials of a study's only configuration by the number of their seed, in any state.

    Raises:
        SuiteError: the study is a search, so it has several configurations.
    """
    searched = [t for t in state.trials.values() if t.proposed.role == "search"]
    if len(searched) > 1:
        raise SuiteError(
            f"study {study!r}: expected a study of one base configuration (an experiment without ranges), "
            f"found {len(searched)} proposals"
        )
    if not searched:
        return {}
    [base] = searched
    return {0: base, **state.replicates_of(base.number)}


def same_seed(
    scratch: StudyState, x2: StudyState, names: tuple[str, str]
) -> tuple[list[tuple[TrialState, TrialState]], list[str]]:
    """Returns (trial, x2 trial) for each seed that finished in both studies, and a line for each seed that did not.

    Args:
        names: the names of the two studies, for messages.
    Raises:
        SuiteError: the studies have different root seeds.
    """
    scratch_trials = base_trials(scratch, names[0])
    x2_trials = base_trials(x2, names[1])
    pairs = []
    left_out = []
    for seed in sorted(scratch_trials.keys() | x2_trials.keys()):
        here = scratch_trials.get(seed)
        there = x2_trials.get(seed)
        if here is None or there is None or here.status != "finished" or there.status != "finished":
            problems = filter(None, (_problem(here, names[0]), _problem(there, names[1])))
            left_out.append(f"seed {seed} is left out: {', '.join(problems)}")
            continue
        if here.config.seed != there.config.seed:
            raise SuiteError(
                f"seed {seed}: trial {here.number} of {names[0]} has {here.config.seed}, trial {there.number} of "
                f"{names[1]} has {there.config.seed}; run both studies with the same --seed"
            )
        pairs.append((here, there))
    return pairs, left_out


def _problem(trial: TrialState | None, study: str) -> str:
    """Returns why a seed's trial cannot be compared; empty if it can."""
    if trial is None:
        return f"{study} has no trial with it"
    return "" if trial.status == "finished" else f"trial {trial.number} of {study} is {trial.status}"


if __name__ == "__main__":
    sys.exit(main())
