"""Starts MLflow's server and Optuna Dashboard as child processes, and builds links to a study's pages in MLflow."""

import importlib.util
import os
import shlex
import shutil
import sys
import urllib.error
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.redaction import redact
from study.record.events import StudyOpened
from study.record.folder import StudyFolder
from study.record.journal import read, study_id
from study.tracking import server_process
from study.tracking.databases import artifact_root, default_tracking_uri, plain_uri
from study.tracking.mlflow import private as mlflow_private
from study.tracking.server_process import EVERY_ADDRESS, names_of, own_environment, own_folder, reachable, running

MLFLOW_PORT = 5000
OPTUNA_PORT = 8080
MAX_RUNS_COMPARED = 3
RANKING = "study"
"""The experiment's view that lists all runs."""
CURVES = "curves"
"""The experiment's view that draws the curves and images of the ten best runs."""
_API = "/api/2.0/mlflow"
_HOSTS_VARIABLE = "MLFLOW_SERVER_ALLOWED_HOSTS"
_ORIGINS_VARIABLE = "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_DROPPED_VARIABLES = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY")
"""Prefixes of variables that configure another server. They would move the pages of ours, or change its store."""

_CONSOLE_SCRIPT = (
    "from importlib.metadata import entry_points; entry_points(group='console_scripts')['optuna-dashboard'].load()()"
)
"""Runs the command `optuna-dashboard` of this environment. Its scripts need not be on the path."""


def ui_command(root: Path, tracking_uri: str | None = None) -> str:
    """Returns the shell command that opens MLflow's own UI on a study's store. It works in any folder."""
    installed = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    program = "mlflow" if on_path and Path(on_path) == installed else str(installed)
    return shlex.join([program, "ui", *_options(root, redact(tracking_uri or default_tracking_uri(root)))])


def _options(root: Path, uri: str) -> list[str]:
    """Returns the options for everything that MLflow would otherwise look for, or create, in the current folder."""
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    return [*stores, "--artifacts-destination", artifact_root(root).as_uri()]


def free_port(host: str, port: int | None, first: int = MLFLOW_PORT) -> int:
    """Returns `port` if it is given, else the first free port from `first` on.

    Raises:
        SuiteError: `port` is taken, or this machine has no such address.
    """
    return server_process.free_port(host, port, first)


@contextmanager
def serving(root: Path, uri: str, host: str, port: int) -> Iterator[str]:
    """Runs MLflow's server as a child process while the block runs. Yields its address once it answers.

    Raises:
        SuiteError: the server ended, or did not answer.
    """
    address = f"http://{reachable(host)}:{port}"
    with own_folder() as folder:
        options = _options(root, plain_uri(uri, folder))
        command = [sys.executable, "-m", "mlflow", "ui", *options, "--host", host, "--port", str(port)]
        command += ["--workers", "1", *_allowed_names(host, port)]
        # Job execution starts seven processes for jobs of language models. They would compete with the training.
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment = own_environment(_DROPPED_VARIABLES, host) | quiet
        with running("MLflow's server", command, environment, f"{address}/health", folder):
            yield address


def _allowed_names(host: str, port: int) -> list[str]:
    """Returns the options that make MLflow answer under every name of `host`. By default it answers as loopback only.

    Values of MLflow's own variables for the same purpose are kept.
    """
    names = names_of(host)
    private_networks = list[str]()
    if host in EVERY_ADDRESS:  # clients may use the address of the machine that runs this container
        private_networks = ["10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32))]

    hosts = [*names, *(f"{name}:{port}" for name in names), *private_networks]
    hosts += os.environ.get(_HOSTS_VARIABLE, "").split(",")

    origins = [f"http://{name}:{port}" for name in names]
    origins += [f"http://{name}" for name in private_networks]
    origins += os.environ.get(_ORIGINS_VARIABLE, "").split(",")

    return ["--allowed-hosts", _comma_separated(hosts), "--cors-allowed-origins", _comma_separated(origins)]


def _comma_separated(values: Iterable[str]) -> str:
    """Returns the values without blanks, empty ones and repetitions."""
    stripped = (value.strip() for value in values)
    return ",".join(dict.fromkeys(filter(None, stripped)))


def check_optuna_dashboard() -> None:
    """Raises SuiteError if Optuna Dashboard is not installed."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise SuiteError("--optuna needs Optuna Dashboard: pip install -c constraints.txt -e '.[dashboard]'")


@contextmanager
def serving_optuna(storage: str, host: str, port: int) -> Iterator[str]:
    """Runs Optuna Dashboard as a child process while the block runs. Yields its address once it answers.

    Raises:
        SuiteError: the server ended, or did not answer.
    """
    page = f"http://{reachable(host)}:{port}/dashboard"
    command = [sys.executable, "-c", _CONSOLE_SCRIPT, storage]
    options = ["--host", host, "--port", str(port), "--server", "wsgiref", "--quiet"]
    environment = own_environment((), host)
    with own_folder() as folder, running("Optuna Dashboard", [*command, *options], environment, page, folder):
        yield page


def sync_command(folder: StudyFolder) -> str:
    """Returns the shell command that brings a study into its MLflow store."""
    return shlex.join(["python", "-m", "study.sync", "--root", str(folder.root), "--study-name", folder.study])


def pages(address: str, folder: StudyFolder) -> dict[str, str]:
    """Returns links to the study's pages on a running MLflow server: what a page shows -> its address.

    The pages are the ranking of all runs, a comparison of the best runs, their curves and images, and the registered
    winner. A page is left out if there is nothing to show on it.

    Raises:
        SuiteError: the server refuses to answer, or cannot be reached.
    """
    try:
        return _pages(address, folder)
    except urllib.error.HTTPError as exc:
        answer = exc.read(300).decode("utf-8", "replace")
        reason = f"status {exc.code}: {' '.join(answer.split())}"
    except OSError as exc:
        reason = str(exc)
    raise SuiteError(f"MLflow's server at {address} does not list its experiments and runs ({redact(reason)})")


def _pages(address: str, folder: StudyFolder) -> dict[str, str]:
    opened = next(read(folder.journal), None)
    assert isinstance(opened, StudyOpened)
    identity = study_id(opened)
    experiment = _experiment(address, opened.study, identity)
    if experiment is None:
        return {f"study {folder.study}": f"not in this store yet; to bring it there: {sync_command(folder)}"}

    links = {f"study {folder.study}": mlflow_private.shared_page(address, experiment, RANKING)}
    best = _runs(
        address,
        experiment,
        f"tags.`study.id` = '{identity}' AND tags.`study.role` = 'search' AND tags.`study.state` = 'finished'",
        MAX_RUNS_COMPARED,
    )
    if len(best) > 1:
        links[f"the best {len(best)} compared"] = mlflow_private.comparison_page(address, experiment, best)
    if best:
        links["curves and images"] = mlflow_private.shared_page(address, experiment, CURVES, drawn=True)

    model = _model(address, opened.study, identity)
    if model:
        links["the champion"] = mlflow_private.model_page(address, model)
    return links


def _experiment(address: str, name: str, identity: str) -> str | None:
    """Returns the id of the experiment that holds the runs of a study; None if there is none.

    Args:
        name: the study's name.
        identity: the study's `study_id`.
    """
    search = {"max_results": 100, "filter": f"tags.`study.id` = '{identity}'"}
    answer = _ask(f"{address}{_API}/experiments/search", search)
    candidates = [experiment["experiment_id"] for experiment in answer.get("experiments", [])]

    # An earlier version tagged runs only, not experiments.
    by_name = urllib.parse.urlencode({"experiment_name": name})
    try:
        named = _ask(f"{address}{_API}/experiments/get-by-name?{by_name}")
        candidates.append(named["experiment"]["experiment_id"])
    except urllib.error.HTTPError as exc:
        if exc.code != HTTPStatus.NOT_FOUND:
            raise

    for experiment in candidates:
        if _runs(address, experiment, f"tags.`study.id` = '{identity}'", 1):
            return str(experiment)
    return None


def _runs(address: str, experiment: str, condition: str, limit: int) -> list[str]:
    """Returns the ids of at most `limit` runs that meet MLflow's filter `condition`, the best run first."""
    search = {
        "experiment_ids": [experiment],
        "filter": condition,
        "order_by": ["metrics.`val/psnr` DESC"],
        "max_results": limit,
    }
    return [run["info"]["run_id"] for run in _ask(f"{address}{_API}/runs/search", search).get("runs", [])]


def _model(address: str, name: str, identity: str) -> str:
    """Returns the name of the registered model whose champion belongs to this study; empty if there is none."""
    for model in (name, f"{name}-{identity[:8]}"):
        query = urllib.parse.urlencode({"name": model, "alias": "champion"})
        try:
            version = _ask(f"{address}{_API}/registered-models/alias?{query}")["model_version"]
        except urllib.error.HTTPError as exc:
            if exc.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                raise
            continue
        if {"key": "study.id", "value": identity} in version.get("tags", []):
            return model
    return ""


_ask = server_process.ask
