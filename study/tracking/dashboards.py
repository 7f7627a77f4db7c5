"""Servers that show a study, MLflow's and Optuna Dashboard, as child processes; and where on them what is shown."""

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

MLFLOW_PORT, OPTUNA_PORT = 5000, 8080
MAX_RUNS_COMPARED = 3
RANKING, CURVES = "study", "curves"
"""Views that the experiment brings along: all runs in a list; the ten best ones with their curves and images."""
_API = "/api/2.0/mlflow"
_HOSTS, _ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
_NOT_OURS = ("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY")
"""Variables for another MLflow server: they would move its pages, or change its store."""

_CONSOLE_SCRIPT = (
    "from importlib.metadata import entry_points; entry_points(group='console_scripts')['optuna-dashboard'].load()()"
)
"""Runs the command `optuna-dashboard` of this environment, whether or not its scripts are on the path."""


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
    return server_process.free_port(host, asked, first)


@contextmanager
def serving(root: Path, uri: str, host: str, port: int) -> Iterator[str]:
    """MLflow's server as a child process for as long as the block runs; its address, once it answers.

    Raises:
        SuiteError: it ended, or did not answer.
    """
    address = f"http://{reachable(host)}:{port}"
    with own_folder() as folder:
        options = _options(root, plain_uri(uri, folder))
        command = [sys.executable, "-m", "mlflow", "ui", *options, "--host", host, "--port", str(port)]
        command += ["--workers", "1", *_who_may_ask(host, port)]
        # Without its seven processes for jobs of language models; they would compete with the training.
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment = own_environment(_NOT_OURS, host) | quiet
        with running("MLflow's server", command, environment, f"{address}/health", folder):
            yield address


def _who_may_ask(host: str, port: int) -> list[str]:
    """Options by which MLflow answers under every name of `host`; by default it answers under loopback names alone."""
    names = names_of(host)
    more = list[str]()
    if host in EVERY_ADDRESS:  # and behind the address of a container's host
        more = ["10.*", "192.168.*", *(f"172.{number}.*" for number in range(16, 32))]
    given = [os.environ.get(name, "").split(",") for name in (_HOSTS, _ORIGINS)]
    hosts = [*names, *(f"{name}:{port}" for name in names), *more, *given[0]]
    origins = [*(f"http://{name}:{port}" for name in names), *(f"http://{name}" for name in more), *given[1]]
    return ["--allowed-hosts", _list(hosts), "--cors-allowed-origins", _list(origins)]


def _list(values: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(filter(None, (value.strip() for value in values))))


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
    page = f"http://{reachable(host)}:{port}/dashboard"
    command = [sys.executable, "-c", _CONSOLE_SCRIPT, storage]
    options = ["--host", host, "--port", str(port), "--server", "wsgiref", "--quiet"]
    environment = own_environment((), host)
    with own_folder() as folder, running("Optuna Dashboard", [*command, *options], environment, page, folder):
        yield page


def sync_command(folder: StudyFolder) -> str:
    """What to type for a study that MLflow does not know yet."""
    return shlex.join(["python", "-m", "study.sync", "--root", str(folder.root), "--study-name", folder.study])


def pages(address: str, folder: StudyFolder) -> dict[str, str]:
    """What to look at first on an MLflow server that answers, in words, and where it is: all runs with their ranks,
    the best ones beside each other, the registered winner; the latter only where there are any.

    Raises:
        SuiteError: the server refuses to answer, or is gone.
    """
    try:
        return _pages(address, folder)
    except urllib.error.HTTPError as exc:
        said = exc.read(300).decode("utf-8", "replace")
        what = f"status {exc.code}: {' '.join(said.split())}"
    except OSError as exc:
        what = str(exc)
    raise SuiteError(f"MLflow's server at {address} does not say what it holds ({redact(what)})")


def _pages(address: str, folder: StudyFolder) -> dict[str, str]:
    opened = next(read(folder.journal), None)
    assert isinstance(opened, StudyOpened)
    mine = study_id(opened)
    number = _experiment(address, opened.study, mine)
    if number is None:
        return {f"study {folder.study}": f"not in this store yet; bring it there: {sync_command(folder)}"}
    found = {f"study {folder.study}": mlflow_private.shared_page(address, number, RANKING)}
    best = _runs(
        address,
        number,
        f"tags.`study.id` = '{mine}' AND tags.`study.role` = 'search' AND tags.`study.state` = 'finished'",
        MAX_RUNS_COMPARED,
    )
    if len(best) > 1:
        found[f"the best {len(best)} compared"] = mlflow_private.comparison_page(address, number, best)
    if best:
        found["curves and images"] = mlflow_private.shared_page(address, number, CURVES, drawn=True)
    model = _model(address, opened.study, mine)
    if model:
        found["the champion"] = mlflow_private.model_page(address, model)
    return found


def _experiment(address: str, name: str, mine: str) -> str | None:
    """The id of the experiment that holds the study with this identity; None if there is none."""
    search = {"max_results": 100, "filter": f"tags.`study.id` = '{mine}'"}
    found = [e["experiment_id"] for e in _ask(f"{address}{_API}/experiments/search", search).get("experiments", [])]
    by_name = urllib.parse.urlencode({"experiment_name": name})
    try:  # of an earlier version, which marked the runs alone
        found.append(_ask(f"{address}{_API}/experiments/get-by-name?{by_name}")["experiment"]["experiment_id"])
    except urllib.error.HTTPError as exc:
        if exc.code != HTTPStatus.NOT_FOUND:
            raise
    held = (number for number in found if _runs(address, number, f"tags.`study.id` = '{mine}'", 1))
    return next(held, None)


def _runs(address: str, experiment: str, wanted: str, most: int) -> list[str]:
    """The ids of those runs, the best first."""
    search = {
        "experiment_ids": [experiment],
        "filter": wanted,
        "order_by": ["metrics.`val/psnr` DESC"],
        "max_results": most,
    }
    return [run["info"]["run_id"] for run in _ask(f"{address}{_API}/runs/search", search).get("runs", [])]


def _model(address: str, name: str, mine: str) -> str:
    """The name of the registered model whose champion is this study's; empty if there is none."""
    for model in (name, f"{name}-{mine[:8]}"):
        query = urllib.parse.urlencode({"name": model, "alias": "champion"})
        try:
            version = _ask(f"{address}{_API}/registered-models/alias?{query}")["model_version"]
        except urllib.error.HTTPError as exc:
            if exc.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                raise
            continue
        if {"key": "study.id", "value": mine} in version.get("tags", []):
            return model
    return ""


_ask = server_process.ask
