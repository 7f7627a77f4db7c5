"""What a study needs to go on elsewhere, and nothing else: python -m experiments.carry --help.

A machine that is lent for minutes brings neither the pixels' store nor every trial's weights: the store is made anew
from the pictures, and of the trials only those under way and the best one are asked for again.
"""

import argparse
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sr_core.cli import Parser, run_command
from sr_core.errors import SuiteError
from study.commandline import add_study_flags, folder_from
from study.folder import StudyFolder


def _trials(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers of trials such as 12,13, got {text!r}")
    return tuple(map(int, parts))


def parser() -> argparse.ArgumentParser:
    made = Parser(
        "python -m experiments.carry",
        description="Copy what a study needs to go on elsewhere: its journals, checkpoints of trials that have not "
        "ended, the best trial's weights. There, --root DIR goes on.",
    )
    add_study_flags(made)
    made.add_argument(
        "--weights", type=_trials, default=(), metavar="N,N…", help="of these trials too, because a transfer needs them"
    )
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="becomes a root with this study in it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: carry(folder_from(args).require(), args.to, args.weights))


def carry(study: StudyFolder, to: Path, weights: Collection[int] = ()) -> int:
    """Copy it below `to` and say how much that is.

    Raises:
        SuiteError: the copy would lie in the study's own root, or cannot be written.
    """
    if to.resolve() == study.root:
        raise SuiteError(f"--to {to}: that is the study's own --root; name another folder")
    count = size = 0
    try:
        for source in needed(study, weights):
            target = to / source.relative_to(study.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            count, size = count + 1, size + source.stat().st_size
    except OSError as exc:
        raise SuiteError(f"--to {to}: cannot be written ({exc.strerror})") from exc
    print(f"{count} files, {size / 1e6:.1f} MB, in {to}")
    return 0


def needed(study: StudyFolder, weights: Collection[int] = ()) -> Iterator[Path]:
    """The study's files without which it would not go on as it would have, those of its longer trainings too.

    Args:
        weights: numbers of trials whose weights are wanted besides.
    """
    from study.journal import read
    from study.state import fold

    for folder in (study, *study.trainings()):
        yield folder.journal
        state = fold(read(folder.journal))
        best = state.best()
        for number, trial in state.trials.items():
            if not trial.ended:
                yield from (p for p in sorted(folder.trial(number).glob("*.safetensors")))
            elif trial is best or trial.proposed.role == "training" or (folder == study and number in weights):
                yield from folder.trial(number).glob("weights.safetensors")


if __name__ == "__main__":
    sys.exit(main())
