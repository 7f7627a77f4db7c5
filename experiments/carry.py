"""What a study needs to go on elsewhere, and nothing else: python -m experiments.carry --help.

A machine that is lent for minutes brings neither the pixels' store nor every trial's weights: the store is made anew
from the images, and of the trials only those under way and the best one are asked for again. Results come along: a
study that was concluded does not write them a second time.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.folder import StudyFolder


def parser() -> argparse.ArgumentParser:
    made = Parser(
        "python -m experiments.carry",
        description="Copy what a study needs to go on elsewhere: its journals, results, checkpoints of trials that "
        "have not ended, the best trial's weights. There, --root DIR goes on.",
    )
    add_study_flags(made)
    made.add_argument(
        "--every-seed",
        action="store_true",
        help="weights of the base configuration's trials with every seed too, because a transfer needs them",
    )
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="becomes a root with this study in it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: carry(folder_from(args).require(), args.to, every_seed=args.every_seed))


def carry(study: StudyFolder, to: Path, *, every_seed: bool = False) -> int:
    """Copy it below `to` and say how much that is.

    Raises:
        SuiteError: the copy would lie in the study's own root or cannot be written, or the journal names a result that
            lies outside of the study's folder.
    """
    if to.resolve() == study.root:
        raise SuiteError(f"--to {to}: that is the study's own --root; name another folder")
    sources = list(needed(study, every_seed=every_seed))
    size = 0
    try:
        for source in sources:
            target = to / source.relative_to(study.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            size += source.stat().st_size
    except OSError as exc:
        raise SuiteError(f"--to {to}: cannot be written ({exc.strerror})") from exc
    print(f"{len(sources)} files, {size / 1e6:.1f} MB, in {to}")
    return 0


def needed(study: StudyFolder, *, every_seed: bool = False) -> Iterator[Path]:
    """The study's files without which it would not go on as it would have, those of its longer trainings too.

    Args:
        every_seed: weights of the base configuration's trials besides (`experiments.seeds`).
    """
    from experiments.seeds import base_trials
    from study.record.journal import read
    from study.record.state import fold

    for folder in (study, *study.trainings()):
        yield folder.journal
        state = fold(read(folder.journal))
        of_base = base_trials(state, study.study) if every_seed and folder == study else {}
        wanted = {trial.number for trial in of_base.values()}
        best = state.best()
        for number, trial in state.trials.items():
            place = folder.trial(number)
            if not trial.ended:
                yield from filter(folder.has, sorted(place.glob("*.safetensors")))
            elif trial is best or trial.proposed.role == "training" or number in wanted:
                pair = place / "weights.safetensors", place / "config.json"  # none is read without the other
                yield from filter(folder.has, pair)
        yield from filter(folder.has, sorted((folder.path / "sessions").glob("*.patch")))
        named = state.concluded.files if state.concluded else ()
        yield from filter(folder.has, [_inside(folder, name) for name in named])


def _inside(folder: StudyFolder, name: str) -> Path:
    """A result that the journal names. Raises SuiteError where that lies elsewhere: a record may come from others."""
    if not folder.holds(name):
        raise SuiteError(f"{folder.journal}: names {name!r} among its results, which is outside of {folder.path}")
    return folder.path / name


if __name__ == "__main__":
    sys.exit(main())
