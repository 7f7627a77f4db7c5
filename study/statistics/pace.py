"""How fast a study trains, how much is left, and what pruning saved: pure functions of the events so far."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from study.record.events import (
    Checkpointed,
    Event,
    Failed,
    Finished,
    Paused,
    Pruned,
    Started,
    Ticked,
    Validated,
    WorkerLost,
)
from study.record.state import StudyState, TrialState


@dataclass(frozen=True, slots=True)
class Lap:
    """A trial on its slot, up to its latest event. The screen's helper files store these fields by name."""

    slot: int
    first: int
    """Patches that the trial had when it took the slot."""
    begun: float
    """When it took the slot: Unix time [s], by the clock of the machine that trains it."""
    patches: int
    """Patches that it has now."""
    told: float
    """When it reported these patches: Unix time [s], by the same clock."""

    @property
    def rate(self) -> float:
        """Patches per second since the trial took the slot; 0 before its first report."""
        seconds = self.told - self.begun
        return (self.patches - self.first) / seconds if seconds > 0 else 0.0


def follow(laps: Mapping[int, Lap], event: Event) -> Mapping[int, Lap]:
    """The trials on a slot, by number, after one more event; `laps` is not changed."""
    match event:
        case Started():
            return {**laps, event.trial: Lap(event.slot, event.patches, event.time, event.patches, event.time)}
        case Ticked() | Validated() | Checkpointed() if event.trial in laps:
            return {**laps, event.trial: replace(laps[event.trial], patches=event.patches, told=event.time)}
        case Paused() | Finished() | Pruned() | Failed() | WorkerLost():
            return {number: lap for number, lap in laps.items() if number != event.trial}
    return laps


def budget_of(trial: TrialState) -> int:
    """The full budget of a trial, in patches."""
    return int(trial.proposed.config["train"]["budget_patches"])


def trained(state: StudyState, laps: Mapping[int, Lap]) -> int:
    """Patches that the current session has trained, over all trials."""
    if state.session is None:
        return 0

    total = 0
    for trial in state.trials.values():
        starts = [start.patches for start in trial.starts if start.epoch == state.session.epoch]
        if starts:
            total += max(0, reached(trial, laps) - starts[0])
    return total


def reached(trial: TrialState, laps: Mapping[int, Lap]) -> int:
    """Patches that a trial has been trained for, by its latest validation, checkpoint or tick."""
    lap = laps.get(trial.number)
    return max(trial.patches, trial.checkpoint, lap.patches if lap else 0)


def saved(state: StudyState) -> int:
    """Patches that pruning saved: the rest of the budgets of pruned and paused trials."""
    return sum(budget_of(t) - t.patches for t in state.trials.values() if t.status in ("pruned", "paused"))


def saved_wall_seconds(state: StudyState, rate: float) -> float:
    """About how many seconds longer the study would have taken without pruning; 0 while the rate is unknown.

    Args:
        rate: patches per second of wall time, over all slots together, as `patches_per_second` returns it.
    """
    return saved(state) / rate if rate else 0.0


def replicates_to_come(state: StudyState) -> int:
    """Number of replicates that have not begun: the missing seeds of each present finalist and each reference.

    A failed reference gets no replicates. If the search continues after its replicates, the finalists may change.
    """
    assert state.opened is not None
    question = state.opened.question
    search = question.get("search", {})
    seeds = int(search.get("replicates", 0))

    candidates = state.candidates()
    references = [trial for trial in state.trials.values() if trial.is_reference]
    settings = [*candidates, *(trial for trial in references if trial.status != "failed")]
    missing = sum(max(0, seeds - len(state.replicates_of(trial.number))) for trial in settings)

    unknown_finalists = int(search.get("finalists", 1)) - len(candidates)
    unknown_references = len(question.get("references", {})) - len(references)
    return missing + seeds * max(0, unknown_finalists + unknown_references)


def to_do(state: StudyState, asked: int, laps: Mapping[int, Lap]) -> float:
    """An estimate of the patches still to be trained, including replicates and the rest of the current trials.

    A trial of the search is expected to train for the mean number of patches of the trials before it, pruned ones
    included. A trial that already has more is expected to train to its full budget.

    Args:
        asked: number of search trials that the study is to count.
    """
    assert state.opened is not None
    budget = float(state.opened.question["base"]["train.budget_patches"])
    counted = [trial.patches for trial in state.trials.values() if trial.proposed.role == "search" and trial.counts]
    expected = (sum(counted) + budget) / (len(counted) + 1)

    current_search_trials = 0
    patches_left = 0.0
    for trial in state.trials.values():
        if trial.ended or trial.counts:
            continue
        if not trial.is_replicate:
            current_search_trials += 1
        done = reached(trial, laps)
        stops_early = trial.proposed.role == "search" and done < expected
        patches_left += (expected if stops_early else budget_of(trial)) - done

    begun_references = {trial.proposed.name for trial in state.trials.values() if trial.is_reference}
    references = len(state.opened.question.get("references", {})) - len(begun_references)
    search_trials = max(0, asked - state.counted - current_search_trials - references)
    return patches_left + search_trials * expected + (references + replicates_to_come(state)) * budget


def seconds_left(state: StudyState, asked: int, laps: Mapping[int, Lap], now: float) -> float | None:
    """Seconds until the study is complete, at the pace of this session; None while the pace is unknown."""
    pace = patches_per_second(state, laps, now)
    return to_do(state, asked, laps) / pace if pace else None


def patches_per_second(state: StudyState, laps: Mapping[int, Lap], now: float) -> float:
    """Patches per second of wall time since this session began, over all slots; 0 while nothing is known.

    The time includes everything that is not training.
    """
    if state.session is None or now <= state.session.time:
        return 0.0
    return trained(state, laps) / (now - state.session.time)
