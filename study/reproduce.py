"""`python -m study.reproduce best`: retrain a recorded trial and check that every number comes out the same."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, folder_from

if TYPE_CHECKING:
    from study.record.folder import StudyFolder
    from study.record.state import StudyState, TrialState
    from study.reproduction.judgement import Judgement

_RUN_ID_LENGTH = 32
"""Characters of an MLflow run id."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments."""
    flags = Parser(
        "python -m study.reproduce",
        description="Retrain a recorded trial and compare every number with the record. Exit status 0 means that the "
        "trial was reproduced, 4 that it was not.",
    )
    flags.add_argument(
        "trial", metavar="best|TRIAL|RUN_ID", help="the best trial, a trial's number, or an MLflow run id"
    )
    add_study_flags(flags)
    flags.add_argument("--data", type=Path, metavar="DIR", help="folder of the study's images, if it has moved")
    flags.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store that holds RUN_ID (default: mlflow.db under --root)"
    )
    flags.add_argument(
        "--strict", action="store_true", help="exit with status 4 also if the code or a package version differs"
    )
    flags.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="do not train; write a folder with all that is needed to reproduce the trial elsewhere",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 reproduced or exported, 4 not reproduced, 2 bad usage or input, 130 interrupted."""
    args = parser().parse_args(argv)
    if args.trial != "best" and not args.trial.isdecimal() and len(args.trial) != _RUN_ID_LENGTH:
        parser().error(f"expected best, a trial's number or an MLflow run id of 32 characters, got {args.trial!r}")
    if args.export and (args.strict or args.data):
        parser().error("--export neither trains nor compares; leave out --strict and --data")
    return run_command(lambda: reproduce(args))


def reproduce(args: argparse.Namespace) -> int:
    """Retrain the trial and print how it compares with the record, or export it; returns 0 or 4.

    Raises:
        SuiteError: the study, the trial or the images are missing.
    """
    from study.record.journal import JournalError, UnknownJournalError, read
    from study.record.state import fold
    from study.reproduction import inputs, retrain
    from study.reproduction.export import export
    from study.reproduction.judgement import different
    from study.statistics.wording import lost_winner

    folder, which = _named_trial(args)
    folder.require()
    try:
        state = fold(read(folder.journal))
    except UnknownJournalError:
        raise  # nothing was compared
    except JournalError as exc:
        return _end(different([f"record: {exc}"]))

    trial = retrain.find_trial(state, which, folder.study)
    lost = lost_winner(state) if which == "best" else None
    if lost:
        print(f"note: {lost}")
    print(f"trial {trial.number} of {folder.study}: config {trial.proposed.config_hash}, {trial.patches} patches")

    differences = [*inputs.changed_settings(folder, state, trial), *retrain.contradictions(trial)]
    if differences:
        return _end(different(differences))
    if args.export:
        print("\n".join(export(folder, state, trial, args.export)))
        return 0
    return _retrain(folder, state, trial, args)


def _named_trial(args: argparse.Namespace) -> tuple["StudyFolder", str]:
    """The study's folder, and `best` or the number of the trial; an MLflow run is looked up in its store."""
    folder = folder_from(args)
    if len(args.trial) != _RUN_ID_LENGTH:
        return folder, args.trial

    from study.record.folder import StudyFolder
    from study.tracking.databases import default_tracking_uri
    from study.tracking.mlflow.store import find_run

    study, number = find_run(args.tracking_uri or default_tracking_uri(folder.root), args.trial)
    return StudyFolder(folder.root, study), str(number)


def _retrain(folder: "StudyFolder", state: "StudyState", trial: "TrialState", args: argparse.Namespace) -> int:
    """Retrain the trial on the same images and settings; prints each score next to the recorded one."""
    from study.record.events import max_bicubic_psnr
    from study.reproduction import inputs
    from study.reproduction.judgement import circumstances, different, judge
    from study.reproduction.retrain import retrain
    from study.session.opening import runtime_of

    assert state.opened is not None
    runtime = runtime_of(state.opened)
    with inputs.material_for(folder, state.opened, trial.config, args.data) as material:
        if material.changed:
            return _end(different(list(material.changed)))

        environment = circumstances(state, trial, runtime)
        for line in (*environment.lines, *environment.unknown):
            print(f"note: {line}")

        result = retrain(
            folder,
            trial,
            material.store,
            runtime.here(),
            lambda event: show_progress(f"retraining: {getattr(event, 'patches', 0)} of {trial.patches} patches"),
            max_bicubic_psnr=max_bicubic_psnr(state.opened),
        )
    show_progress("")
    print("\n".join(result.table()))
    return _end(judge(result, environment, promises_bits=runtime.promises_bits, strict=args.strict))


def _end(judgement: "Judgement") -> int:
    print("\n".join(judgement.lines))
    return judgement.status


if __name__ == "__main__":
    sys.exit(main())
