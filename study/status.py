"""`python -m study.status`: print the progress of a study, while it runs or after it has ended."""

import json
import sys
from collections.abc import Sequence

from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.journal import read
from study.record.state import StudyState, fold
from study.screen.overview import as_text, overview, overview_of_training


def main(argv: Sequence[str] | None = None) -> int:
    """Print the overview of one study and of its longer trainings; returns the exit status."""
    parser = Parser(
        "python -m study.status",
        description="Print the progress of a study: trials, best score, and the next command to type. It reads only "
        "the study's journal, so it works while the study runs and after a crash.",
    )
    add_study_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the overview as one JSON object")
    args = parser.parse_args(argv)

    def body() -> int:
        folder = folder_from(args)
        if not folder.journal.exists() and folder.owner() is None:
            folder.require()

        state = fold(read(folder.journal)) if folder.journal.exists() else StudyState()
        trainings = [overview_of_training(t, fold(read(t.journal))) for t in folder.trainings()]
        content = overview(folder, state) | {"trainings": trainings}
        print(json.dumps(content, indent=2) if args.json else as_text(content))
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
