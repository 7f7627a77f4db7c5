"""Reads the journal once for the whole report, and adds what the study's state does not keep."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sr_core.errors import SuiteError
from study.question.config import TrialConfig
from study.question.space import Space, recorded_space
from study.record.events import Event, SessionEnded, SessionStarted, StudyOpened, Validated
from study.record.folder import StudyFolder
from study.record.state import OBJECTIVE, StudyState, TrialState, fold


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """One session of the study."""

    start: SessionStarted
    last: float
    """Unix time of its last event."""
    end: SessionEnded | None
    """None while the session runs, or if it was killed."""

    @property
    def seconds(self) -> float:
        """Duration of the session."""
        return max(0.0, self.last - self.start.time)


@dataclass(frozen=True)
class StudyRecord:
    """A study as recorded in its journal."""

    folder: StudyFolder
    state: StudyState
    sessions: Sequence[SessionSummary]
    owner: str | None
    """The live process that owns the study, in words; None if there is none."""
    mean_loads: Mapping[str, float] = field(default_factory=dict)
    """Mean loads of the trials' devices over all validations, by measured quantity."""

    @property
    def opened(self) -> StudyOpened:
        """The first event of the journal."""
        assert self.state.opened is not None
        return self.state.opened

    @cached_property
    def phase(self) -> str:
        """State of the study: running, complete, exhausted, interrupted, terminated, timeout, failures or died."""
        if self.owner is not None:
            return "running"
        return self.state.ended.reason if self.state.ended else "died"

    @cached_property
    def bicubic(self) -> float:
        """PSNR of bicubic enlargement on the validation crops, in dB."""
        return self.state.bicubic[OBJECTIVE]

    @cached_property
    def space(self) -> Space:
        """The search space."""
        return recorded_space(self.opened.question["space"])

    @cached_property
    def swept(self) -> list[str]:
        """Names of the hyperparameters that the search varies."""
        return self.state.swept

    @cached_property
    def base(self) -> TrialConfig:
        """The configuration that the search varies, with seed 0 because each trial has its own seed."""
        return TrialConfig.from_recorded({**self.opened.question["base"], "seed": 0})

    @cached_property
    def searched(self) -> list[TrialState]:
        """All trials except the replicates."""
        return [t for t in self.state.trials.values() if not t.is_replicate]

    @cached_property
    def references(self) -> list[TrialState]:
        """The trials of the reference settings."""
        return [t for t in self.searched if t.is_reference]

    @cached_property
    def best(self) -> TrialState | None:
        """The best trial of the search so far; None if none has finished."""
        return self.state.best()

    @cached_property
    def best_reference(self) -> TrialState | None:
        """The finished reference with the highest score; None if none has finished."""
        finished = [t for t in self.references if t.status == "finished"]
        return max(finished, key=lambda t: t.score or 0.0, default=None)

    @cached_property
    def status(self) -> dict[int, str]:
        """Status of each trial, by number. If the study does not run, an unfinished trial is "half done"."""
        statuses: dict[int, str] = {}
        for number, trial in self.state.trials.items():
            unfinished = trial.status in ("running", "waiting")
            statuses[number] = "half done" if unfinished and self.owner is None else trial.status
        return statuses


def record_of(folder: StudyFolder, events: Iterable[Event], owner: str | None) -> StudyRecord:
    """Return the record of a study from its events.

    Raises:
        SuiteError: the journal is empty.
    """
    sessions: list[SessionSummary] = []
    loads: dict[str, _Mean] = {}
    state = fold(_noting(events, sessions, loads))
    if state.opened is None:
        raise SuiteError(f"study {folder.study!r} has recorded nothing yet; see python -m study.status")
    means = {what: mean.total / mean.count for what, mean in sorted(loads.items())}
    return StudyRecord(folder, state, tuple(sessions), owner, means)


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0


def _noting(events: Iterable[Event], sessions: list[SessionSummary], loads: dict[str, _Mean]) -> Iterator[Event]:
    """Yield the events unchanged, and collect the times of the sessions and the loads of the devices."""
    for event in events:
        if isinstance(event, SessionStarted):
            sessions.append(SessionSummary(event, event.time, None))
        elif sessions:
            sessions[-1] = replace(sessions[-1], last=max(sessions[-1].last, event.time))
            if isinstance(event, SessionEnded):
                sessions[-1] = replace(sessions[-1], end=event)
        if isinstance(event, Validated):
            for what, value in event.load.items():
                mean = loads.setdefault(what, _Mean())
                mean.total += value
                mean.count += 1
        yield event


def title(trial: TrialState) -> str:
    """Return the name of a trial for headings."""
    if trial.is_replicate:
        return trial.label
    if trial.is_reference:
        return f"{trial.proposed.name} (trial {trial.number})"
    return f"trial {trial.number}"


def short(name: str) -> str:
    """Return the last part of a dotted name, or of each of several names joined by "+"."""
    return " · ".join(part.rpartition(".")[2] for part in name.split("+"))


def moment(seconds: float) -> str:
    """Return a Unix time as text in UTC, the same on every machine."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def duration_of(seconds: float) -> str:
    """Return a duration in words, such as 48 s, 3.2 min or 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
