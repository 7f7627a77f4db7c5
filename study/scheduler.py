"""Which trials go on at a rung: a pure function of the study's state."""

import math
from enum import Enum, auto

from study.experiment import Experiment
from study.state import StudyState


class Verdict(Enum):
    CONTINUE = auto()
    STOP = auto()


def decide(state: StudyState, experiment: Experiment, number: int) -> Verdict:
    """Whether a trial that has just been validated goes on.

    Successive halving, asynchronous (Li et al., arXiv 1810.05934): at a rung a trial goes on if it stands among the
    best 1 / reduction_factor (rounded up) of the trials of the space that have reached the rung by now. References
    and replicates are never pruned and take no place from others.
    """
    trial = state.trials[number]
    if experiment.scheduler == "none" or trial.proposed.role != "search" or trial.patches not in experiment.rungs:
        return Verdict.CONTINUE
    here = trial.score_at(trial.patches)
    assert here is not None
    others = [
        score
        for other in state.trials.values()
        if other.proposed.role == "search" and (score := other.score_at(trial.patches)) is not None
    ]
    places = math.ceil(len(others) / experiment.reduction_factor)
    better = sum(score > here for score in others)
    return Verdict.CONTINUE if better < places else Verdict.STOP
