"""Which trials go on at a rung: a pure function of the study's state."""

import math
from enum import Enum, auto

from study.experiment import Experiment
from study.replay import course_of
from study.state import StudyState


class Verdict(Enum):
    CONTINUE = auto()
    STOP = auto()


def decide(state: StudyState, experiment: Experiment, number: int) -> Verdict:
    """Whether a trial that has just been validated goes on.

    Successive halving, asynchronous (Li et al., arXiv 1810.05934): at a rung a trial goes on if it stands among the
    best 1 / reduction_factor (rounded up) of the trials of the space that had reached the rung when it did. So the
    verdict is a function of the journal up to that validation: asked again after a kill, with more trials there by
    then, it is the same. References and replicates are never pruned and take no place from others.
    """
    trial = state.trials[number]
    if experiment.scheduler == "replay":
        assert experiment.replay is not None
        return Verdict.STOP if course_of(experiment.replay).pruned_at.get(number) == trial.patches else Verdict.CONTINUE
    if experiment.scheduler == "none" or trial.proposed.role != "search" or trial.patches not in experiment.rungs:
        return Verdict.CONTINUE
    here, arrived = trial.score_at(trial.patches), trial.arrivals[-1] + 1
    assert here is not None
    others = [
        score
        for other in state.trials.values()
        if other.proposed.role == "search" and (score := other.score_at(trial.patches, arrived)) is not None
    ]
    places = math.ceil(len(others) / experiment.reduction_factor)
    better = sum(score > here for score in others)
    return Verdict.CONTINUE if better < places else Verdict.STOP
