"""`python -m study.sync`: bring MLflow and the Optuna view up to date from the journal, or publish its record."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_core.process.cli import Parser, run_command, show_progress
from study.commandline import add_study_flags, folder_from


def parser() -> argparse.ArgumentParser:
    made = Parser(
        "python -m study.sync",
        description="Bring MLflow and the Optuna view up to date from the journal; a view that was deleted is rebuilt.",
    )
    add_study_flags(made)
    made.add_argument("--tracking-uri", metavar="URI", help="MLflow store or server, or none (default: under --root)")
    made.add_argument("--storage", metavar="URL", help="database of the Optuna view, or none (default: under --root)")
    made.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="instead put the record into DIR/STUDY, compressed and without images; then --root DIR reads it",
    )
    return made


@dataclass(frozen=True, slots=True)
class _Progress:
    name: str

    def __call__(self, done: int) -> None:
        show_progress(f"{self.name}: {done} events")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def body() -> int:
        from study.record.branching import require_own_name

        folder = folder_from(args).require()
        require_own_name(folder)
        if args.publish:
            from study.record.publication import publish

            print("\n".join(publish(folder, args.publish)))
            return 0
        from study.tracking.follow import sync
        from study.tracking.views import sinks_of

        for shown in (folder, *folder.trainings()):
            if shown.training and shown.owner():
                print(f"training {shown.training}: {shown.owner()} keeps it up to date")
                continue
            for sink in sinks_of(shown, args.tracking_uri, args.storage):
                name = f"{sink.name}, training {shown.training}" if shown.training else sink.name
                began = time.monotonic()
                show_progress(f"{name}: connecting")
                count = sync(shown.journal, sink, _Progress(name))
                show_progress("")
                what = f"{count} new events in {time.monotonic() - began:.1f} s" if count else "was up to date"
                print(f"{name}: {what} ({sink.where})")
        where = f" --root {shlex.quote(str(folder.root))}" if args.root else ""
        print(f"next: python -m study.ui{where} --study-name {folder.study}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
