"""Compares trainings from x2 weights with their own trials from scratch: python -m experiments.transferred.

The two of a pair share a seed, so they train on the same patches and are scored on the same crops. The difference is
paired over seeds. Two conditions are checked: the first weights are those of the x2 trial of the same seed, and both
ways have seen equally many patches in total.
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
    """Returns the parser of the command's flags."""
    command_line = Parser(
        "python -m experiments.transferred",
        description="Compare the trainings of --study-name that started from weights of --x2 with their own trials "
        "from scratch. The difference is paired over seeds.",
    )
    add_study_flags(command_line)
    add_x2_flag(command_line)
    return command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="scratch_x4_cpu").require(), args.x2))


def show(study: StudyFolder, x2: str) -> int:
    """Prints one line per seed, then the mean difference with its confidence interval over seeds.

    Raises:
        SuiteError: a training breaks one of the conditions, or fewer than two can be compared.
    """
    from study.record.journal import read
    from study.record.state import fold
    from study.statistics.stats import paired

    source = StudyFolder(study.root, x2).require()
    pairs, left_out = same_seed(fold(read(study.journal)), fold(read(source.journal)), (study.study, x2))
    trainings = _trainings(study)
    transferred_scores: list[float] = []
    scratch_scores: list[float] = []
    for scratch, origin in pairs:
        seed = scratch.proposed.replicate
        if scratch.number not in trainings:
            left_out.append(
                f"seed {seed} is left out: no training of trial {scratch.number} started from other weights"
            )
            continue
        folder, trained = trainings[scratch.number]
        if trained.status != "finished":
            left_out.append(f"seed {seed} is left out: training {folder.training} is {trained.status}")
            continue
        _check(folder, trained, scratch, origin, source)
        assert trained.score is not None and scratch.score is not None
        transferred_scores.append(trained.score)
        scratch_scores.append(scratch.score)
        print(
            f"seed {seed}: from other weights {trained.score:.3f} dB after {origin.patches:,} + {trained.patches:,} "
            f"patches, from scratch {scratch.score:.3f} dB after {scratch.patches:,}"
        )

    for line in left_out:
        print(line)
    if len(scratch_scores) < 2:
        raise SuiteError(
            f"study {study.study!r}: expected at least two finished trainings that started from other weights "
            f"(study.train TRIAL --transfer-from F), found {len(scratch_scores)}"
        )
    d = paired(transferred_scores, scratch_scores)
    interval = f"95 % {d.low:.3f} to {d.high:.3f}, {d.count} seeds"
    significance = "" if d.low * d.high > 0 else "; no significant difference"
    print(f"from other weights - from scratch: {d.mean:+.3f} dB ({interval}){significance}")
    return 0


def _trainings(study: StudyFolder) -> dict[int, tuple[StudyFolder, TrialState]]:
    """Returns the trainings that started from other weights, by the number of their trial.

    Raises:
        SuiteError: a trial has two of them.
    """
    from study.record.journal import read
    from study.record.state import fold

    trainings: dict[int, tuple[StudyFolder, TrialState]] = {}
    for folder in study.trainings():
        for number, trial in fold(read(folder.journal)).trials.items():
            if not trial.proposed.initial:
                continue
            if number in trainings:
                raise SuiteError(
                    f"trial {number} of study {study.study!r}: expected one training that started from other weights, "
                    f"found {trainings[number][0].training} and {folder.training}; remove one of them"
                )
            trainings[number] = (folder, trial)
    return trainings


def _check(
    folder: StudyFolder, trained: TrialState, scratch: TrialState, origin: TrialState, source: StudyFolder
) -> None:
    """Raises SuiteError if a training is not a fair counterpart of its trial from scratch.

    Tensors whose names and shapes fit come from the x2 trial, the others (the tail of x4) from the seed. The digest of
    these first weights is therefore not the x2 trial's. The same start is built again to compare digests.
    """
    from sr_core.model.weights import read_weights
    from sr_core.training.checkpoint import digest_of
    from study.question.config import differences
    from study.session.training import start_from

    assert isinstance(origin.end, Finished)
    training = f"training {folder.training} of study {folder.study!r}"
    x2_trial = f"trial {origin.number} of {source.study}"
    changed = differences(trained.config, scratch.config).keys() - {"train.budget_patches"}
    if changed:
        raise SuiteError(f"{training}: differs from trial {scratch.number} in {', '.join(sorted(changed))}")
    if origin.patches + trained.patches != scratch.patches:
        raise SuiteError(
            f"{training}: {origin.patches:,} patches of {x2_trial} and its own {trained.patches:,} are not the "
            f"{scratch.patches:,} of trial {scratch.number} from scratch; train it with "
            f"--patches {scratch.patches - origin.patches}"
        )
    weights = source.trial(origin.number) / "weights.safetensors"
    stored, _ = read_weights(weights)
    if digest_of(stored) != origin.end.weights:
        raise SuiteError(
            f"{weights}: not the weights that the journal records for {x2_trial}; restore the file from a copy"
        )
    if start_from(weights, trained.config).digest != trained.proposed.initial:
        raise SuiteError(
            f"{training}: did not start from the weights of {x2_trial}, which has its seed; train it with "
            f"--transfer-from {weights}"
        )


if __name__ == "__main__":
    sys.exit(main())
