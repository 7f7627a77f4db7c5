"""The files of MLflow's runs: named and laid out as its pages look for them, the same for the same record."""

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sr_core.errors import ImageError
from sr_core.images.files import webp_preview
from sr_core.process.names import printable
from study.record.events import Concluded, Failed, Finished, Proposed, Pruned, SessionStarted, Validated
from study.record.folder import StudyFolder
from study.record.images import image_file
from study.record.provenance import requirement_lines
from study.record.state import TrialState
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.content import Tags

Files = dict[str, str | bytes | Path]
"""Path in the run's artifacts -> what it holds, or the file to copy."""

IMAGE = "val/crop"
"""The image series of a trial."""
TABLE = "per_image.json"
_SPACE = uuid.UUID("5f2b7ad8-1f0c-5d1b-9d55-7d0d7f6cf7f1")


def images(folder: StudyFolder, study_id: str, trial: TrialState, points: Sequence[Validated]) -> Files:
    """The validation crop after each of these points, where one was kept, as MLflow's image grid expects a series.

    That is an image and a preview whose names say series, step, time and an id. The id is derived here, so that a
    repetition replaces the files. Before the first point comes the image before the training: the grid opens at step
    0, and would say there that no image was logged.
    """
    moments = [(point.patches, point.time) for point in points]
    if trial.curve and any(point.patches == trial.curve[0].patches for point in points):
        moments.insert(0, (0, trial.proposed.time))
    files: Files = {}
    for patches, time in moments:
        path = image_file(folder.trial(trial.number), patches)
        if folder.has(path):
            unique = uuid.uuid5(_SPACE, f"{study_id} {trial.number} {patches}")
            image, preview = mlflow_private.image_names(IMAGE, patches, int(time * 1000), str(unique))
            files |= {image: path, preview: _preview(path)}
    return files


def _preview(path: Path) -> bytes | Path:
    """A small file of the image, or the image if it cannot be made: Pillow may have been built without WebP."""
    try:
        return webp_preview(path)
    except (ImageError, OSError, KeyError, ValueError):
        return path


def of_proposal(proposed: Proposed) -> Files:
    """A trial's complete configuration."""
    return {"config.json": json.dumps(proposed.config, indent=2)}


def of_trial(folder: StudyFolder, end: Finished | Pruned | Failed) -> Files:
    """What a trial that has ended leaves: weights, the scores of each image, the traceback of a failure."""
    if isinstance(end, Finished):
        weights = folder.trial(end.trial) / "weights.safetensors"
        scores = json_table(("picture", "val/psnr", "val/ssim"), end.per_image)
        files: Files = {"weights.safetensors": weights} if folder.has(weights) else {}
        return files | {TABLE: scores}
    return {"traceback.txt": printable(end.traceback)} if isinstance(end, Failed) and end.traceback else {}


def of_session(folder: StudyFolder, session: SessionStarted) -> Files:
    """The environment of a session: what was installed, and how the code differed from its commit."""
    place = f"environment/session-{session.epoch:04d}"
    files: Files = {}
    if "packages" in session.provenance:
        lines = requirement_lines(session.provenance["packages"])
        files[f"{place}/requirements.txt"] = "".join(f"{line}\n" for line in lines)
    if folder.has(folder.changes(session.epoch)):
        files[f"{place}/changes.patch"] = folder.changes(session.epoch)
    return files


def of_conclusion(folder: StudyFolder, result: Concluded) -> Files:
    """The written results, the winner's scores on each image, and the report if one was made by now."""
    files: Files = {**folder.written(result.files)}
    if folder.has(folder.report):
        files[folder.report.name] = folder.report
    return files | {f"results/{TABLE}": json_table(("set", "picture", "psnr", "ssim"), result.per_image)}


def json_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as MLflow's pages read it; what JSON cannot say is said in words."""
    return mlflow_private.table_text(columns, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def marks(files: Mapping[str, object]) -> Tags:
    """The tags by which MLflow's pages know that a run has tables and image series."""
    tables = [name for name in files if name.endswith(TABLE)]
    return {**mlflow_private.marks(tables, images=any(name.startswith("images/") for name in files))}
