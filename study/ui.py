"""`python -m study.ui`: MLflow's UI on the right store, from whatever folder it is typed in."""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sr_core.cli import Parser, run_command
from sr_core.errors import SuiteError
from study.commandline import add_study_flags, at_least_one, folder_from
from study.databases import artifact_root, default_tracking_uri, redact, sqlite_file
from study.folder import StudyFolder

DEFAULT_PORT = 5000
_START_SECONDS, _STOP_SECONDS = 180.0, 10.0


def parser() -> argparse.ArgumentParser:
    made = Parser("python -m study.ui", description="MLflow's UI on a study's store; Ctrl-C ends it.")
    add_study_flags(made)
    made.add_argument(
        "--port", type=at_least_one, metavar="P", help=f"port to listen on (default: {DEFAULT_PORT} or the next free)"
    )
    made.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        uri = default_tracking_uri(folder.root)
        store = sqlite_file(uri)
        if store is None or not store.exists():
            raise SuiteError(f"{store}: there is no MLflow store yet; make it: {sync_command(folder)}")
        port = free_port(args.host, args.port)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with serving(folder.root, uri, args.host, port) as address:
                print(f"MLflow's UI: {address}")
                print(f"study {folder.study}: {experiment_page(address, folder)}")
                print("Ctrl-C ends it", flush=True)
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            return 0

    return run_command(body)


def ui_command(root: Path, tracking_uri: str | None = None) -> str:
    """What to type into a shell, in any folder, for MLflow's own UI on a study's store."""
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    program = "mlflow" if on_path and Path(on_path) == beside else str(beside)
    return shlex.join([program, "ui", *_options(root, redact(tracking_uri or default_tracking_uri(root)))])


def _options(root: Path, uri: str) -> list[str]:
    """Everything that MLflow would otherwise look for, or create, in the current folder."""
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    return [*stores, "--artifacts-destination", artifact_root(root).as_uri()]


def free_port(host: str, asked: int | None) -> int:
    """The port asked for, or else the first free one from 5000.

    Raises:
        SuiteError: the port asked for is taken, or there is no such address.
    """
    for port in [asked] if asked is not None else range(DEFAULT_PORT, DEFAULT_PORT + 100):
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, port))
                return port
            except (OSError, OverflowError) as exc:
                reason = exc
    raise SuiteError(
        f"--host {host} --port {asked or DEFAULT_PORT}: cannot listen there ({reason}); choose another port"
    )


@contextmanager
def serving(root: Path, uri: str, host: str, port: int) -> Iterator[str]:
    """MLflow's server as a child process for as long as the block runs; its address, once it answers.

    Raises:
        SuiteError: it ended, or did not answer.
    """
    command = [sys.executable, "-m", "mlflow", "ui", *_options(root, uri), "--host", host, "--port", str(port)]
    # Without its seven processes for jobs of language models; they would compete with the training.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with TemporaryDirectory(prefix="study-ui-") as nowhere, (Path(nowhere) / "log").open("w+") as log:
        child = subprocess.Popen(
            [*command, "--workers", "1"],
            cwd=nowhere,
            env=os.environ | quiet,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://{_reachable(host)}:{port}"
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(f"{address}/health"):
                if child.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = [line for line in log.read().splitlines() if line.strip()][-1:]
                    raise SuiteError(f"MLflow's server did not start: {redact(''.join(said)) or 'it said nothing'}")
                time.sleep(0.2)
            yield address
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: they are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _reachable(host: str) -> str:
    """A host to connect to, where the server listens on every address."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sync_command(folder: StudyFolder) -> str:
    """What to type for a study that MLflow does not know yet."""
    return shlex.join(["python", "-m", "study.sync", "--root", str(folder.root), "--study-name", folder.study])


def experiment_page(address: str, folder: StudyFolder) -> str:
    """The page of a study's runs on a server that answers."""
    query = urllib.parse.urlencode({"experiment_name": folder.study})
    try:
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=30) as answer:
            number = json.load(answer)["experiment"]["experiment_id"]
    except urllib.error.HTTPError:
        return f"not in this store yet; bring it there: {sync_command(folder)}"
    return f"{address}/#/experiments/{number}/runs"


if __name__ == "__main__":
    sys.exit(main())
