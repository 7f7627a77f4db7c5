"""Which trials continue at a rung, and which paused trials are promoted: pure functions of the study's state.

`successive_halving` stops a trial that is not among the best of a rung when it arrives, as Optuna's pruner of that
name does. `asha` (asynchronous successive halving, Li et al., arXiv 1810.05934) pauses it there with its checkpoint.
When worse trials arrive later, a paused trial may come to be among the best. It then resumes from its checkpoint.
"""

import math
from enum import Enum, auto

from study.question.experiment import Experiment
from study.record.course import course_of
from study.record.state import StudyState, TrialState


class Decision(Enum):
    """What happens to a trial after a validation."""

    CONTINUE = auto()
    PAUSE = auto()
    STOP = auto()


def decide(state: StudyState, experiment: Experiment, number: int) -> Decision:
    """The decision on a trial that has just been validated.

    At a rung a search trial continues if it is among the best 1 / reduction_factor of the search trials that had
    reached the rung when it did. The number of places is rounded up with `successive_halving`, so that the first trial
    continues. It is rounded down with `asha`, because a paused trial loses nothing. References and replicates always
    continue and take no places.

    The decision depends on the journal up to that validation only. It is therefore the same if it is made again after a
    kill, when more trials have reached the rung.
    """
    trial = state.trials[number]
    if experiment.scheduler == "replay":
        assert experiment.replay is not None
        stops_at = course_of(experiment.replay).pruned_at.get(number)
        return Decision.STOP if stops_at == trial.patches else Decision.CONTINUE
    if experiment.scheduler == "none" or trial.proposed.role != "search" or trial.patches not in experiment.rungs:
        return Decision.CONTINUE
    if trial.promoted == trial.patches:
        return Decision.CONTINUE

    own_score = trial.score_at(trial.patches)
    assert own_score is not None
    until = trial.arrivals[-1] + 1
    scores = [other.score_at(trial.patches, until) for other in _search_trials(state)]
    arrived = [score for score in scores if score is not None]

    better = sum(score > own_score for score in arrived)
    share = len(arrived) / experiment.reduction_factor
    if experiment.scheduler == "asha":
        return Decision.CONTINUE if better < math.floor(share) else Decision.PAUSE
    return Decision.CONTINUE if better < math.ceil(share) else Decision.STOP


def promotable(state: StudyState, experiment: Experiment, *, last: bool = False) -> int | None:
    """The number of the paused trial to promote: the best one at the highest rung that has any. None if there is none.

    Args:
        last: no new trial will come. The number of places is then rounded up, so that every search, however small,
            ends with trials at the full budget.
    """
    rounded = math.ceil if last else math.floor
    for rung in reversed(experiment.rungs):
        order = _order(state, rung)
        for trial in order[: rounded(len(order) / experiment.reduction_factor)]:
            if trial.status == "paused" and trial.patches == rung:
                return trial.number
    return None


def hopeless(state: StudyState, experiment: Experiment, asked: int) -> list[int]:
    """Paused trials that cannot be promoted any more, even if every trial still to reach their rung is worse.

    Args:
        asked: number of search trials that the study is to count.
    """
    searched = _search_trials(state)
    if not any(trial.status == "paused" for trial in searched):
        return []

    searching = sum(not (t.ended or t.counts or t.is_replicate) for t in state.trials.values())
    to_come = max(0, asked - state.counted - searching)

    numbers: list[int] = []
    for rung in experiment.rungs:
        order = _order(state, rung)
        below = sum(not t.ended and t.score_at(rung) is None for t in searched)  # running, or paused at a lower rung
        places = math.ceil((len(order) + to_come + below) / experiment.reduction_factor)
        numbers += [t.number for t in order[places:] if t.status == "paused" and t.patches == rung]
    return numbers


def _search_trials(state: StudyState) -> list[TrialState]:
    return [trial for trial in state.trials.values() if trial.proposed.role == "search"]


def _order(state: StudyState, rung: int) -> list[TrialState]:
    """The search trials that reached a rung, by their score there, the best first. Ties: the lower number first."""
    ranked = []
    for trial in _search_trials(state):
        score = trial.score_at(rung)
        if score is not None:
            ranked.append((-score, trial.number, trial))
    ranked.sort(key=lambda entry: entry[:2])
    return [trial for _, _, trial in ranked]
