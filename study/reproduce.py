"""`python -m study.reproduce best`: train a recorded trial again and say whether it came out the same."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, folder_from

NO_MATCH = 4
"""Exit status of a reproduction that is not one."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m study.reproduce", description="train a recorded trial again and compare every number")
    parser.add_argument("trial", metavar="best|TRIAL|RUN_ID", help="the winner, a trial's number, or an MLflow run id")
    add_study_flags(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the pictures are now, if they moved")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow store that knows RUN_ID (default: under --root)")
    args = parser.parse_args(argv)
    if args.trial != "best" and not args.trial.isdecimal() and len(args.trial) != 32:
        parser.error(f"expected best, a trial's number or an MLflow run id of 32 characters, got {args.trial!r}")
    return run_command(lambda: reproduce(args))


def reproduce(args: argparse.Namespace) -> int:
    """Compare inputs, retrain, compare numbers; prints the comparison and returns 0 or 4."""
    from study import proof
    from study.journal import JournalError, read
    from study.opening import runtime_of
    from study.state import fold

    folder, which = folder_from(args), args.trial
    if len(which) == 32:
        from study.databases import default_tracking_uri
        from study.folder import StudyFolder
        from study.mlflow_store import find_run

        study, number = find_run(args.tracking_uri or default_tracking_uri(folder.root), which)
        folder, which = StudyFolder(folder.root, study), str(number)
    folder.require()
    try:
        state = fold(read(folder.journal))
    except JournalError as exc:
        return _different([f"record: {exc}"])
    trial = proof.find_trial(state, which, folder.study)
    assert state.opened is not None
    print(f"trial {trial.number} of {folder.study}: config {trial.proposed.config_hash}, {trial.patches} patches")
    changed = proof.changed_inputs(folder, state, trial, args.data)
    if changed:
        return _different(changed)
    runtime = runtime_of(state.opened)
    circumstances = proof.other_circumstances(state, trial, runtime)
    for line in circumstances:
        print(f"note: {line}")
    result = proof.retrain(
        folder, state.opened, trial, lambda event: show_progress(f"retraining: {getattr(event, 'patches', 0)} patches")
    )
    show_progress("")
    print("\n".join(result.table()))
    if result.identical:
        weights = "and the weights" if result.finished else "(a trial that did not finish has no weights on record)"
        print(f"verdict: bit-identical, every point of the curve {weights}")
        return 0
    if (
        (runtime.unmet() or not runtime.promises_bits)
        and result.largest_db <= proof.TOLERANCE_DB
        and not result.failure
    ):
        print(f"verdict: within tolerance, largest difference {result.largest_db:.4f} dB (bits are not promised here)")
        return 0
    cause = f"; likely cause: {circumstances[0]}" if circumstances else ""
    return _different([f"{result.first_difference()}{cause}"])


def _different(reasons: list[str]) -> int:
    for reason in reasons:
        print(f"differs: {reason}")
    print("verdict: different")
    return NO_MATCH


if __name__ == "__main__":
    sys.exit(main())
