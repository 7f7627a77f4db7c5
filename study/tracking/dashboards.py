"""Servers that show a study, MLflow's and Optuna Dashboard, as child processes; and where on them what is shown."""

import importlib.util
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sr_core.errors import SuiteError
from study.folder import StudyFolder
from study.tracking.databases import artifact_root, default_tracking_uri, redact

MLFLOW_PORT, OPTUNA_PORT = 5000, 8080
BEST_SHOWN = 3
RANKING, CURVES = "study", "curves"
"""Views that the experiment brings along: all runs in a list; the ten best ones with their curves and pictures."""
_START_SECONDS, _STOP_SECONDS = 180.0, 10.0
_PORTS_TRIED = 100


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


def free_port(host: str, asked: int | None, first: int = MLFLOW_PORT) -> int:
    """The port asked for, or else the first free one from `first`.

    Raises:
        SuiteError: the port asked for is taken, or there is no such address.
    """
    for port in [asked] if asked is not None else range(first, first + _PORTS_TRIED):
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, port))
                return port
            except (OSError, OverflowError) as exc:
                reason = exc
    raise SuiteError(f"--host {host} --port {asked or first}: cannot listen there ({reason}); choose another port")


@contextmanager
def serving(root: Path, uri: str, host: str, port: int) -> Iterator[str]:
    """MLflow's server as a child process for as long as the block runs; its address, once it answers.

    Raises:
        SuiteError: it ended, or did not answer.
    """
    command = [sys.executable, "-m", "mlflow", "ui", *_options(root, uri), "--host", host, "--port", str(port)]
    # Without its seven processes for jobs of language models; they would compete with the training.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with _child("MLflow's server", [*command, "--workers", "1"], quiet, f"http://{_reachable(host)}:{port}") as address:
        yield address


def check_optuna_dashboard() -> None:
    """Raises SuiteError where Optuna Dashboard is not installed."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise SuiteError("--optuna needs Optuna Dashboard: pip install -c constraints.txt -e '.[dashboard]'")


@contextmanager
def serving_optuna(storage: str, host: str, port: int) -> Iterator[str]:
    """Optuna Dashboard as a child process for as long as the block runs; its address, once it answers.

    Raises:
        SuiteError: it ended, or did not answer.
    """
    command = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", storage]
    options = ["--host", host, "--port", str(port), "--server", "wsgiref", "--quiet"]
    with _child(
        "Optuna Dashboard", [*command, *options], {}, f"http://{_reachable(host)}:{port}", "/dashboard"
    ) as address:
        yield f"{address}/dashboard"


@contextmanager
def _child(
    what: str, command: Sequence[str], environment: Mapping[str, str], address: str, page: str = "/health"
) -> Iterator[str]:
    """A server in a folder of its own; ended with the block, and with it all that it started."""
    with TemporaryDirectory(prefix="study-ui-") as nowhere, (Path(nowhere) / "log").open("w+") as log:
        child = subprocess.Popen(
            command,
            cwd=nowhere,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(address + page):
                if child.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = [line for line in log.read().splitlines() if line.strip()][-1:]
                    raise SuiteError(f"{what} did not start: {redact(''.join(said)) or 'it said nothing'}")
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


def pages(address: str, folder: StudyFolder) -> dict[str, str]:
    """What to look at first on an MLflow server that answers, in words, and where it is: all runs with their ranks,
    the best ones beside each other, the registered winner; the latter only where there are any."""
    query = urllib.parse.urlencode({"experiment_name": folder.study})
    try:
        number = _ask(f"{address}/api/2.0/mlflow/experiments/get-by-name?{query}")["experiment"]["experiment_id"]
    except urllib.error.HTTPError:
        return {f"study {folder.study}": f"not in this store yet; bring it there: {sync_command(folder)}"}
    runs = f"{address}/#/experiments/{number}/runs"
    found = {f"study {folder.study}": f"{runs}?{_shown(viewStateShareKey=RANKING)}"}
    search = {
        "experiment_ids": [number],
        "filter": f"tags.`study.name` = '{folder.study}' AND tags.`study.role` = 'search' "
        "AND tags.`study.state` = 'finished'",
        "order_by": ["metrics.`val/psnr` DESC"],
        "max_results": BEST_SHOWN,
    }
    best = [run["info"]["run_id"] for run in _ask(f"{address}/api/2.0/mlflow/runs/search", search).get("runs", [])]
    if len(best) > 1:
        chosen = _shown(runs=json.dumps(best), experiments=json.dumps([number]))
        found[f"the best {len(best)} compared"] = f"{address}/#/compare-runs?{chosen}"
    if best:
        found["curves and pictures"] = f"{runs}?{_shown(compareRunsMode='CHART', viewStateShareKey=CURVES)}"
    model = urllib.parse.urlencode({"name": folder.study})
    if folder.study in _models(address, model):
        found["the champion"] = f"{address}/#/models/{urllib.parse.quote(folder.study)}?{_shown()}"
    return found


def _shown(**options: str) -> str:
    """The query of a page, which is to stand among those for training, and not for language models."""
    return urllib.parse.urlencode({**options, "workflowType": "machine_learning"})


def _models(address: str, query: str) -> str:
    try:
        return str(_ask(f"{address}/api/2.0/mlflow/registered-models/get?{query}")["registered_model"]["name"])
    except urllib.error.HTTPError:
        return ""


def _ask(url: str, body: Mapping[str, object] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
