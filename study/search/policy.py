"""What a study does next: one pure function of its state, for the coordinator, the simulation and the dry run."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.record.events import Failed, Paused, Proposed, Pruned, Resumed, TrialEvent
from study.record.state import StudyState, TrialState
from study.search.replicates import due, trial_seed
from study.search.sampler import propose
from study.search.scheduler import Decision, decide, hopeless, promotable


@dataclass(frozen=True, slots=True)
class Start:
    """Train this trial on the free slot, from its checkpoint if it has one."""

    trial: int


def next_step(
    state: StudyState,
    experiment: Experiment,
    asked: int,
    *,
    now: float,
    running: Collection[int] = (),
    retries: int = 0,
) -> Start | TrialEvent | None:
    """The event to record next, or the trial to start; None when a slot has nothing to do.

    Apply the event to the state and ask again, until it is a `Start` or None. The order of choice: a half-done trial,
    paused trials that have become hopeless, a promotion, a reference, a proposal of the sampler. After the search come
    the end of the trials that are still paused and the replicates.

    Args:
        asked: search trials that the study shall count.
        now: time of the event, Unix [s].
        running: numbers of the trials that hold a slot. A paused one among them still writes its checkpoint.
        retries: how many lost workers a trial survives.
    """
    half_done = _first_half_done(state, running)
    if half_done is not None:
        return _step_of(state, experiment, half_done, now, retries)

    for number in hopeless(state, experiment, asked):
        if number not in running:
            return _pruned(state, experiment, number, now)

    is_searching = any(not (t.ended or t.counts or t.is_replicate) for t in state.trials.values())
    is_full = _begun(state) >= asked
    promoted = promotable(state, experiment, last=is_full and not is_searching)
    if promoted is None and not is_full:
        proposed = _reference(state, experiment, now) or _proposal(state, experiment, now)
        if proposed is not None:
            return proposed
        # Every configuration of the space has been tried: no new trial will come.
        promoted = promotable(state, experiment, last=not is_searching)
    if promoted is not None:
        if promoted in running:
            return None
        return Resumed(time=now, trial=promoted, patches=state.trials[promoted].patches)

    return None if is_searching else _after_the_search(state, experiment, now, running)


def consequence(state: StudyState, experiment: Experiment, number: int, *, now: float) -> Paused | Pruned | None:
    """The event that follows from a trial's last validation; None if the trial continues."""
    match decide(state, experiment, number):
        case Decision.CONTINUE:
            return None
        case Decision.PAUSE:
            return Paused(time=now, trial=number, patches=state.trials[number].patches)
        case Decision.STOP:
            return _pruned(state, experiment, number, now)


def _first_half_done(state: StudyState, running: Collection[int]) -> TrialState | None:
    """The first trial that is neither ended nor paused and holds no slot; a new one is half done too."""
    for trial in state.trials.values():
        if not trial.ended and trial.status != "paused" and trial.number not in running:
            return trial
    return None


def _step_of(
    state: StudyState, experiment: Experiment, trial: TrialState, now: float, retries: int
) -> Start | TrialEvent:
    """The next step of a half-done trial: its start, unless a loss or a rung ends or pauses it first."""
    if len(trial.losses) > retries:
        reason = f"{len(trial.losses)} workers were lost with it, the last one: {trial.losses[-1].reason}"
        return Failed(time=now, trial=trial.number, cause="worker lost", reason=reason)
    # A kill may have come between the validation at a rung and its consequence.
    pending = consequence(state, experiment, trial.number, now=now) if trial.curve else None
    return pending or Start(trial.number)


def _begun(state: StudyState) -> int:
    """Trials of the search that are counted or may come to be."""
    return sum((t.counts or not t.ended) and not t.is_replicate for t in state.trials.values())


def _reference(state: StudyState, experiment: Experiment, now: float) -> Proposed | None:
    """The first reference that has not been begun."""
    known = {trial.proposed.name for trial in state.trials.values() if trial.is_reference}
    for name, config in experiment.references.items():
        if name not in known:
            return _proposed(state, config, now, role="reference", name=name)
    return None


def _proposal(state: StudyState, experiment: Experiment, now: float) -> Proposed | None:
    """What the sampler proposes; None when every configuration of the space has been tried."""
    point = propose(state, experiment, len(state.trials))
    if point is None:
        return None
    values = experiment.space.settings(point)
    return _proposed(state, experiment.base.with_values(values), now, values=values)


def _after_the_search(
    state: StudyState, experiment: Experiment, now: float, running: Collection[int]
) -> TrialEvent | None:
    """The end of a trial that is still paused, else the next replicate; None after all of them."""
    paused = [trial.number for trial in state.trials.values() if trial.status == "paused"]
    if any(number in running for number in paused):
        return None
    if paused:
        return _pruned(state, experiment, paused[0], now)
    replicate = due(state, experiment)
    if replicate is None:
        return None
    return _proposed(
        state,
        replicate.of.config,
        now,
        role="replicate",
        name=replicate.name,
        values=replicate.of.proposed.values,
        of=replicate.of.number,
        replicate=replicate.number,
    )


def _proposed(
    state: StudyState,
    config: TrialConfig,
    now: float,
    *,
    role: Literal["search", "reference", "replicate"] = "search",
    name: str = "",
    values: Mapping[str, object] | None = None,
    of: int | None = None,
    replicate: int = 0,
) -> Proposed:
    """A new trial, with the next number."""
    assert state.opened is not None
    # One seed for all: every search trial starts from the same weights and sees the same patches (contract 1).
    config = replace(config, seed=trial_seed(state.opened.seed, replicate))
    return Proposed(
        time=now,
        trial=len(state.trials),
        role=role,
        name=name,
        config=config.to_json(),
        config_hash=config.digest(),
        values=values or {},
        of=of,
        replicate=replicate,
    )


def _pruned(state: StudyState, experiment: Experiment, number: int, now: float) -> Pruned:
    trial = state.trials[number]
    reason = (
        f"{trial.score:.2f} dB after {trial.patches} patches is not among the best "
        f"1/{experiment.reduction_factor:g} there"
    )
    return Pruned(time=now, trial=number, patches=trial.patches, reason=reason)
