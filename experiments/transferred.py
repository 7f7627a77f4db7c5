"""Trainings that started from x2 weights, against their own trials from scratch: python -m experiments.transferred.

Each pair shares its seed, so patches and validation crops are the same; the difference is paired over seeds. What is
compared has to be what was asked: the weights are those of the x2 trial of the same seed, and both ways have seen as
many patches in all.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.seeds import add_x2_flag, same_seed
from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.events import Finished
from study.record.folder import StudyFolder
from study.record.state import TrialState


def parser() -> argparse.ArgumentParser:
    made = Parser("python -m experiments.transferred", description=__doc__.splitlines()[0] if __doc__ else None)
    add_study_flags(made)
    add_x2_flag(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="scratch_x4_cpu").require(), args.x2))


def show(study: StudyFolder, x2: str) -> int:
    """One line a seed, then the verdict."""
    from study.record.journal import read
    from study.record.state import fold
    from study.statistics.stats import paired

    source = StudyFolder(study.root, x2).require()
    pairs, told = same_seed(fold(read(study.journal)), fold(read(source.journal)), (study.study, x2))
    trained = _trainings(study)
    scores: list[tuple[float, float]] = []
    for scratch, origin in pairs:
        seed = scratch.proposed.replicate
        if scratch.number not in trained:
            told.append(f"seed {seed} is left out: no training of trial {scratch.number} started from other weights")
            continue
        folder, here = trained[scratch.number]
        if here.status != "finished":
            told.append(f"seed {seed} is left out: training {folder.training} is {here.status}")
            continue
        _check(folder, here, scratch, origin, source)
        assert here.score is not None and scratch.score is not None
        scores.append((here.score, scratch.score))
        print(
            f"seed {seed}: from other weights {here.score:.3f} dB after {origin.patches:,} + {here.patches:,} patches"
            f", from scratch {scratch.score:.3f} dB after {scratch.patches:,}"
        )
    for line in told:
        print(line)
    if len(scores) < 2:
        raise SuiteError(
            f"study {study.study!r}: expected at least two finished trainings that started from other weights "
            f"(study.train TRIAL --transfer-from F), found {len(scores)}"
        )
    d = paired(*zip(*scores, strict=True))
    interval = f"95 % {d.low:.3f} to {d.high:.3f}, {d.count} seeds"
    verdict = "" if d.low * d.high > 0 else "; not told apart"
    print(f"from other weights - from scratch: {d.mean:+.3f} dB ({interval}){verdict}")
    return 0


def _trainings(study: StudyFolder) -> dict[int, tuple[StudyFolder, TrialState]]:
    """Those that started from other weights, by their trial. Raises SuiteError where a trial has two."""
    from study.record.journal import read
    from study.record.state import fold

    found: dict[int, tuple[StudyFolder, TrialState]] = {}
    for folder in study.trainings():
        for number, trial in fold(read(folder.journal)).trials.items():
            if not trial.proposed.initial:
                continue
            if number in found:
                raise SuiteError(
                    f"trial {number} of study {study.study!r}: expected one training that started from other weights, "
                    f"found {found[number][0].training} and {folder.training}; remove the one that is not meant"
                )
            found[number] = folder, trial
    return found


def _check(folder: StudyFolder, here: TrialState, scratch: TrialState, origin: TrialState, source: StudyFolder) -> None:
    """Raises SuiteError where a training is not the x4 half of the comparison.

    Its first weights are the x2 trial's where names and shapes fit and its seed's elsewhere (the tail of x4 is another
    one), so their digest is none of the x2 trial's: it is that of the same start, made again.
    """
    from sr_core.model.weights import read_weights
    from sr_core.training.checkpoint import digest_of
    from study.question.config import differences
    from study.session.training import start_from

    assert isinstance(origin.end, Finished)
    where, of = f"training {folder.training} of study {folder.study!r}", f"trial {origin.number} of {source.study}"
    if changed := differences(here.config, scratch.config).keys() - {"train.budget_patches"}:
        raise SuiteError(f"{where}: differs from trial {scratch.number} in {', '.join(sorted(changed))}")
    if origin.patches + here.patches != scratch.patches:
        raise SuiteError(
            f"{where}: {origin.patches:,} patches of {of} and its own {here.patches:,} are not the {scratch.patches:,} "
            f"of trial {scratch.number} from scratch; train it with --patches {scratch.patches - origin.patches}"
        )
    weights = source.trial(origin.number) / "weights.safetensors"
    given, _ = read_weights(weights)
    if digest_of(given) != origin.end.weights:
        raise SuiteError(f"{weights}: not the weights that {of} came to by its record; restore the file from a copy")
    if start_from(weights, here.config).digest != here.proposed.initial:
        raise SuiteError(
            f"{where}: did not start from the weights of {of}, which has its seed; train it with --transfer-from "
            f"{weights}"
        )


if __name__ == "__main__":
    sys.exit(main())
