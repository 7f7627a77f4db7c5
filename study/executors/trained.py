"""Loads the trained networks of a study, and checks them against the digests in its journal."""

from pathlib import Path

from sr_core.errors import CheckpointError, SuiteError
from sr_core.model.network import A2N
from sr_core.model.weights import load_model
from sr_core.training.checkpoint import digest_of, weights_of
from study.record.events import Finished
from study.record.folder import StudyFolder
from study.record.state import TrialState


def trained_network(folder: StudyFolder, trial: TrialState, path: Path | None = None) -> A2N:
    """Load the network of a finished trial, in eval mode on the CPU.

    Call this before weights are evaluated, copied, registered or served, because the file may have been replaced.

    Args:
        path: the weights file; by default the one in the trial's folder.
    Raises:
        SuiteError: the file is missing or lies outside the study's folder.
        CheckpointError: the file is damaged, or does not hold the weights that the journal records.
    """
    assert isinstance(trial.end, Finished)
    weights = path or folder.trial(trial.number) / "weights.safetensors"
    if not folder.has(weights):
        raise SuiteError(
            f"{weights}: the weights of trial {trial.number} are not in the study's folder; restore them from MLflow "
            "or a copy (a link to a place outside the folder is not followed), then run the command again"
        )
    model = load_model(weights, trial.config.data.scale)
    if digest_of(weights_of(model)) != trial.end.weights:
        raise CheckpointError(
            f"{weights}: not the weights of trial {trial.number} that the journal records; restore the right file "
            "from MLflow or a copy, then run the command again"
        )
    return model
