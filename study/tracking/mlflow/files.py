"""The files of MLflow's runs, with the names and layout that its pages expect. Equal journals give equal files."""

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
from study.record.state import StudyState, TrialState
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.content import Tags

Files = dict[str, str | bytes | Path]
"""Path in the run's artifacts -> its content, or the file to copy."""

IMAGE = "val/crop"
"""The image series of a trial."""
TABLE = "per_image.json"
_NAMESPACE = uuid.UUID("5f2b7ad8-1f0c-5d1b-9d55-7d0d7f6cf7f1")


def images(folder: StudyFolder, study_id: str, trial: TrialState, points: Sequence[Validated]) -> Files:
    """Returns the stored validation crops of these points, in the form of a series for MLflow's image grid.

    Each is an image and a preview whose names contain series, step, time and an id. The id is derived here, so that a
    repetition replaces the files. The crop from before the training precedes the first point. The grid opens at
    step 0, and would otherwise report that no image was logged.
    """
    moments = [(point.patches, point.time) for point in points]
    if trial.curve and any(point.patches == trial.curve[0].patches for point in points):
        moments.insert(0, (0, trial.proposed.time))
    files: Files = {}
    for patches, time in moments:
        path = image_file(folder.trial(trial.number), patches)
        if folder.has(path):
            unique = uuid.uuid5(_NAMESPACE, f"{study_id} {trial.number} {patches}")
            image, preview = mlflow_private.image_names(IMAGE, patches, int(time * 1000), str(unique))
            files |= {image: path, preview: _preview(path)}
    return files


def _preview(path: Path) -> bytes | Path:
    """Returns a small version of the image, or the image itself if that fails. Pillow may lack WebP."""
    try:
        return webp_preview(path)
    except (ImageError, OSError, KeyError, ValueError):
        return path


def of_proposal(proposed: Proposed) -> Files:
    """Returns the file of a trial's complete configuration."""
    return {"config.json": json.dumps(proposed.config, indent=2)}


def of_trial(folder: StudyFolder, end: Finished | Pruned | Failed) -> Files:
    """Returns the files of a trial that has ended: weights and per-image scores, or the traceback of a failure."""
    if isinstance(end, Finished):
        weights = folder.trial(end.trial) / "weights.safetensors"
        scores = json_table(("picture", "val/psnr", "val/ssim"), end.per_image)
        files: Files = {"weights.safetensors": weights} if folder.has(weights) else {}
        return files | {TABLE: scores}
    return {"traceback.txt": printable(end.traceback)} if isinstance(end, Failed) and end.traceback else {}


def of_session(folder: StudyFolder, session: SessionStarted) -> Files:
    """Returns the environment of a session: the installed packages, and the code's changes since its commit."""
    directory = f"environment/session-{session.epoch:04d}"
    files: Files = {}
    if "packages" in session.provenance:
        lines = requirement_lines(session.provenance["packages"])
        files[f"{directory}/requirements.txt"] = "".join(f"{line}\n" for line in lines)
    if folder.has(folder.changes(session.epoch)):
        files[f"{directory}/changes.patch"] = folder.changes(session.epoch)
    return files


def of_conclusion(folder: StudyFolder, result: Concluded) -> Files:
    """Returns the files of results/, the winner's per-image scores, and the report if one exists."""
    files: Files = {**folder.written(result.files)}
    if folder.has(folder.report):
        files[folder.report.name] = folder.report
    return files | {f"results/{TABLE}": json_table(("set", "picture", "psnr", "ssim"), result.per_image)}


def all_of_trial(folder: StudyFolder, study_id: str, trial: TrialState) -> Files:
    """Returns all files of a trial's run."""
    files = images(folder, study_id, trial, trial.curve) | of_proposal(trial.proposed)
    if trial.end:
        files |= of_trial(folder, trial.end)
    return files


def all_of_study(folder: StudyFolder, state: StudyState) -> Files:
    """Returns all files of a study's own run."""
    files: Files = {}
    for session in state.sessions:
        files |= of_session(folder, session)
    if state.concluded:
        files |= of_conclusion(folder, state.concluded)
    return files


def json_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as MLflow's pages read it. NaN and infinities, which JSON lacks, become text."""
    return mlflow_private.table_text(columns, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def marks(files: Mapping[str, object]) -> Tags:
    """Returns the tags that tell MLflow's pages which tables and image series a run has."""
    tables = [name for name in files if name.endswith(TABLE)]
    return {**mlflow_private.marks(tables, images=any(name.startswith("images/") for name in files))}
