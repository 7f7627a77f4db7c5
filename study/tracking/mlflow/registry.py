"""Registers a study's winner in MLflow: a model with its own code, linked to run and images, alias `champion`."""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import sr_core
from sr_core.images.files import png_bytes
from study.executors import trained
from study.record.events import Concluded, Finished
from study.record.folder import StudyFolder
from study.record.provenance import recorded_versions
from study.record.state import StudyState
from study.statistics.verdict import words
from study.tracking.mlflow import content
from study.tracking.mlflow.names import MAX_DESCRIPTION_CHARS, MAX_PARAM_CHARS, legal_key, legal_value
from study.tracking.mlflow.store import legal_tags, milliseconds, second_name

logger = logging.getLogger(__name__)

ALIAS = "champion"
LIBRARIES = ("mlflow", "torch", "numpy", "pandas", "pillow", "opencv-python-headless", "safetensors", "h5py")
"""The libraries that the model imports. `sr_core` is copied into the model."""
_IMAGE = Schema([ColSpec(DataType.binary, "picture")])
_SIGNATURE = ModelSignature(_IMAGE, _IMAGE, ParamSchema([ParamSpec("self_ensemble", DataType.boolean, False)]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Champion:
    """The winner of a study, as the registry receives it."""

    study: str
    experiment: str
    """The id of the experiment in MLflow."""
    run: str
    """The id of the trial's run in MLflow."""
    tags: Mapping[str, str]
    """`study.id`, `study.trial` and `study.weights`. Together they identify the winner."""
    config: Mapping[str, Any]
    weights: Path
    packages: Sequence[str]
    """`name==version` of the packages that were installed during its training."""
    points: Sequence[content.Point]
    """Its scores on the validation images and the benchmark sets."""
    dataset: content.DatasetInput
    """The validation images."""
    description: str


def champion_of(
    folder: StudyFolder, state: StudyState, result: Concluded, experiment: str, run: str, study_id: str
) -> Champion | None:
    """Returns the winner that a conclusion names; None if its weights no longer exist.

    Args:
        experiment: the id of the experiment in MLflow.
        run: the id of the winning trial's run.
    Raises:
        CheckpointError: the file holds other weights than the journal records.
    """
    trial = state.trials[result.best]
    opened = state.opened
    weights = folder.trial(result.best) / "weights.safetensors"
    if opened is None or not isinstance(trial.end, Finished) or not folder.has(weights):
        return None
    trained.trained_network(folder, trial)
    epoch = trial.starts[-1].epoch if trial.starts else 0
    session = next((s for s in state.sessions if s.epoch == epoch), None)
    last = trial.curve[-1]  # points with its time are equal to the run's own, so the run has each of them once
    points = [content.Point(key, value, last.time, last.patches) for key, value in trial.scores.items()]
    points += [point for point in content.results(result) if not point.key.endswith("_bicubic")]
    description = [opened.text]
    if state.replicated:
        description += words(state)
    return Champion(
        study=opened.study,
        experiment=experiment,
        run=run,
        tags={"study.id": study_id, "study.trial": str(result.best), "study.weights": trial.end.weights},
        config=trial.proposed.config,
        weights=weights,
        packages=session.provenance.get("packages", ()) if session else (),
        points=content.separate(points)[0],
        dataset=content.dataset_inputs(opened)[1],
        description=content.plain("\n".join(description)),
    )


def register(client: MlflowClient, champion: Champion) -> str:
    """Points `models:/<study>@champion` to this winner, and returns the number of its version.

    An existing version of the same winner is reused. A registered model of the same name that belongs to another owner
    stays untouched, and so does an alias that points to another study's version.
    """
    name = _model_name(client, champion)
    version = _version_of(client, champion, name)
    if version is None:
        model = _finished_model(client, champion) or _make_model(client, champion)
        _ensure_registered(client, champion, name)
        created = client.create_model_version(
            name,
            client.get_logged_model(model).artifact_location,
            run_id=champion.run,
            tags=dict(champion.tags),
            description=legal_value(champion.description, MAX_DESCRIPTION_CHARS),
            model_id=model,
        )
        version = str(created.version)
    _set_alias(client, champion, name, version)
    return version


def _model_name(client: MlflowClient, champion: Champion) -> str:
    """Returns the name for the registered model: the study's own, unless a model of another owner has it."""
    try:
        model = client.get_registered_model(champion.study)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return champion.study

    owner = model.tags.get("study.id")
    versions = _versions(client, champion.study)
    if owner == champion.tags["study.id"] or any(_is_ours(version, champion) for version in versions):
        return champion.study
    if owner is None and not versions and model.tags.get("study.name") == champion.study:
        return champion.study  # created by an earlier release, which was killed before it added a version

    other_name = second_name(champion.study, champion.tags["study.id"])
    logger.warning(
        "mlflow: the registered model %r is not this study's; its winner is registered as %r",
        champion.study, other_name,
    )  # fmt: skip
    return other_name


def _set_alias(client: MlflowClient, champion: Champion, name: str, version: str) -> None:
    """Points the alias to this version, unless it points to another study's version."""
    current = client.get_registered_model(name).aliases.get(ALIAS)
    foreign = {str(v.version) for v in _versions(client, name) if not _is_ours(v, champion)}
    if current is not None and str(current) in foreign:
        logger.warning(
            "mlflow: the alias %r of registered model %r stays at version %s, which is not this study's; this study's "
            "winner is version %s",
            ALIAS, name, current, version,
        )  # fmt: skip
        return
    client.set_registered_model_alias(name, ALIAS, version)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _is_ours(version: ModelVersion, champion: Champion) -> bool:
    return bool(version.tags.get("study.id") == champion.tags["study.id"])


def _version_of(client: MlflowClient, champion: Champion, name: str) -> str | None:
    """Returns the number of this winner's version; None if it has none."""
    for version in client.search_model_versions(f"name = '{name}' AND run_id = '{champion.run}'"):
        if champion.tags.items() <= version.tags.items():
            return str(version.version)
    return None


def _ensure_registered(client: MlflowClient, champion: Champion, name: str) -> None:
    """Creates the registered model unless it exists."""
    tags = {"study.name": champion.study, "study.id": champion.tags["study.id"]}
    try:
        client.create_registered_model(name, tags, "Winners of the study; the alias champion marks the latest")
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _finished_model(client: MlflowClient, champion: Champion) -> str | None:
    """Returns the id of a complete model that a kill left without a version; incomplete ones are deleted."""
    models = client.search_logged_models([champion.experiment], f"source_run_id = '{champion.run}'")
    finished = None
    for model in models:
        if model.status == LoggedModelStatus.READY and champion.tags.items() <= model.tags.items():
            finished = str(model.model_id)
        elif model.status == LoggedModelStatus.PENDING:
            client.delete_logged_model(model.model_id)
    return finished


def _make_model(client: MlflowClient, champion: Champion) -> str:
    """Logs the winner as a model of its run, and returns the model's id."""
    params = legal_tags(content.flat(champion.config), MAX_PARAM_CHARS)
    logged = client.create_logged_model(
        champion.experiment, ALIAS, champion.run, dict(champion.tags), params, "super-resolution"
    )
    with _files(champion, Model(run_id=champion.run, model_id=logged.model_id, signature=_SIGNATURE)) as folder:
        client.log_model_artifacts(logged.model_id, str(folder))
    # Scores that name model and dataset also appear on the model's own page.
    client.log_batch(champion.run, [_metric(point, logged.model_id, champion.dataset) for point in champion.points])
    client.log_outputs(champion.run, [LoggedModelOutput(logged.model_id, max(p.step for p in champion.points))])
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def _metric(point: content.Point, model: str, dataset: content.DatasetInput) -> Metric:
    """Returns a point as MLflow's metric of a model, and of the dataset if it is a validation score."""
    about = {"model_id": model}
    if point.key.startswith("val"):
        about |= {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    return Metric(legal_key(point.key), point.value, milliseconds(point.time), point.step, **about)


@contextmanager
def _files(champion: Champion, model: Model) -> Iterator[Path]:
    """Yields the model's folder while the block runs."""
    with TemporaryDirectory(prefix="champion-") as scratch:
        network = Path(scratch, "network")
        model_folder = Path(scratch, "model")
        network.mkdir()
        shutil.copyfile(champion.weights, network / "weights.safetensors")
        (network / "config.json").write_text(json.dumps(champion.config, indent=2) + "\n", "utf-8")
        code = Path(next(iter(sr_core.__path__)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own types and of its use of pandas
            from mlflow.pyfunc import save_model

            save_model(
                path=str(model_folder),
                mlflow_model=model,
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"network": os.fspath(network)},
                code_paths=[os.fspath(code)],
                signature=_SIGNATURE,
                input_example=pd.DataFrame({"picture": [_example()]}),
                pip_requirements=model_requirements(champion.packages),
            )
        yield model_folder


def model_requirements(packages: Sequence[str]) -> list[str]:
    """Returns the model's libraries as requirements, in the versions of `packages` or else of this environment.

    The suffix of a local build (`+cpu`) is left out, because package indexes do not have such versions.
    """
    recorded = recorded_versions(packages)
    return [f"{name}=={(recorded.get(name) or metadata.version(name)).partition('+')[0]}" for name in LIBRARIES]


def _example() -> bytes:
    """Returns a small PNG file: a colour wedge."""
    across, down = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 24))
    return png_bytes(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))
