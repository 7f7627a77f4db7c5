"""Which settings are retrained after the search, and with which seeds: pure functions of the study's state."""

from dataclasses import dataclass

from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.record.state import StudyState, TrialState


@dataclass(frozen=True, slots=True)
class Replicate:
    """A replicate that is due: one retraining of a setting with a fresh seed."""

    of: TrialState
    """The trial that is trained again."""
    number: int
    """Number of the seed, from 1."""
    name: str
    """Name of the reference, or `finalist k` with k its rank in the search."""


def trial_seed(study_seed: int, replicate: int = 0) -> int:
    """The seed of every trial of the search (`replicate` 0), or of all replicates with that number.

    All settings share it, so differences between them are paired.
    """
    return child_seed(study_seed, "replicate", replicate) if replicate else child_seed(study_seed, "trial")


def finalists(state: StudyState) -> dict[str, TrialState]:
    """The settings to retrain: the first of the ranking and the finished references, by the name of their replicates.

    The ranking of the search alone decides, not the scores of replicates.
    """
    named = {f"finalist {place}": trial for place, trial in enumerate(state.candidates(), start=1)}
    return named | {t.proposed.name: t for t in state.trials.values() if t.is_reference and t.status == "finished"}


def due(state: StudyState, experiment: Experiment) -> Replicate | None:
    """The next replicate after the search; None if every setting has been trained with every seed.

    All settings are trained with one seed before the next, so a study that stops early has the same seeds of all.
    A failed replicate is not repeated because it would fail again. Without a candidate nothing is due.
    """
    if not state.candidates():
        return None
    settings = finalists(state)
    for number in range(1, experiment.replicates + 1):
        for name, trial in settings.items():
            if number not in state.replicates_of(trial.number):
                return Replicate(trial, number, name)
    return None
