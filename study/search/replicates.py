"""Who is trained again after the search, and with which seeds: pure functions of the study's state."""

from dataclasses import dataclass

from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.record.state import StudyState, TrialState


@dataclass(frozen=True, slots=True)
class Replicate:
    """One re-training that is due."""

    of: TrialState
    number: int
    """Of the seed, from 1."""
    name: str
    """The reference's, or `finalist k` with its place in the search."""


def trial_seed(study_seed: int, replicate: int = 0) -> int:
    """The seed of every trial of the search (0), or of the replicates of that number: the same for all finalists."""
    return child_seed(study_seed, "replicate", replicate) if replicate else child_seed(study_seed, "trial")


def finalists(state: StudyState) -> dict[str, TrialState]:
    """The candidates of the search and the references that finished, by the name that their replicates have.

    They are fixed by the search's ranking alone; no replicate is looked at.
    """
    named = {f"finalist {place}": trial for place, trial in enumerate(state.candidates(), start=1)}
    return named | {t.proposed.name: t for t in state.trials.values() if t.is_reference and t.status == "finished"}


def due(state: StudyState, experiment: Experiment) -> Replicate | None:
    """The next replicate, once the search has ended; None when every finalist has been trained with every seed.

    Seed by seed: whoever stops early has the same seeds of all. A replicate that failed is not repeated, for it would
    fail again. Without a candidate there is nothing to judge.
    """
    named = finalists(state) if state.candidates() else {}
    for number in range(1, experiment.replicates + 1):
        for name, trial in named.items():
            if number not in state.replicates_of(trial.number):
                return Replicate(trial, number, name)
    return None
