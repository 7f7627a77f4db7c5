"""`python -m study.ui`: serve MLflow's UI on a study's store and, with --optuna, Optuna Dashboard."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, at_least_one, folder_from
from study.record.addresses import sqlite_file
from study.record.branching import require_own_name
from study.record.folder import StudyFolder
from study.tracking.dashboards import (
    MLFLOW_PORT,
    OPTUNA_PORT,
    check_optuna_dashboard,
    free_port,
    pages,
    serving,
    serving_optuna,
    sync_command,
)
from study.tracking.databases import default_storage, default_tracking_uri
from study.tracking.server_process import is_loopback


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's arguments."""
    flags = Parser(
        "python -m study.ui",
        description="Serve MLflow's UI on a study's store, and print links to its pages. Stop with Ctrl-C.",
    )
    add_study_flags(flags)
    flags.add_argument(
        "--port", type=at_least_one, metavar="P", help=f"port to listen on (default: {MLFLOW_PORT} or the next free)"
    )
    flags.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    flags.add_argument(
        "--optuna",
        action="store_true",
        help=f"also serve Optuna Dashboard, on port {OPTUNA_PORT} or the next free one",
    )
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    args = parser().parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        require_own_name(folder)
        uri = default_tracking_uri(folder.root)
        storage = default_storage(folder.root)

        if args.optuna:
            check_optuna_dashboard()
        _require_database("MLflow store", uri, folder)
        if args.optuna:
            _require_database("Optuna database", storage, folder)

        port = free_port(args.host, args.port)
        _end_on_signals()
        try:
            with ExitStack() as servers:
                address = servers.enter_context(serving(folder.root, uri, args.host, port))
                print(f"MLflow's UI: {address}")
                if not is_loopback(args.host):
                    print(
                        f"note: MLflow asks for no password; anyone who can reach {args.host} can change and delete "
                        "what is in this store"
                    )
                for page, link in pages(address, folder).items():
                    print(f"{page}: {link}")
                if args.optuna:
                    optuna_port = free_port(args.host, None, OPTUNA_PORT)
                    optuna_address = servers.enter_context(serving_optuna(storage, args.host, optuna_port))
                    print(f"Optuna Dashboard: {optuna_address}")
                print("press Ctrl-C to stop", flush=True)
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            return 0

    return run_command(body)


def _require_database(what: str, address: str, folder: StudyFolder) -> None:
    """Check that a view's SQLite file exists.

    Raises:
        SuiteError: it does not; says which command makes it.
    """
    file: Path | None = sqlite_file(address)
    if file is None or not file.exists():
        raise SuiteError(f"{file}: the {what} does not exist yet; create it with: {sync_command(folder)}")


def _end_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the command as Ctrl-C does; `nohup` keeps it running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
