"""The trained networks of a study, held to the digests that its journal records."""

from pathlib import Path

from sr_core.errors import CheckpointError, SuiteError
from sr_core.model.network import A2N
from sr_core.model.weights import load_model
from sr_core.training.checkpoint import digest_of, weights_of
from study.record.events import Finished
from study.record.folder import StudyFolder
from study.record.state import TrialState


def trained_network(folder: StudyFolder, trial: TrialState, path: Path | None = None) -> A2N:
    """The network of a finished trial, in eval mode on the CPU.

    Call this before weights are evaluated, copied, registered or served: a file may have been exchanged.

    Args:
        path: of its weights; by default those in the trial's folder.
    Raises:
        SuiteError: the file is missing or lies outside the study's folder.
        CheckpointError: the file is damaged, or does not hold the weights that the journal records.
    """
    assert isinstance(trial.end, Finished)
    weights = path or folder.trial(trial.number) / "weights.safetensors"
    if not folder.has(weights):
        raise SuiteError(
            f"{weights}: the weights of trial {trial.number} are not in the study's folder; put them back from MLflow "
            "or a copy (a link that leads elsewhere is not followed), then run again"
        )
    model = load_model(weights, trial.config.data.scale)
    if digest_of(weights_of(model)) != trial.end.weights:
        raise CheckpointError(
            f"{weights}: not the weights of trial {trial.number} that the journal records; put the right file back "
            "from MLflow or a copy, then run again"
        )
    return model
