"""Trainings that started from other weights, against their own trials from scratch: python -m experiments.transferred.

Each pair shares its seed, so patches and validation crops are the same; the difference is paired over seeds.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from sr_core.cli import Parser, run_command
from sr_core.errors import SuiteError
from study.commandline import add_study_flags, folder_from
from study.folder import StudyFolder


def parser() -> argparse.ArgumentParser:
    made = Parser("python -m experiments.transferred", description=__doc__.splitlines()[0] if __doc__ else None)
    add_study_flags(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: show(folder_from(args, default="scratch_x4_cpu").require()))


def show(study: StudyFolder) -> int:
    """One line a seed, then the verdict."""
    from study.journal import read
    from study.state import fold
    from study.stats import paired

    trials = fold(read(study.journal)).trials
    scores: list[tuple[float, float]] = []
    for training in study.trainings():
        found = re.fullmatch(r"(\d+)-(\d+)-from-[0-9a-f]+", training.training)
        trained = fold(read(training.journal)).trials if found else {}
        if found is None or (number := int(found[1])) not in trained:
            continue
        here, scratch = trained[number], trials[number]
        if here.status != "finished" or scratch.status != "finished" or here.score is None or scratch.score is None:
            continue
        scores.append((here.score, scratch.score))
        print(
            f"seed {scratch.proposed.replicate}: from other weights {here.score:.3f} dB after {here.patches:,} patches"
            f", from scratch {scratch.score:.3f} dB after {scratch.patches:,}"
        )
    if len(scores) < 2:
        raise SuiteError(
            f"study {study.study!r}: expected at least two finished trainings that started from other weights "
            f"(study.train TRIAL --transfer-from F), found {len(scores)}"
        )
    d = paired(*zip(*scores, strict=True))
    interval = f"95 % {d.low:.3f} to {d.high:.3f}, {d.count} seeds"
    told = "" if d.low * d.high > 0 else "; not told apart"
    print(f"from other weights - from scratch: {d.mean:+.3f} dB ({interval}){told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
