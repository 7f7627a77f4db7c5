"""What a report is made from: the journal, folded once, and how the study stands."""

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
    """One owner's time with the study."""

    start: SessionStarted
    last: float
    """Unix time of its last event."""
    end: SessionEnded | None
    """None while it runs, or after it was killed."""

    @property
    def seconds(self) -> float:
        return max(0.0, self.last - self.start.time)


@dataclass(frozen=True)
class StudyRecord:
    """A study as its journal tells it."""

    folder: StudyFolder
    state: StudyState
    sessions: Sequence[SessionSummary]
    owner: str | None
    """The live process that owns it, in words."""
    mean_loads: Mapping[str, float] = field(default_factory=dict)
    """Of the trials' devices, over all validations, by what was measured."""

    @property
    def opened(self) -> StudyOpened:
        assert self.state.opened is not None
        return self.state.opened

    @cached_property
    def phase(self) -> str:
        """running, complete, exhausted, interrupted, terminated, timeout, failures or died."""
        if self.owner is not None:
            return "running"
        return self.state.ended.reason if self.state.ended else "died"

    @cached_property
    def bicubic(self) -> float:
        """Of bicubic enlargement on the validation crops [dB]."""
        return self.state.bicubic[OBJECTIVE]

    @cached_property
    def space(self) -> Space:
        return recorded_space(self.opened.question["space"])

    @cached_property
    def swept(self) -> list[str]:
        return self.state.swept

    @cached_property
    def base(self) -> TrialConfig:
        """What every trial has that the search does not move, but for the seed, of which each trial has its own."""
        return TrialConfig.from_recorded({**self.opened.question["base"], "seed": 0})

    @cached_property
    def searched(self) -> list[TrialState]:
        """Every trial but the replicates."""
        return [t for t in self.state.trials.values() if not t.is_replicate]

    @cached_property
    def references(self) -> list[TrialState]:
        return [t for t in self.searched if t.is_reference]

    @cached_property
    def best(self) -> TrialState | None:
        """The winner, so far."""
        return self.state.best()

    @cached_property
    def best_reference(self) -> TrialState | None:
        finished = [t for t in self.references if t.status == "finished"]
        return max(finished, key=lambda t: t.score or 0.0, default=None)

    @cached_property
    def status(self) -> dict[int, str]:
        """How each trial stands; one that nobody trains any more is half done."""
        alive = self.owner is not None
        half = {"running": "half done", "waiting": "half done"}
        return {n: t.status if alive else half.get(t.status, t.status) for n, t in self.state.trials.items()}


def record_of(folder: StudyFolder, events: Iterable[Event], owner: str | None) -> StudyRecord:
    """The record that these events are.

    Raises:
        SuiteError: they do not even open a study.
    """
    sessions: list[SessionSummary] = []
    loads: dict[str, _Mean] = {}
    state = fold(_noting(events, sessions, loads))
    if state.opened is None:
        raise SuiteError(f"study {folder.study!r} has recorded nothing yet; python -m study.status says what it does")
    means = {what: mean.total / mean.count for what, mean in sorted(loads.items())}
    return StudyRecord(folder, state, tuple(sessions), owner, means)


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0


def _noting(events: Iterable[Event], sessions: list[SessionSummary], loads: dict[str, _Mean]) -> Iterator[Event]:
    """The events as they are, with a note of what the state does not keep: each session's times, the trials' loads."""
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
    """A trial in a few words."""
    proposed = trial.proposed
    if trial.is_replicate:
        return trial.label
    return f"{proposed.name} (trial {trial.number})" if trial.is_reference else f"trial {trial.number}"


def short(name: str) -> str:
    """The last part of a dotted name, or of several that move together."""
    return " · ".join(part.rpartition(".")[2] for part in name.split("+"))


def moment(seconds: float) -> str:
    """A Unix time for people, the same on every machine."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def duration_of(seconds: float) -> str:
    """Seconds as people say them: 48 s, 3.2 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
