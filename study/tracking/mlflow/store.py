"""Access to MLflow: its time limits, the creation of an embedded store, and finding and writing runs."""

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

# These must be set before MLflow is imported. MLflow's own retries are off, because it would send a request again whose
# answer was lost, and create a run twice. A follower retries by itself, and looks first what came of the request.
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

Client = MlflowClient
"""MLflow's client, for annotations in modules that must not import MLflow themselves."""

# MLflow and Alembic report their work on stderr, and also log the errors that they raise.
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
for _missing in mlflow_private.alter():
    logger.warning("mlflow: %s", _missing)

MAX_METRICS_PER_REQUEST = 900
"""MLflow rejects a request with more than 1,000 metrics, params and tags."""
MAX_PARAMS_PER_REQUEST = 50
"""Also for tags. MLflow rejects a request with more than 100 of either."""
RUNS_PER_PAGE = 500


def client_of(uri: str) -> MlflowClient:
    """Returns a client for the tracking server or database at this address, also for its registry."""
    _drop_foreign_settings(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _drop_foreign_settings(uri: str) -> None:
    """Removes settings for other MLflow servers from the environment: workspaces, and a proxy to this machine."""
    host = urlsplit(uri).hostname if uri.startswith("http") else None
    if host is None:
        os.environ["MLFLOW_ENABLE_WORKSPACES"] = "false"  # an embedded database has none
        os.environ.pop("MLFLOW_WORKSPACE", None)
    elif is_loopback(host):
        os.environ.update(without_proxy(host))


def find_run(tracking_uri: str, run_id: str) -> tuple[str, int]:
    """Returns (study, trial number) of a run. For a study's own run that is its best trial.

    Raises:
        SuiteError: MLflow cannot be reached, has no such run, or the run does not belong to a trial.
    """
    path = sqlite_file(tracking_uri)
    if path is not None and not path.exists():
        raise SuiteError(f"{path}: no MLflow store here; run study.sync, or name the trial by its number")
    with mlflow_view_errors(tracking_uri):
        tags = client_of(tracking_uri).get_run(run_id).data.tags
    number = tags.get("study.trial", tags.get("study.best"))
    if tags.get("study.role") == "training":
        raise SuiteError(f"MLflow run {run_id} is a longer training; reproduce its trial by its number, {number}")
    if "study.name" not in tags or number is None:
        raise SuiteError(f"MLflow run {run_id} is not a trial of a study; expected a run with the tag study.trial")
    return tags["study.name"], int(number)


def add_to_study(tracking_uri: str, study: str, study_id: str, files: Files) -> bool:
    """Adds files to the artifacts of a study's own run. Returns False if MLflow does not have the study.

    Raises:
        ViewError: MLflow cannot be reached, or refuses files.
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
    """Returns the name for a study's experiment and model if the study's own name is taken."""
    return f"{study}-{study_id[:8]}"


def experiment_of(client: MlflowClient, study: str, study_id: str) -> Experiment | None:
    """Returns the experiment that holds this study, also if it is deleted; None if there is none.

    An earlier version tagged runs only, and put two studies of one name into one experiment.
    """
    condition = f"tags.`study.id` = '{study_id}'"
    tagged = client.search_experiments(view_type=ViewType.ALL, filter_string=condition)
    by_name = [client.get_experiment_by_name(name) for name in (study, second_name(study, study_id))]
    for experiment in [*tagged, *filter(None, by_name)]:
        if client.search_runs([experiment.experiment_id], condition, ViewType.ALL, max_results=1):
            return experiment
    if tagged:
        return tagged[0]

    named = by_name[0]
    if named is None or named.tags.get("study.name") != study or "study.id" in named.tags:
        return None
    empty = not client.search_runs([named.experiment_id], run_view_type=ViewType.ALL, max_results=1)
    return named if empty else None


def prepare_mlflow_store(uri: str) -> None:
    """Creates the embedded store, or upgrades one of an older MLflow. Does nothing for a server.

    One process at a time creates a store.

    Raises:
        ViewError: the store cannot be written.
    """
    path = sqlite_file(uri)
    if path is None:
        return
    _drop_foreign_settings(uri)
    artifacts = databases.artifact_root(path.parent).as_uri()  # for experiments of other programs
    with mlflow_view_errors(uri):
        databases.create_once(path, lambda fresh: mlflow_private.create_store(fresh, artifacts))
        mlflow_private.release(uri)  # MLflow may still be connected to a file that was deleted
        try:
            client_of(uri).search_experiments(max_results=1)
        except MlflowException as exc:
            if not mlflow_private.is_out_of_date(exc):
                raise
            mlflow_private.release(uri)
            _upgrade(uri)


def _upgrade(uri: str) -> None:
    """Upgrades an older SQLite store by MLflow's own command. Ctrl-C does not reach that command.

    Raises:
        ViewError: the command failed.
    """
    with TemporaryDirectory(prefix="upgrade-") as scratch:
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", databases.plain_uri(uri, Path(scratch))]
        done = subprocess.run(
            command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True
        )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").split("\n") if line.strip()]
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise databases.ViewError(f"MLflow at {redact(uri)}: mlflow db upgrade failed ({reason[:300]})")


def log(
    client: MlflowClient, run: str, points: Sequence[Point], params: Mapping[str, Any], tags: Mapping[str, Any]
) -> None:
    """Writes to a run, in one request if MLflow accepts that many values at once. Points must be finite."""
    metrics = [Metric(names.legal_key(p.key), p.value, milliseconds(p.time), p.step) for p in points]
    run_params = [
        Param(names.legal_key(key), names.legal_value(plain(value), names.MAX_PARAM_CHARS))
        for key, value in params.items()
    ]
    run_tags = [RunTag(key, value) for key, value in legal_tags(tags).items()]
    while metrics or run_params or run_tags:
        client.log_batch(
            run,
            metrics[:MAX_METRICS_PER_REQUEST],
            run_params[:MAX_PARAMS_PER_REQUEST],
            run_tags[:MAX_PARAMS_PER_REQUEST],
            synchronous=True,
        )
        del metrics[:MAX_METRICS_PER_REQUEST]
        del run_params[:MAX_PARAMS_PER_REQUEST]
        del run_tags[:MAX_PARAMS_PER_REQUEST]


def legal_tags(tags: Mapping[str, Any], most: int = names.MAX_TAG_CHARS) -> dict[str, str]:
    """Returns tags in the form that MLflow accepts, their values as text cut to `most` characters."""
    return {names.legal_key(key): names.legal_value(plain(value), most) for key, value in tags.items()}


def log_datasets(client: MlflowClient, run: str, inputs: Iterable[content.DatasetInput]) -> None:
    """Records which images a run uses. A repetition changes nothing."""
    entries = []
    for images in inputs:
        name = names.legal_value(images.name, names.MAX_DATASET_NAME_CHARS)
        dataset = Dataset(name, images.digest, images.source_type, images.source, profile=images.profile)
        entries.append(DatasetInput(dataset, [InputTag("mlflow.data.context", images.context)]))
    client.log_inputs(run, entries)


def milliseconds(time: float) -> int:
    """Returns a Unix time in seconds as MLflow's whole milliseconds."""
    return int(time * 1000)


def runs_of(client: MlflowClient, experiment: str, study: str) -> dict[int | None, Run]:
    """Returns a study's runs by the number of their trial. The study's own run has the key None.

    A server may still carry out a request that timed out here, so a run can exist twice. The one with fewer params and
    tags is deleted.
    """
    by_trial: dict[int | None, list[Run]] = {}
    for run in search(client, experiment, study):
        number = run.data.tags.get("study.trial")
        by_trial.setdefault(None if number is None else int(number), []).append(run)
    for runs in by_trial.values():
        runs.sort(key=lambda run: (-len(run.data.params), -len(run.data.tags), run.info.run_id))
        for duplicate in runs[1:]:
            client.delete_run(duplicate.info.run_id)
    return {number: runs[0] for number, runs in by_trial.items()}


def search(client: MlflowClient, experiment: str, study: str) -> Iterator[Run]:
    """Yields all runs of a study in an experiment, page by page.

    Args:
        study: the study's `study_id`.
    """
    condition = f"tags.`study.id` = '{study}'"
    token: str | None = None
    while True:
        page = client.search_runs([experiment], condition, max_results=RUNS_PER_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def mlflow_view_errors(uri: str) -> AbstractContextManager[None]:
    """Raises errors of MLflow in the block as a ViewError of one line without a password."""
    return databases.view_errors("MLflow", uri, MlflowException, SQLAlchemyError, ImportError)
