"""Which trials go on at a rung, and which of those that wait there: pure functions of the study's state.

`successive_halving` stops a trial that is not among the best of a rung when it gets there, as Optuna's pruner of that
name does. `asha` (asynchronous successive halving, Li et al., arXiv 1810.05934) lets it wait there with its
checkpoint: as others come that are worse, it may come to stand among the best, and then goes on where it was.
"""

import math
from enum import Enum, auto

from study.question.experiment import Experiment
from study.record.course import course_of
from study.record.state import StudyState, TrialState


class Decision(Enum):
    CONTINUE = auto()
    PAUSE = auto()
    STOP = auto()


def decide(state: StudyState, experiment: Experiment, number: int) -> Decision:
    """Whether a trial that has just been validated goes on.

    It goes on if it stands among the best 1 / reduction_factor of the search trials that had reached the rung when it
    did: rounded up with `successive_halving`, so that the first one goes on, rounded down with `asha`, where nothing
    is lost by waiting. So the verdict is a function of the journal up to that validation: asked again after a kill,
    with more trials there by then, it is the same. References and replicates go on always and take no place from
    others.
    """
    trial = state.trials[number]
    if experiment.scheduler == "replay":
        assert experiment.replay is not None
        return (
            Decision.STOP if course_of(experiment.replay).pruned_at.get(number) == trial.patches else Decision.CONTINUE
        )
    if experiment.scheduler == "none" or trial.proposed.role != "search" or trial.patches not in experiment.rungs:
        return Decision.CONTINUE
    if trial.promoted == trial.patches:
        return Decision.CONTINUE
    here, arrived = trial.score_at(trial.patches), trial.arrivals[-1] + 1
    assert here is not None
    others = [score for other in _search_trials(state) if (score := other.score_at(trial.patches, arrived)) is not None]
    better = sum(score > here for score in others)
    if experiment.scheduler == "asha":
        return Decision.CONTINUE if better < math.floor(len(others) / experiment.reduction_factor) else Decision.PAUSE
    return Decision.CONTINUE if better < math.ceil(len(others) / experiment.reduction_factor) else Decision.STOP


def promotable(state: StudyState, experiment: Experiment, *, last: bool = False) -> int | None:
    """The paused trial that a free slot goes on with: of the highest rung that has one, the best.

    Args:
        last: no new trial will come. The share of the best is then rounded up, so that every search ends with
            trials at the full budget, however few it had.
    """
    rounded = math.ceil if last else math.floor
    for rung in reversed(experiment.rungs):
        order = _order(state, rung)
        for trial in order[: rounded(len(order) / experiment.reduction_factor)]:
            if trial.status == "paused" and trial.patches == rung:
                return trial.number
    return None


def hopeless(state: StudyState, experiment: Experiment, asked: int) -> list[int]:
    """Paused trials that will not be promoted even if all that may still reach their rung are worse."""
    searched = _search_trials(state)
    if not any(trial.status == "paused" for trial in searched):
        return []
    searching = sum(not (t.ended or t.counts or t.is_replicate) for t in state.trials.values())
    unborn = max(0, asked - state.counted - searching)
    found: list[int] = []
    for rung in experiment.rungs:
        order = _order(state, rung)
        on_their_way = sum(not t.ended and t.score_at(rung) is None for t in searched)  # running, or paused below
        places = math.ceil((len(order) + unborn + on_their_way) / experiment.reduction_factor)
        found += [t.number for t in order[places:] if t.status == "paused" and t.patches == rung]
    return found


def _search_trials(state: StudyState) -> list[TrialState]:
    return [trial for trial in state.trials.values() if trial.proposed.role == "search"]


def _order(state: StudyState, rung: int) -> list[TrialState]:
    """Every search trial that reached a rung, the best there first; of equal ones the earlier."""
    there = [(-score, t.number, t) for t in _search_trials(state) if (score := t.score_at(rung)) is not None]
    return [trial for _, _, trial in sorted(there, key=lambda one: one[:2])]
