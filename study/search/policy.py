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

    Apply the event to the state and call again, until the result is a `Start` or None. The order of priority: a
    half-done trial, the end of paused trials that cannot be promoted any more, a promotion, a reference, a proposal of
    the sampler. After the search: the end of the trials that are still paused, then the replicates.

    Args:
        asked: number of search trials that the study is to count.
        now: time of the event, Unix [s].
        running: numbers of the trials that hold a slot. A paused trial among them is still writing its checkpoint.
        retries: number of lost workers that a trial survives.
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
    """The first trial that has neither ended nor paused and holds no slot. A trial that has not started counts."""
    for trial in state.trials.values():
        if not trial.ended and trial.status != "paused" and trial.number not in running:
            return trial
    return None


def _step_of(
    state: StudyState, experiment: Experiment, trial: TrialState, now: float, retries: int
) -> Start | TrialEvent:
    """The next step of a half-done trial: its start, unless lost workers or a rung end or pause it first."""
    if len(trial.losses) > retries:
        reason = f"{len(trial.losses)} workers were lost with it, the last one: {trial.losses[-1].reason}"
        return Failed(time=now, trial=trial.number, cause="worker lost", reason=reason)
    # The process may have been killed between the validation at a rung and its consequence.
    pending = consequence(state, experiment, trial.number, now=now) if trial.curve else None
    return pending or Start(trial.number)


def _begun(state: StudyState) -> int:
    """The number of search trials that count or may still come to count."""
    return sum((t.counts or not t.ended) and not t.is_replicate for t in state.trials.values())


def _reference(state: StudyState, experiment: Experiment, now: float) -> Proposed | None:
    """The proposal of the first reference that has no trial yet; None if all have one."""
    begun = {trial.proposed.name for trial in state.trials.values() if trial.is_reference}
    for name, config in experiment.references.items():
        if name not in begun:
            return _proposed(state, config, now, role="reference", name=name)
    return None


def _proposal(state: StudyState, experiment: Experiment, now: float) -> Proposed | None:
    """The sampler's proposal; None if every configuration of the space has been tried."""
    point = propose(state, experiment, len(state.trials))
    if point is None:
        return None
    values = experiment.space.settings(point)
    return _proposed(state, experiment.base.with_values(values), now, values=values)


def _after_the_search(
    state: StudyState, experiment: Experiment, now: float, running: Collection[int]
) -> TrialEvent | None:
    """The end of a trial that is still paused, else the next replicate; None if there is nothing to do now."""
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
    """The proposal of a new trial, with the next number."""
    assert state.opened is not None
    # All search trials share one seed: they start from the same weights and see the same patches (promise 1).
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
    """The end of a trial at the rung that it has reached."""
    trial = state.trials[number]
    reason = (
        f"{trial.score:.2f} dB after {trial.patches} patches is not among the best "
        f"1/{experiment.reduction_factor:g} there"
    )
    return Pruned(time=now, trial=number, patches=trial.patches, reason=reason)
