"""Compares the longer trainings of a study, image by image: python -m experiments.longer.

A longer training is one run of one seed. Its confidence intervals are over images, and say nothing about other seeds.
"""

import argparse
import sys
from collections.abc import Sequence

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.events import Concluded
from study.record.folder import StudyFolder
from study.record.state import TrialState


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    command_line = Parser(
        "python -m experiments.longer",
        description="Compare the longer trainings of a study, image by image. A longer training is one run of one "
        "seed: the confidence intervals are over images, and say nothing about other seeds.",
    )
    add_study_flags(command_line)
    return command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="a2n_x2_cpu").require()))


def show(study: StudyFolder) -> int:
    """Prints the scores of each training, then the best one's difference from each of the others on each set.

    Raises:
        SuiteError: there are fewer than two complete trainings, or two were scored on different images.
    """
    from study.statistics.stats import paired

    trainings = _trainings(study)
    if len(trainings) < 2:
        raise SuiteError(
            f"study {study.study!r}: expected at least two longer trainings that are complete (python -m study.train "
            f"TRIAL --patches N), found {len(trainings)}"
        )
    ranked = sorted(trainings.items(), key=lambda item: -item[1][1].scores["valid/psnr"])
    (best, (winner, _)), *others = ranked
    psnr = {name: _psnr_by_set(conclusion) for name, (_, conclusion) in trainings.items()}
    sets = [name for name in psnr[best] if all(name in scored for scored in psnr.values())]

    for name, (trial, conclusion) in ranked:
        scores = ", ".join(f"{s} {conclusion.scores[f'{s.lower()}/psnr']:.3f} dB" for s in sets)
        print(f"{name}, one run, {trial.patches:,} patches: {scores}")

    for name, (trial, _) in others:
        if trial.patches != winner.patches:
            print(f"{best} - {name}: left out, because their budgets differ")
            continue
        for s in sets:
            best_scores = psnr[best][s]
            other_scores = psnr[name][s]
            if best_scores.keys() != other_scores.keys():
                raise SuiteError(f"{s}: {best} and {name} were scored on different images; train one of them again")
            d = paired(list(best_scores.values()), [other_scores[image] for image in best_scores])
            interval = f"95 % {d.low:.3f} to {d.high:.3f} over {d.count} images"
            print(f"{best} - {name} on {s}: {d.mean:+.3f} dB ({interval})")
    return 0


def _trainings(study: StudyFolder) -> dict[str, tuple[TrialState, Concluded]]:
    """Returns the complete longer trainings by the names of their trials. Trainings from other weights are left out."""
    from study.record.journal import read
    from study.record.state import fold

    trials = fold(read(study.journal)).trials
    trainings: dict[str, tuple[TrialState, Concluded]] = {}
    for folder in study.trainings():
        state = fold(read(folder.journal))
        for number, trial in state.trials.items():
            if trial.proposed.initial or trial.status != "finished" or state.concluded is None:
                continue
            name = trials[number].proposed.name or f"trial {number}"
            trainings[name] = (trial, state.concluded)
    return trainings


def _psnr_by_set(conclusion: Concluded) -> dict[str, dict[str, float]]:
    """Returns the PSNR of each image in dB: set -> image -> PSNR."""
    sets: dict[str, dict[str, float]] = {}
    for name, image, psnr, _ in conclusion.per_image:
        sets.setdefault(name, {})[image] = psnr
    return sets


if __name__ == "__main__":
    sys.exit(main())
