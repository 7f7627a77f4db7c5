"""The winner in MLflow's registry: a model of its own code, linked to its run and data, with the alias `champion`."""

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
"""What the model imports, `sr_core` being beside it."""
_IMAGE = Schema([ColSpec(DataType.binary, "picture")])
_SIGNATURE = ModelSignature(_IMAGE, _IMAGE, ParamSchema([ParamSpec("self_ensemble", DataType.boolean, False)]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Champion:
    """The winner of a study, as it goes to the registry."""

    study: str
    experiment: str
    """MLflow's id."""
    run: str
    """The trial's run."""
    tags: Mapping[str, str]
    """`study.id`, `study.trial`, `study.weights`: what makes it this winner and no other."""
    config: Mapping[str, Any]
    weights: Path
    packages: Sequence[str]
    """`name==version` of what was installed when it was trained."""
    points: Sequence[content.Point]
    """Its scores on the validation images and the benchmarks."""
    dataset: content.DatasetInput
    """The validation images."""
    description: str


def champion_of(
    folder: StudyFolder, state: StudyState, result: Concluded, experiment: str, run: str, study_id: str
) -> Champion | None:
    """The winner that a conclusion names; None if its weights are not there any more.

    Raises:
        CheckpointError: the file holds other weights than the journal records.
    Args:
        experiment: MLflow's id.
        run: of the winning trial.
    """
    trial, opened = state.trials[result.best], state.opened
    weights = folder.trial(result.best) / "weights.safetensors"
    if opened is None or not isinstance(trial.end, Finished) or not folder.has(weights):
        return None
    trained.trained_network(folder, trial)
    epoch = trial.starts[-1].epoch if trial.starts else 0
    session = next((s for s in state.sessions if s.epoch == epoch), None)
    last = trial.curve[-1]  # with its time, so that the run has each point once
    points = [content.Point(key, value, last.time, last.patches) for key, value in trial.scores.items()]
    points += [point for point in content.results(result) if not point.key.endswith("_bicubic")]
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
        description=content.plain("\n".join([opened.text, *(words(state) if state.replicated else ())])),
    )


def register(client: MlflowClient, champion: Champion) -> str:
    """Let `models:/<study>@champion` be this winner; the number of its version, an old one if it is there already.

    A registered model of the study's name that is somebody else's is left alone, and so is an alias that points to
    another study's version.
    """
    name = _model_name(client, champion)
    version = _version_of(client, champion, name)
    if version is None:
        model = _finished_model(client, champion) or _make_model(client, champion)
        _ensure_registered(client, champion, name)
        made = client.create_model_version(
            name,
            client.get_logged_model(model).artifact_location,
            run_id=champion.run,
            tags=dict(champion.tags),
            description=legal_value(champion.description, MAX_DESCRIPTION_CHARS),
            model_id=model,
        )
        version = str(made.version)
    _set_alias(client, champion, name, version)
    return version


def _model_name(client: MlflowClient, champion: Champion) -> str:
    """The study's own name, unless a registered model of that name is another's."""
    other = second_name(champion.study, champion.tags["study.id"])
    try:
        there = client.get_registered_model(champion.study)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return champion.study
    owner, versions = there.tags.get("study.id"), _versions(client, champion.study)
    if owner == champion.tags["study.id"] or any(_is_ours(found, champion) for found in versions):
        return champion.study
    if owner is None and not versions and there.tags.get("study.name") == champion.study:
        return champion.study  # an earlier version's, killed before it had a version
    logger.warning("mlflow: registered model %r is not this study's; its winner is %r", champion.study, other)
    return other


def _set_alias(client: MlflowClient, champion: Champion, name: str, version: str) -> None:
    held = client.get_registered_model(name).aliases.get(ALIAS)
    theirs = [found for found in _versions(client, name) if not _is_ours(found, champion)]
    if held is not None and str(held) in {str(found.version) for found in theirs}:
        logger.warning(
            "mlflow: the alias %r of registered model %r points to version %s, which is not this study's, and is left "
            "there; this study's winner is version %s",
            ALIAS, name, held, version,
        )  # fmt: skip
        return
    client.set_registered_model_alias(name, ALIAS, version)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{name}'"))


def _is_ours(version: ModelVersion, champion: Champion) -> bool:
    return bool(version.tags.get("study.id") == champion.tags["study.id"])


def _version_of(client: MlflowClient, champion: Champion, name: str) -> str | None:
    for found in client.search_model_versions(f"name = '{name}' AND run_id = '{champion.run}'"):
        if champion.tags.items() <= found.tags.items():
            return str(found.version)
    return None


def _ensure_registered(client: MlflowClient, champion: Champion, name: str) -> None:
    tags = {"study.name": champion.study, "study.id": champion.tags["study.id"]}
    try:
        client.create_registered_model(name, tags, "Winners of the study, the last one as champion")
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _finished_model(client: MlflowClient, champion: Champion) -> str | None:
    """The model that a kill left whole but without a version; what it left in pieces is deleted."""
    found = client.search_logged_models([champion.experiment], f"source_run_id = '{champion.run}'")
    whole = None
    for model in found:
        if model.status == LoggedModelStatus.READY and champion.tags.items() <= model.tags.items():
            whole = str(model.model_id)
        elif model.status == LoggedModelStatus.PENDING:
            client.delete_logged_model(model.model_id)
    return whole


def _make_model(client: MlflowClient, champion: Champion) -> str:
    params = legal_tags(content.flat(champion.config), MAX_PARAM_CHARS)
    made = client.create_logged_model(
        champion.experiment, ALIAS, champion.run, dict(champion.tags), params, "super-resolution"
    )
    with _files(champion, Model(run_id=champion.run, model_id=made.model_id, signature=_SIGNATURE)) as folder:
        client.log_model_artifacts(made.model_id, str(folder))
    # With model and data named, these scores stand on the model's own page too.
    client.log_batch(champion.run, [_metric(point, made.model_id, champion.dataset) for point in champion.points])
    client.log_outputs(champion.run, [LoggedModelOutput(made.model_id, max(p.step for p in champion.points))])
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    return str(made.model_id)


def _metric(point: content.Point, model: str, dataset: content.DatasetInput) -> Metric:
    about = {"model_id": model}
    if point.key.startswith("val"):
        about |= {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    return Metric(legal_key(point.key), point.value, milliseconds(point.time), point.step, **about)


@contextmanager
def _files(champion: Champion, model: Model) -> Iterator[Path]:
    """The model's folder, for as long as the block runs."""
    with TemporaryDirectory(prefix="champion-") as scratch:
        network, made = Path(scratch, "network"), Path(scratch, "model")
        network.mkdir()
        shutil.copyfile(champion.weights, network / "weights.safetensors")
        (network / "config.json").write_text(json.dumps(champion.config, indent=2) + "\n", "utf-8")
        code = Path(next(iter(sr_core.__path__)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, of its own types and its use of pandas
            from mlflow.pyfunc import save_model

            save_model(
                path=str(made),
                mlflow_model=model,
                python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"network": os.fspath(network)},
                code_paths=[os.fspath(code)],
                signature=_SIGNATURE,
                input_example=pd.DataFrame({"picture": [_example()]}),
                pip_requirements=model_requirements(champion.packages),
            )
        yield made


def model_requirements(packages: Sequence[str]) -> list[str]:
    """The libraries that the model imports, in the versions of `packages` or else of this environment.

    Without the mark of a local build (`+cpu`), which no package index knows.
    """
    recorded = recorded_versions(packages)
    return [f"{name}=={(recorded.get(name) or metadata.version(name)).partition('+')[0]}" for name in LIBRARIES]


def _example() -> bytes:
    """A small image file: a colour wedge."""
    across, down = np.meshgrid(np.linspace(0, 255, 32), np.linspace(0, 255, 24))
    return png_bytes(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))
