"""Reaching MLflow: how patient it is, the embedded store and its creation, and how runs are found again."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from sr_core.process.redaction import redact
from study.record.addresses import sqlite_file

# Before the import, which reads the first. A follower tries again by itself, and looks first what came of a request;
# MLflow would only send it again, and make a run twice whose answer was lost.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from sr_core.errors import SuiteError
from study.tracking import databases
from study.tracking.mlflow import content, names
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.content import Point, plain
from study.tracking.mlflow.uploads import Files, send
from study.tracking.server_process import is_loopback, without_proxy

logger = logging.getLogger(__name__)

# MLflow and Alembic narrate on stderr what they do, and log the errors that they raise as well.
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
for _missing in mlflow_private.alter():
    logger.warning("mlflow: %s", _missing)

MAX_METRICS_PER_REQUEST, MAX_PARAMS_PER_REQUEST = 900, 50
"""Points, and params or tags, in one request; MLflow refuses 100 of one kind of the latter, and 1,000 in all."""
RUNS_PER_PAGE = 500
"""Runs in one answer."""


def client_of(uri: str) -> MlflowClient:
    _keep_to_itself(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _keep_to_itself(uri: str) -> None:
    """Undo in the environment what is meant for other MLflow servers: workspaces, and a proxy to this machine."""
    host = urlsplit(uri).hostname if uri.startswith("http") else None
    if host is None:
        os.environ["MLFLOW_ENABLE_WORKSPACES"] = "false"  # a database of ours has none
        os.environ.pop("MLFLOW_WORKSPACE", None)
    elif is_loopback(host):
        os.environ.update(without_proxy(host))


def find_run(tracking_uri: str, run_id: str) -> tuple[str, int]:
    """(study, trial number) of a run; of a study's own run, its best trial.

    Raises:
        SuiteError: MLflow cannot be reached, or has no such run, or it is no run of a study.
    """
    path = sqlite_file(tracking_uri)
    if path is not None and not path.exists():
        raise SuiteError(f"{path}: there is no MLflow store; run study.sync, or give the trial's number")
    with mlflow_view_errors(tracking_uri):
        tags = client_of(tracking_uri).get_run(run_id).data.tags
    number = tags.get("study.trial", tags.get("study.best"))
    if tags.get("study.role") == "training":
        raise SuiteError(f"MLflow run {run_id} is a longer training; reproduce its trial by the number, {number}")
    if "study.name" not in tags or number is None:
        raise SuiteError(f"MLflow run {run_id} is no trial of a study; expected a run with the tag study.trial")
    return tags["study.name"], int(number)


def add_to_study(tracking_uri: str, study: str, study_id: str, files: Files) -> bool:
    """Put files into the artifacts of a study's own run; False where MLflow does not know the study.

    Raises:
        ViewError: MLflow cannot be reached, or takes no files.
    """
    with mlflow_view_errors(tracking_uri):
        client = client_of(tracking_uri)
        experiment = experiment_of(client, study, study_id)
        run = runs_of(client, experiment.experiment_id, study_id).get(None) if experiment else None
        refused = send(client, run.info.run_id, files) if run is not None else {}
    for name, why in refused.items():
        raise databases.ViewError(f"MLflow at {redact(tracking_uri)}: {name} was refused ({why})")
    return run is not None


def second_name(study: str, study_id: str) -> str:
    """Returns the name of a study's experiment and model where another study's, or somebody's, has its own name."""
    return f"{study}-{study_id[:8]}"


def experiment_of(client: MlflowClient, study: str, study_id: str) -> Experiment | None:
    """Returns the experiment that holds this study, also a deleted one; None if there is none.

    An earlier version marked the runs alone; it put a second study of one name into the same experiment.
    """
    wanted = f"tags.`study.id` = '{study_id}'"
    marked = client.search_experiments(view_type=ViewType.ALL, filter_string=wanted)
    by_name = [client.get_experiment_by_name(name) for name in (study, second_name(study, study_id))]
    found = [*marked, *filter(None, by_name)]
    for experiment in found:
        if client.search_runs([experiment.experiment_id], wanted, ViewType.ALL, max_results=1):
            return experiment
    if marked:
        return marked[0]
    named = by_name[0]
    if named is None or named.tags.get("study.name") != study or "study.id" in named.tags:
        return None
    empty = not client.search_runs([named.experiment_id], run_view_type=ViewType.ALL, max_results=1)
    return named if empty else None


def prepare_mlflow_store(uri: str) -> None:
    """Create the embedded store, or bring an older one up to date, as one process alone; does nothing for a server.

    Raises:
        ViewError: it cannot be written.
    """
    path = sqlite_file(uri)
    if path is None:
        return
    _keep_to_itself(uri)
    artifacts = databases.artifact_root(path.parent).as_uri()  # of experiments that are not ours
    with mlflow_view_errors(uri):
        databases.create_once(path, lambda fresh: mlflow_private.create_store(fresh, artifacts))
        mlflow_private.release(uri)  # it may still hold a file that was deleted
        try:
            client_of(uri).search_experiments(max_results=1)
        except MlflowException as exc:
            if not mlflow_private.is_out_of_date(exc):
                raise
            mlflow_private.release(uri)
            _upgrade(uri)


def _upgrade(uri: str) -> None:
    """Bring an older SQLite store up to date by MLflow's own command, which Ctrl-C does not reach.

    Raises:
        ViewError: the command failed.
    """
    with TemporaryDirectory(prefix="upgrade-") as scratch:
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", databases.plain_uri(uri, Path(scratch))]
        done = subprocess.run(
            command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True
        )
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), f"status {done.returncode}")
        raise databases.ViewError(f"MLflow at {redact(uri)}: mlflow db upgrade failed ({said[:300]})")


def log(
    client: MlflowClient, run: str, points: Sequence[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
) -> None:
    """Write to a run, all of it in one request where MLflow takes that many. Points have to be finite."""
    rest: list[list[Any]] = [
        [Metric(names.legal_key(p.key), p.value, milliseconds(p.time), p.step) for p in points],
        [Param(names.legal_key(k), names.legal_value(plain(v), names.MAX_PARAM_CHARS)) for k, v in params.items()],
        [RunTag(key, value) for key, value in legal_tags(tags).items()],
    ]
    while any(rest):
        sent = [part[:most] for part, most in zip(rest, (MAX_METRICS_PER_REQUEST, MAX_PARAMS_PER_REQUEST, MAX_PARAMS_PER_REQUEST), strict=True)]
        client.log_batch(run, *sent, synchronous=True)
        rest = [part[len(done) :] for part, done in zip(rest, sent, strict=True)]


def legal_tags(tags: Mapping[str, Any], most: int = names.MAX_TAG_CHARS) -> dict[str, str]:
    """Returns tags as MLflow takes them, their values as text cut to `most` characters."""
    return {names.legal_key(key): names.legal_value(plain(value), most) for key, value in tags.items()}


def log_datasets(client: MlflowClient, run: str, inputs: Iterable[content.DatasetInput]) -> None:
    """Say what data a run took in; said twice it is the same."""
    client.log_inputs(
        run,
        [
            DatasetInput(
                Dataset(
                    names.legal_value(i.name, names.MAX_DATASET_NAME_CHARS), i.digest, i.source_type, i.source,
                    profile=i.profile,
                ),
                [InputTag("mlflow.data.context", i.context)],
            )
            for i in inputs
        ],
    )  # fmt: skip


def milliseconds(time: float) -> int:
    return int(time * 1000)


def runs_of(client: MlflowClient, experiment: str, study: str) -> dict[int | None, Run]:
    """A study's runs by the number of their trial, the study's own under None.

    A server may carry out, later, a request that was given up on. Of a run that is there twice the fuller one is kept.
    """
    found: dict[int | None, list[Run]] = {}
    for run in search(client, experiment, study):
        number = run.data.tags.get("study.trial")
        found.setdefault(None if number is None else int(number), []).append(run)
    for runs in found.values():
        runs.sort(key=lambda run: (-len(run.data.params), -len(run.data.tags), run.info.run_id))
        for double in runs[1:]:
            client.delete_run(double.info.run_id)
    return {number: runs[0] for number, runs in found.items()}


def search(client: MlflowClient, experiment: str, study: str) -> Iterator[Run]:
    """All of these runs, page by page."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment], f"tags.`study.id` = '{study}'", max_results=RUNS_PER_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def mlflow_view_errors(uri: str) -> AbstractContextManager[None]:
    return databases.view_errors("MLflow", uri, MlflowException, SQLAlchemyError, ImportError)
