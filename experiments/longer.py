"""Longer trainings of a study against each other, image by image: python -m experiments.longer.

A longer training is one run of one seed. What can be said without training more is how its advantage spreads over
images: the interval is over those, and says nothing of another seed.
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
    made = Parser("python -m experiments.longer", description=__doc__.splitlines()[0] if __doc__ else None)
    add_study_flags(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="a2n_x2_cpu").require()))


def show(study: StudyFolder) -> int:
    """The scores of each training, then for each set the best one's advantage over every other."""
    from study.statistics.stats import paired

    trained = _trainings(study)
    if len(trained) < 2:
        raise SuiteError(
            f"study {study.study!r}: expected at least two longer trainings that are complete (python -m study.train "
            f"TRIAL --patches N), found {len(trained)}"
        )
    ranked = sorted(trained.items(), key=lambda one: -one[1][1].scores["valid/psnr"])
    (best, (winner, _)), *others = ranked
    images = {name: _by_set(told) for name, (_, told) in trained.items()}
    sets = [s for s in images[best] if all(s in of for of in images.values())]
    for name, (trial, told) in ranked:
        scores = ", ".join(f"{s} {told.scores[f'{s.lower()}/psnr']:.3f} dB" for s in sets)
        print(f"{name}, one run, {trial.patches:,} patches: {scores}")
    for name, (trial, _) in others:
        if trial.patches != winner.patches:
            print(f"{best} - {name}: left out, their budgets differ")
            continue
        for s in sets:
            ours, theirs = images[best][s], images[name][s]
            if ours.keys() != theirs.keys():
                raise SuiteError(f"{s}: {best} and {name} were scored on different images; train one of them again")
            d = paired(list(ours.values()), [theirs[image] for image in ours])
            interval = f"95 % {d.low:.3f} to {d.high:.3f} over {d.count} images"
            print(f"{best} - {name} on {s}: {d.mean:+.3f} dB ({interval})")
    return 0


def _trainings(study: StudyFolder) -> dict[str, tuple[TrialState, Concluded]]:
    """The complete ones that began with their seed's own weights, by what their trial is called."""
    from study.record.journal import read
    from study.record.state import fold

    trials = fold(read(study.journal)).trials
    found: dict[str, tuple[TrialState, Concluded]] = {}
    for folder in study.trainings():
        state = fold(read(folder.journal))
        for number, trial in state.trials.items():
            if trial.proposed.initial or trial.status != "finished" or state.concluded is None:
                continue
            source = trials[number].proposed
            found[source.name or f"trial {number}"] = trial, state.concluded
    return found


def _by_set(told: Concluded) -> dict[str, dict[str, float]]:
    """PSNR [dB] of each image, by set."""
    sets: dict[str, dict[str, float]] = {}
    for name, image, psnr, _ in told.per_image:
        sets.setdefault(name, {})[image] = psnr
    return sets


if __name__ == "__main__":
    sys.exit(main())
