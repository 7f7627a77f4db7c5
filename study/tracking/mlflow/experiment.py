"""The MLflow experiment of a study: found by its tags, created if there is none, kept up to date."""

import logging
from pathlib import Path

from study.record.addresses import sqlite_file
from study.record.events import StudyOpened
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.names import MAX_EXPERIMENT_TAG_CHARS
from study.tracking.mlflow.pages import experiment_tags
from study.tracking.mlflow.store import Client, experiment_of, legal_tags, second_name

logger = logging.getLogger(__name__)


def find_or_create(client: Client, uri: str, artifacts: Path | None, opened: StudyOpened, owner: str) -> str:
    """Returns the id of the study's experiment, which is created if there is none.

    An experiment that was deleted in MLflow's UI is restored, because its name stays taken.

    Args:
        uri: the address of MLflow's store.
        artifacts: the folder for the files of runs; None if a server stores them.
        owner: the id of the study that the experiment belongs to.
    """
    experiment = experiment_of(client, opened.study, owner)
    if experiment is None:
        return _create(client, artifacts, opened, owner)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)

    store = sqlite_file(uri)
    if store and artifacts and store.parent == artifacts.parent:
        stored_location = str(experiment.artifact_location).rpartition("/")[0]
        if stored_location != artifacts.as_uri():  # the root was moved
            mlflow_private.move_artifacts(store, f"{stored_location}/", f"{artifacts.as_uri()}/")
    return str(experiment.experiment_id)


def _create(client: Client, artifacts: Path | None, opened: StudyOpened, owner: str) -> str:
    """Creates the study's experiment and returns its id. If the study's name is taken, another one is used."""
    name = opened.study
    if client.get_experiment_by_name(name) is not None:
        name = second_name(name, owner)
        logger.warning(
            "mlflow: the experiment %r belongs to another study; the runs of this study are in %r", opened.study, name
        )
    location = (artifacts / name).as_uri() if artifacts else None
    tags = legal_tags(experiment_tags(opened), MAX_EXPERIMENT_TAG_CHARS) | {"study.id": owner}
    return str(client.create_experiment(name, location, tags))


def update_tags(client: Client, experiment: str, opened: StudyOpened, owner: str) -> None:
    """Writes the experiment's tags that are missing or were written by an earlier version."""
    current = client.get_experiment(experiment).tags
    tags = legal_tags(experiment_tags(opened), MAX_EXPERIMENT_TAG_CHARS)
    if current.get("study.id", owner) != owner:
        return  # the other study's: an earlier version put studies of one name into one experiment
    if "study.id" not in current:
        tags["study.id"] = owner
    for key, value in tags.items():
        if current.get(key) != value:
            client.set_experiment_tag(experiment, key, value)
