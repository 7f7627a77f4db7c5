"""`python -m study.report` writes a study as one page that opens offline, with its figures as PNG and CSV files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.record.folder import StudyFolder


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        "python -m study.report",
        description="Write the report of a study: one HTML file that opens offline, and its figures as PNG and CSV.",
    )
    add_study_flags(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder (default: report/ in the study's folder)"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the study's images, if they were moved")
    parser.add_argument("--no-pictures", action="store_true", help="omit all images, so that the page can be published")
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store or server to which the page is also added, or 'none' (default: the store under --root, if "
        "there is one)",
    )
    args = parser.parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        from study.record.journal import read
        from study.report.making import write_report

        out = args.out.expanduser().resolve() if args.out else None

        def warn(fault: str) -> None:
            print(f"warning: {fault}", file=sys.stderr)

        events = read(folder.journal)
        page = write_report(folder, events, out=out, data=args.data, show=not args.no_pictures, warn=warn)
        print(f"report: {page.stat().st_size / 1e6:.1f} MB in one file; figures and tables: {page.parent / 'figures'}")
        add_to_mlflow(folder, page, args.tracking_uri)
        print(f"next: open {page.as_uri()} in a browser")
        return 0

    return run_command(body)


def add_to_mlflow(folder: StudyFolder, page: Path, tracking_uri: str | None) -> None:
    """Add the page to the files of the study's MLflow run.

    Args:
        tracking_uri: address of the store, or "none". With None, the store under the root is used if it has the study.
    Raises:
        SuiteError: `tracking_uri` names a store that cannot be reached or does not have the study.
    """
    from sr_core.process.redaction import redact
    from study.record.addresses import sqlite_file
    from study.tracking.databases import default_tracking_uri

    uri = tracking_uri or default_tracking_uri(folder.root)
    own_store = sqlite_file(uri) if tracking_uri is None else None
    if tracking_uri == "none" or (tracking_uri is None and not (own_store and own_store.is_file())):
        return
    from study.record.branching import require_own_name
    from study.record.events import StudyOpened
    from study.record.journal import read, study_id
    from study.tracking.mlflow.store import add_to_study

    opened = next(read(folder.journal))
    assert isinstance(opened, StudyOpened)  # otherwise there would be no report
    try:
        require_own_name(folder)  # the page of a copied study must not go into the original's run
        added = add_to_study(uri, folder.study, study_id(opened), {page.name: page})
    except SuiteError as exc:
        if tracking_uri:
            raise
        print(f"not added to MLflow: {exc}")
        return
    if added:
        print(f"added to the study's run in MLflow ({redact(uri)})")
    elif tracking_uri:
        raise SuiteError(f"{redact(uri)}: MLflow does not have study {folder.study!r}; run study.sync first")


if __name__ == "__main__":
    sys.exit(main())
