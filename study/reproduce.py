"""`python -m study.reproduce best`: train a recorded trial again and say whether it came out the same."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, folder_from


def parser() -> argparse.ArgumentParser:
    made = Parser("python -m study.reproduce", description="train a recorded trial again and compare every number")
    made.add_argument("trial", metavar="best|TRIAL|RUN_ID", help="the winner, a trial's number, or an MLflow run id")
    add_study_flags(made)
    made.add_argument("--data", type=Path, metavar="DIR", help="where the images are now, if they moved")
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow store that knows RUN_ID (default: under --root)")
    made.add_argument("--strict", action="store_true", help="exit 4 for other code or versions too")
    made.add_argument(
        "--export", type=Path, metavar="DIR", help="train nothing: write a folder that reproduces the trial anywhere"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.trial != "best" and not args.trial.isdecimal() and len(args.trial) != 32:
        parser().error(f"expected best, a trial's number or an MLflow run id of 32 characters, got {args.trial!r}")
    if args.export and (args.strict or args.data):
        parser().error("--export trains and compares nothing; leave out --strict and --data")
    return run_command(lambda: reproduce(args))


def reproduce(args: argparse.Namespace) -> int:
    """Compare inputs, retrain, compare numbers (or export); prints the comparison and returns 0 or 4."""
    from study.record.events import max_bicubic_psnr
    from study.record.journal import JournalError, UnknownJournalError, read
    from study.record.state import fold
    from study.reproduction import inputs
    from study.reproduction import retrain as proof
    from study.reproduction.export import export
    from study.reproduction.judgement import Judgement, circumstances, different, judge
    from study.session.opening import runtime_of
    from study.statistics.wording import lost_winner

    def end(judgement: Judgement) -> int:
        print("\n".join(judgement.lines))
        return judgement.status

    folder, which = folder_from(args), args.trial
    if len(which) == 32:
        from study.record.folder import StudyFolder
        from study.tracking.databases import default_tracking_uri
        from study.tracking.mlflow.store import find_run

        study, number = find_run(args.tracking_uri or default_tracking_uri(folder.root), which)
        folder, which = StudyFolder(folder.root, study), str(number)
    folder.require()
    try:
        state = fold(read(folder.journal))
    except UnknownJournalError:
        raise  # nothing was compared
    except JournalError as exc:
        return end(different([f"record: {exc}"]))
    trial = proof.find_trial(state, which, folder.study)
    assert state.opened is not None
    if which == "best" and (lost := lost_winner(state)):
        print(f"note: {lost}")
    print(f"trial {trial.number} of {folder.study}: config {trial.proposed.config_hash}, {trial.patches} patches")
    changed = [*inputs.changed_settings(folder, state, trial), *proof.contradictions(trial)]
    if changed:
        return end(different(changed))
    if args.export:
        print("\n".join(export(folder, state, trial, args.export)))
        return 0
    runtime = runtime_of(state.opened)
    with inputs.material_for(folder, state.opened, trial.config, args.data) as material:
        if material.changed:
            return end(different(list(material.changed)))
        around = circumstances(state, trial, runtime)
        for line in (*around.lines, *around.unknown):
            print(f"note: {line}")
        found = proof.retrain(
            folder,
            trial,
            material.store,
            runtime.here(),
            lambda event: show_progress(f"retraining: {getattr(event, 'patches', 0)} of {trial.patches} patches"),
            max_bicubic_psnr=max_bicubic_psnr(state.opened),
        )
    show_progress("")
    print("\n".join(found.table()))
    return end(judge(found, around, promises_bits=runtime.promises_bits, strict=args.strict))


if __name__ == "__main__":
    sys.exit(main())
