"""How fast a study goes, what is left of it, and what pruning saved: pure functions of what was told so far."""

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
    """A trial on its slot, as far as ticks and validations told. Times are of the machine that trains it."""

    slot: int
    first: int
    """Patches at which it took the slot."""
    begun: float
    patches: int
    told: float
    """When it told these patches."""

    @property
    def rate(self) -> float:
        """Patches per second since it took the slot; 0 before it told any."""
        return (self.patches - self.first) / (self.told - self.begun) if self.told > self.begun else 0.0


def follow(laps: Mapping[int, Lap], event: Event) -> Mapping[int, Lap]:
    """The trials on a slot, by number, after one more event; `laps` stays as it is."""
    match event:
        case Started():
            return {**laps, event.trial: Lap(event.slot, event.patches, event.time, event.patches, event.time)}
        case Ticked() | Validated() | Checkpointed() if event.trial in laps:
            return {**laps, event.trial: replace(laps[event.trial], patches=event.patches, told=event.time)}
        case Paused() | Finished() | Pruned() | Failed() | WorkerLost():
            return {number: lap for number, lap in laps.items() if number != event.trial}
    return laps


def budget_of(trial: TrialState) -> int:
    """Patches of the trial's full budget."""
    return int(trial.proposed.config["train"]["budget_patches"])


def trained(state: StudyState, laps: Mapping[int, Lap]) -> int:
    """Patches that this session has trained."""
    done = 0
    for trial in state.trials.values():
        starts = [start.patches for start in trial.starts if state.session and start.epoch == state.session.epoch]
        if starts:
            done += max(0, reached(trial, laps) - starts[0])
    return done


def reached(trial: TrialState, laps: Mapping[int, Lap]) -> int:
    """Patches that a trial has come to, as far as anything told."""
    lap = laps.get(trial.number)
    return max(trial.patches, trial.checkpoint, lap.patches if lap else 0)


def saved(state: StudyState) -> int:
    """Patches that pruned and paused trials were not trained for."""
    return sum(budget_of(t) - t.patches for t in state.trials.values() if t.status in ("pruned", "paused"))


def saved_wall_seconds(state: StudyState, rate: float) -> float:
    """About how much longer the study would have taken with those patches; 0 while the rate is not known.

    Args:
        rate: patches per second of wall time of all slots together, as `patches_per_second`: with eight slots an hour
            of the clock saves eight hours of slots.
    """
    return saved(state) / rate if rate else 0.0


def replicates_to_come(state: StudyState) -> int:
    """Replicates that have not begun: the missing seeds of every finalist, as the search stands, and reference.

    A reference that failed has none. Where the search went on after its replicates, others may be the finalists by now.
    """
    assert state.opened is not None
    question = state.opened.question
    search = question.get("search", {})
    seeds, candidates = int(search.get("replicates", 0)), state.candidates()
    references = [t for t in state.trials.values() if t.is_reference]
    judged = [*candidates, *(t for t in references if t.status != "failed")]
    unknown = int(search.get("finalists", 1)) - len(candidates)
    unknown += len(question.get("references", {})) - len(references)
    return sum(max(0, seeds - len(state.replicates_of(t.number))) for t in judged) + seeds * max(0, unknown)


def to_do(state: StudyState, asked: int, laps: Mapping[int, Lap]) -> float:
    """Patches still to be trained, as far as can be foreseen: replicates too, and what is left of trials under way.

    A trial of the search is expected to be trained as far as those before it were on average, pruned ones included;
    one that has come farther, to its budget.
    """
    assert state.opened is not None
    budget = float(state.opened.question["base"]["train.budget_patches"])
    over = [t.patches for t in state.trials.values() if t.proposed.role == "search" and t.counts]
    usual = (sum(over) + budget) / (len(over) + 1)
    under_way, left = 0, 0.0
    for trial in state.trials.values():
        if trial.ended or trial.counts:
            continue
        under_way += not trial.is_replicate
        done, full = reached(trial, laps), budget_of(trial)
        left += (usual if trial.proposed.role == "search" and done < usual else full) - done
    names = {t.proposed.name for t in state.trials.values() if t.is_reference}
    references = len(state.opened.question.get("references", {})) - len(names)
    search = max(0, asked - state.counted - under_way - references)
    return left + search * usual + (references + replicates_to_come(state)) * budget


def seconds_left(state: StudyState, asked: int, laps: Mapping[int, Lap], now: float) -> float | None:
    """Until all is trained, at the pace of this session so far; None while that is not known."""
    pace = patches_per_second(state, laps, now)
    return to_do(state, asked, laps) / pace if pace else None


def patches_per_second(state: StudyState, laps: Mapping[int, Lap], now: float) -> float:
    """Of all slots together since this session began, with all that is not training; 0 while nothing is known."""
    if state.session is None or now <= state.session.time:
        return 0.0
    return trained(state, laps) / (now - state.session.time)
