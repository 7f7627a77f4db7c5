"""How far the replicates of a verdict have come, and which settings failed: computed from the state alone."""

from collections.abc import Mapping

from study.question.experiment import BASE
from study.record.state import StudyState, TrialState
from study.search.replicates import finalists


def comparisons(state: StudyState) -> Mapping[str, list[list[str]]]:
    """The comparisons that the experiment declares: pairs of setting names, by question. Empty if it declares none."""
    assert state.opened is not None
    return dict(state.opened.question.get("search", {}).get("comparisons", ()))


def replicated_settings(state: StudyState) -> dict[str, TrialState]:
    """Every setting that is trained with fresh seeds, by name.

    The names are `finalist k` and those of the references. If the experiment declares comparisons, the first finalist
    is the base configuration and is called `base`.
    """
    candidates = state.candidates()
    if not candidates:
        return {}
    settings = finalists(state)
    if not comparisons(state):
        return settings
    return {BASE if trial is candidates[0] else name: trial for name, trial in settings.items()}


def replicate_title(name: str, trial: TrialState) -> str:
    """The name of a setting for people: that of a reference or `base`, else `trial 7`."""
    if name == BASE:
        return BASE
    return trial.proposed.name if trial.is_reference else f"trial {trial.number}"


def interim(state: StudyState) -> str:
    """`interim, 2 of 3 seeds` until every finalist and reference has ended with every seed; then empty.

    It is empty, too, for a study without replicates. If the experiment declares comparisons, the study's own seed
    counts as one of the seeds.
    """
    fresh_seeds = state.asked_for("replicates", 0)
    ended_by_setting = [
        {seed for seed, replicate in state.replicates_of(trial.number).items() if replicate.ended}
        for trial in replicated_settings(state).values()
    ]
    if not fresh_seeds or not ended_by_setting:
        return ""

    complete = sum(all(seed in ended for ended in ended_by_setting) for seed in range(1, fresh_seeds + 1))
    if complete == fresh_seeds:
        return ""
    own_seed = 1 if comparisons(state) else 0
    return f"interim, {complete + own_seed} of {fresh_seeds + own_seed} seeds"


def is_lost(state: StudyState, trial: TrialState) -> bool:
    """Whether a setting has failed with every fresh seed that it has been trained with so far."""
    ended = [replicate for replicate in state.replicates_of(trial.number).values() if replicate.ended]
    return bool(ended) and all(replicate.status == "failed" for replicate in ended)


def next_candidate(state: StudyState) -> TrialState | None:
    """The first trial of the ranking that could take the place of a lost winner; None if there is none."""
    best = state.best()
    for trial in state.ranking():
        if trial.status != "finished" or trial.is_reference or trial is best:
            continue
        if not is_lost(state, trial):
            return trial
    return None
