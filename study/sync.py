"""`python -m study.sync`: bring MLflow and the Optuna storage up to date from the journal, or publish a study."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, folder_from

if TYPE_CHECKING:
    from study.record.folder import StudyFolder
    from study.tracking.follow import Sink


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments."""
    flags = Parser(
        "python -m study.sync",
        description="Bring MLflow and the Optuna storage up to date from the study's journal. A database that was "
        "deleted is rebuilt.",
    )
    add_study_flags(flags)
    flags.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: mlflow.db under --root)"
    )
    flags.add_argument(
        "--storage", metavar="URL", help="Optuna storage (a database), or none (default: optuna.db under --root)"
    )
    flags.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="instead write a compressed copy of the study, without images, to DIR/STUDY; --root DIR then reads it",
    )
    return flags


@dataclass(frozen=True, slots=True)
class _EventCounter:
    """Shows on the progress line how many events a view has received."""

    name: str

    def __call__(self, done: int) -> None:
        show_progress(f"{self.name}: {done} events")


def main(argv: Sequence[str] | None = None) -> int:
    """Update the views of a study and of its longer trainings, or publish it; returns the exit status."""
    args = parser().parse_args(argv)
    return run_command(lambda: _sync_or_publish(args))


def _sync_or_publish(args: argparse.Namespace) -> int:
    from study.record.branching import require_own_name

    folder = folder_from(args).require()
    require_own_name(folder)
    if args.publish:
        from study.record.publication import publish

        print("\n".join(publish(folder, args.publish)))
        return 0

    from study.tracking.views import sinks_of

    for one in (folder, *folder.trainings()):
        owner = one.owner() if one.training else None
        if owner:
            print(f"training {one.training}: {owner} keeps it up to date")
            continue
        for sink in sinks_of(one, args.tracking_uri, args.storage):
            _bring_up_to_date(one, sink)

    root_flag = f" --root {shlex.quote(str(folder.root))}" if args.root else ""
    print(f"next: python -m study.ui{root_flag} --study-name {folder.study}")
    return 0


def _bring_up_to_date(folder: "StudyFolder", sink: "Sink") -> None:
    """Send one view the events that it lacks, and print how many there were."""
    from study.tracking.follow import sync

    name = f"{sink.name}, training {folder.training}" if folder.training else sink.name
    started = time.monotonic()
    show_progress(f"{name}: connecting")
    count = sync(folder.journal, sink, _EventCounter(name))
    show_progress("")

    result = f"{count} new events in {time.monotonic() - started:.1f} s" if count else "was up to date"
    print(f"{name}: {result} ({sink.where})")


if __name__ == "__main__":
    sys.exit(main())
