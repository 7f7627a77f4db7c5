"""How far the replicates have come that a verdict rests on, and which of them failed: from the state alone, at once."""

from collections.abc import Iterable, Mapping

from study.question.experiment import BASE
from study.record.events import Failed
from study.record.state import StudyState, TrialState
from study.search.replicates import finalists

_LONGEST = 160
"""Signs of a reason that are shown."""


def comparisons(state: StudyState) -> Mapping[str, list[list[str]]]:
    """What the experiment says is to be compared: question -> pairs of names."""
    assert state.opened is not None
    return dict(state.opened.question.get("search", {}).get("comparisons", ()))


def replicated_settings(state: StudyState) -> dict[str, TrialState]:
    """Every setting that is trained again, by its name; the base configuration has its own where it is asked about."""
    candidates = state.candidates()
    if not candidates:
        return {}
    named, asked = finalists(state), comparisons(state)
    return {BASE if asked and trial is candidates[0] else name: trial for name, trial in named.items()}


def replicate_title(name: str, trial: TrialState) -> str:
    """A setting in words."""
    return f"the {name} setting" if trial.is_reference or name == BASE else f"trial {trial.number}"


def interim(state: StudyState) -> str:
    """`interim, 2 of 3 seeds` until every finalist and reference has ended with every seed; then, and for a study
    without replicates, nothing. Where settings were named beforehand the study's own seed is one of them."""
    asked = state.asked_for("replicates", 0)
    ended = [{seed for seed, t in state.replicates_of(trial.number).items() if t.ended}
             for trial in replicated_settings(state).values()]  # fmt: skip
    done = sum(all(seed in of for of in ended) for seed in range(1, asked + 1))
    if not asked or not ended or done == asked:
        return ""
    own = bool(comparisons(state))
    return f"interim, {done + own} of {asked + own} seeds"


def is_lost(state: StudyState, trial: TrialState) -> bool:
    """Whether it has failed with every fresh seed that it was trained with so far."""
    ended = [t for t in state.replicates_of(trial.number).values() if t.ended]
    return bool(ended) and all(t.status == "failed" for t in ended)


def next_candidate(state: StudyState) -> TrialState | None:
    """The first of the ranking that could take the place of a winner that is lost."""
    best = state.best()
    finished = (t for t in state.ranking() if t.status == "finished" and not t.is_reference)
    return next((t for t in finished if t is not best and not is_lost(state, t)), None)


def failures(state: StudyState) -> list[str]:
    """What failed of all that a verdict rests on, and why, in words; the winner first."""
    best, named = state.best(), replicated_settings(state)
    of_winner = [_failure(state, name, trial) for name, trial in named.items() if trial is best]
    others = [_failure(state, name, trial) for name, trial in named.items() if trial is not best]
    unfinished = [
        f"the {t.proposed.name} setting failed in the search ({causes([t])}): it is in no comparison"
        for t in state.trials.values()
        if t.is_reference and t.status == "failed"
    ]
    return [line for line in (*of_winner, *others, *unfinished) if line]


def lost_winner(state: StudyState) -> str:
    """What is to be said of a winner that failed with every fresh seed; nothing of another one."""
    best = state.best()
    if best is None or not is_lost(state, best) or comparisons(state):
        return ""
    return _failure(state, "", best)


def _failure(state: StudyState, name: str, trial: TrialState) -> str:
    ended = [t for t in state.replicates_of(trial.number).values() if t.ended]
    failed = [t for t in ended if t.status == "failed"]
    if not failed:
        return ""
    own = bool(comparisons(state))
    if own or not is_lost(state, trial):
        return (
            f"{replicate_title(name, trial)} failed with {len(failed)} of {len(ended) + own} seeds ({causes(failed)})"
        )
    all_ended = len(ended) >= state.asked_for("replicates", 0)
    so_far = "" if all_ended else " so far"
    count = f"{len(failed)} of {len(ended)}"
    text = f"{replicate_title(name, trial)} failed with {count} fresh seeds{so_far} ({causes(failed)})"
    if trial.is_reference:
        return f"{text}: it cannot be compared, and Holm's procedure counts it all the same"
    if trial is not state.best():
        return f"{text}: it cannot be chosen"
    if not all_ended:
        return f"{text}: no verdict yet"
    after = next_candidate(state)
    candidate = f"next candidate: trial {after.number}" if after else "there is no other candidate"
    return f"{text}: no verdict; {candidate}"


def causes(failed: Iterable[TrialState]) -> str:
    """Why trials failed: each kind of cause with the first reason given for it."""
    found: dict[str, str] = {}
    for trial in failed:
        if isinstance(trial.end, Failed):
            found.setdefault(trial.end.cause, " ".join(trial.end.reason.split()))
    return "; ".join(f"{cause}: {_short(reason)}" if reason else cause for cause, reason in found.items())


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST else f"{reason[:_LONGEST]}…"
