"""`python -m study.report`: a study as one page that needs no network, with its figures as PNG and CSV beside it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        "python -m study.report",
        description="Write a study's report: one HTML file that opens offline, and its figures as PNG and CSV.",
    )
    add_study_flags(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to (default: report/ in the study's folder)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the study's pictures are now, if they moved")
    args = parser.parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        from study.journal import read
        from study.report.making import write_report

        out = args.out.expanduser().resolve() if args.out else None
        path = write_report(folder, read(folder.journal), out=out, data=args.data)
        print(
            f"{path.stat().st_size / 1e6:.1f} MB in one file; its figures and tables are in {path.parent / 'figures'}"
        )
        print(f"next: open {path.as_uri()} in a browser")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
