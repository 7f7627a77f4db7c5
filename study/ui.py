"""`python -m study.ui`: MLflow's UI on the right store, from whatever folder it is typed in; and Optuna's, if asked."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from sr_core.errors import SuiteError
from sr_core.process.cli import Parser, run_command
from study.commandline import add_study_flags, at_least_one, folder_from
from study.record.addresses import sqlite_file
from study.record.branching import require_own_name
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
    made = Parser("python -m study.ui", description="MLflow's UI on a study's store; Ctrl-C ends it.")
    add_study_flags(made)
    made.add_argument(
        "--port", type=at_least_one, metavar="P", help=f"port to listen on (default: {MLFLOW_PORT} or the next free)"
    )
    made.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    made.add_argument(
        "--optuna", action="store_true", help=f"Optuna Dashboard too, on port {OPTUNA_PORT} or the next free"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        require_own_name(folder)
        uri, storage = default_tracking_uri(folder.root), default_storage(folder.root)
        if args.optuna:
            check_optuna_dashboard()
        for what, one in (("MLflow store", uri), ("Optuna database", storage))[: 2 if args.optuna else 1]:
            store = sqlite_file(one)
            if store is None or not store.exists():
                raise SuiteError(f"{store}: there is no {what} yet; make it: {sync_command(folder)}")
        port = free_port(args.host, args.port)
        _end_on_signals()
        try:
            with ExitStack() as servers:
                address = servers.enter_context(serving(folder.root, uri, args.host, port))
                print(f"MLflow's UI: {address}")
                if not is_loopback(args.host):
                    print(f"note: MLflow asks for no password; everyone who reaches {args.host} can change and delete "
                          "what is in this store")  # fmt: skip
                for what, where in pages(address, folder).items():
                    print(f"{what}: {where}")
                if args.optuna:
                    beside = free_port(args.host, None, OPTUNA_PORT)
                    print(f"Optuna Dashboard: {servers.enter_context(serving_optuna(storage, args.host, beside))}")
                print("Ctrl-C ends it", flush=True)
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            return 0

    return run_command(body)


def _end_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the command as Ctrl-C does; `nohup` keeps it running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
