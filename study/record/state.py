"""What a study has come to: a pure fold over its events, never stored beside them."""

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Literal

from study.question.config import TrialConfig
from study.record.events import (
    Checkpointed,
    Concluded,
    Event,
    Failed,
    Finished,
    MicroBatchReduced,
    Paused,
    Proposed,
    Pruned,
    Resumed,
    SessionEnded,
    SessionStarted,
    Started,
    StudyOpened,
    TrialEvent,
    Validated,
    Warned,
    WorkerLost,
)
from study.record.trial_map import TrialMap

Status = Literal["waiting", "running", "paused", "finished", "pruned", "failed"]
OBJECTIVE = "val/psnr"
FINALIST = re.compile(r"finalist \d+")
"""The names that replicates of search trials have in a journal."""
_ENDS: dict[type[Event], Status] = {Finished: "finished", Pruned: "pruned", Failed: "failed"}
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
_NO_NUMBERS: Mapping[str, float] = {}
"""Of all validations that no longer have any; a dict, so that it can be written as JSON as any other."""


@dataclass(frozen=True, slots=True)
class TrialState:
    """One trial, as far as it came."""

    proposed: Proposed
    status: Status = "waiting"
    curve: tuple[Validated, ...] = ()
    """Its validations. `seconds` is kept of the last one of each start, which says all that was counted since, and
    `load` of the last one alone: what else they told is in the journal."""
    arrivals: tuple[int, ...] = ()
    """For each point of the curve, how many validations of the study were recorded before it."""
    checkpoint: int = 0
    """Patches at the last checkpoint; 0 without one."""
    starts: tuple[Started, ...] = ()
    micro_batch_changes: tuple[tuple[int, int], ...] = ()
    """(patches, micro-batch): where memory ran out, and how many patches at once passed the network from there."""
    losses: tuple[WorkerLost, ...] = ()
    """Of workers that died or hung while they trained it."""
    promoted: int = 0
    """Patches of the last rung from which it went on after a pause; 0 if it never paused."""
    known_at_start: int = 0
    """How many points the curve had when it was last started."""
    end: Finished | Pruned | Failed | None = None

    @property
    def number(self) -> int:
        return self.proposed.trial

    @property
    def is_reference(self) -> bool:
        return self.proposed.role == "reference"

    @property
    def is_replicate(self) -> bool:
        return self.proposed.role == "replicate"

    @property
    def label(self) -> str:
        """What it is called wherever people see it; no two trials of a study share it.

        A replicate is named after the trial that it trains again: the place in the ranking that its journal calls
        `finalist 1` is another trial's once more trials were asked for.
        """
        proposed = self.proposed
        if self.is_replicate:
            again = f"trial {proposed.of}" if FINALIST.fullmatch(proposed.name) else proposed.name
            return f"{again} / seed {proposed.replicate}"
        return proposed.name if self.is_reference else f"trial {proposed.trial}"

    @property
    def ended(self) -> bool:
        return self.end is not None

    @property
    def counts(self) -> bool:
        """Whether it is one of the N of `--trials N`; a paused one is, as if it were pruned."""
        return self.status in ("finished", "pruned", "paused") and not self.is_replicate

    @property
    def config(self) -> TrialConfig:
        return TrialConfig.from_json(self.proposed.config)

    @property
    def patches(self) -> int:
        return self.curve[-1].patches if self.curve else 0

    @property
    def scores(self) -> Mapping[str, float]:
        """The metrics of its weights: those of its end if it finished, else of its last validation; empty before that.

        The two differ where a kill came between them and the bits of the rest were not repeated: the weights are those
        of the end.
        """
        last = self.curve[-1].scores if self.curve else _NOTHING
        return {**last, **self.end.scores} if isinstance(self.end, Finished) else last

    @property
    def score(self) -> float | None:
        """The objective, in dB; the trial's result only if it finished."""
        if isinstance(self.end, Finished) and OBJECTIVE in self.end.scores:
            return self.end.scores[OBJECTIVE]
        return self.curve[-1].scores[OBJECTIVE] if self.curve else None

    @property
    def last_repeated(self) -> bool:
        """Whether the last validation was known when the trial was last started, so that its end repeated it."""
        return isinstance(self.end, Finished) and 0 < len(self.curve) <= self.known_at_start

    def score_at(self, patches: int, before: float = math.inf) -> float | None:
        """The objective at exactly that many patches, in dB.

        Args:
            before: None too unless it was recorded among the study's first `before` validations.
        """
        here = (p.scores[OBJECTIVE] for p, n in zip(self.curve, self.arrivals, strict=True)
                if p.patches == patches and n < before)  # fmt: skip
        return next(here, None)

    def validated(self, point: Validated, before: int) -> "TrialState":
        """With one more point, which the study recorded after `before` others."""
        if not self.curve:
            return self._moved((point,), (before,), self.checkpoint)
        *earlier, last = self.curve
        counted_on = len(self.curve) > self.known_at_start
        kept = _kept(last, _NO_NUMBERS if counted_on else last.seconds)
        return self._moved((*earlier, kept, point), (*self.arrivals, before), self.checkpoint)

    def after(self, event: TrialEvent) -> "TrialState":
        """After an event that is neither its proposal nor a validation."""
        match event:
            case Checkpointed():
                return self._moved(self.curve, self.arrivals, event.patches)
            case Started():
                return replace(self, status="running", starts=(*self.starts, event), known_at_start=len(self.curve))
            case MicroBatchReduced():
                return replace(
                    self, micro_batch_changes=(*self.micro_batch_changes, (event.patches, event.micro_batch))
                )
            case WorkerLost():
                return replace(self, status="waiting", losses=(*self.losses, event))
            case Paused():
                return replace(self, status="paused")
            case Resumed():
                return replace(self, status="waiting", promoted=event.patches)
            case Finished() | Pruned() | Failed():
                curve = (*self.curve[:-1], *(_kept(point, point.seconds) for point in self.curve[-1:]))
                return replace(self, status=_ENDS[type(event)], end=event, curve=curve)
        raise TypeError(f"no rule for {type(event).__name__}")

    def _moved(self, curve: tuple[Validated, ...], arrivals: tuple[int, ...], checkpoint: int) -> "TrialState":
        """Written out: nearly every line of a journal ends here, and replace() takes 2.5 times as long."""
        return TrialState(
            self.proposed,
            self.status,
            curve,
            arrivals,
            checkpoint,
            self.starts,
            self.micro_batch_changes,
            self.losses,
            self.promoted,
            self.known_at_start,
            self.end,
        )


def _kept(point: Validated, seconds: Mapping[str, float]) -> Validated:
    """What is kept of a validation once another one or the end has come: its numbers, and these seconds.

    Journals are read line by line, so each line has keys of its own: a study of thousands of trials would hold as many
    copies of the names of its metrics.
    """
    return Validated(
        time=point.time,
        trial=point.trial,
        patches=point.patches,
        scores={sys.intern(name): value for name, value in point.scores.items()},
        loss=point.loss,
        learning_rate=point.learning_rate,
        seconds=seconds,
        load=_NO_NUMBERS,
    )


def _sharing(proposed: Proposed, other: Proposed) -> Proposed:
    """The same proposal; what its settings have in common with those of another trial is held once for both."""
    return replace(
        proposed,
        config=_in_common(proposed.config, other.config),
        values=_in_common(proposed.values, other.values),
    )


def _in_common(settings: Mapping[str, Any], others: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, made of the other ones' objects where both are written alike; so 1 and 1.0 stay what they are."""
    if repr(settings) == repr(others):
        return others
    found: dict[str, Any] = {}
    for name, value in settings.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found[sys.intern(name)] = _in_common(value, other)
        else:
            found[sys.intern(name)] = other if repr(value) == repr(other) else value
    return found


@dataclass(frozen=True, slots=True)
class StudyState:
    """Everything that decides what happens next."""

    opened: StudyOpened | None = None
    sessions: tuple[SessionStarted, ...] = ()
    """Every owner so far."""
    ended: SessionEnded | None = None
    """How the last session ended; None while one runs, or after one was killed."""
    concluded: Concluded | None = None
    trials: TrialMap[TrialState] = field(default_factory=TrialMap)
    validations: int = 0
    """Validations recorded, of all trials."""
    endings: tuple[int, ...] = ()
    """Trial numbers in the order in which they ended."""
    warnings: tuple[str, ...] = ()
    last_time: float = 0.0
    count: int = 0
    """Events so far."""
    _derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was computed from this state, which stays as it is: whoever asks next need not compute it again."""

    def apply(self, event: Event) -> "StudyState":
        """The state after one more event; self stays as it is."""
        return self._after((event,))

    def _after(self, events: Iterable[Event]) -> "StudyState":
        """One new state for all of them, which shares the trials that they do not touch with this one."""
        opened, sessions, ended, concluded = self.opened, self.sessions, self.ended, self.concluded
        changed: dict[int, TrialState] = {}
        endings: list[int] = []
        warnings: list[str] = []
        validations, last_time, count = self.validations, self.last_time, self.count
        for event in events:
            last_time, count = event.time, count + 1
            match event:
                case Validated():
                    trial = changed.get(event.trial) or self.trials[event.trial]
                    changed[event.trial] = trial.validated(event, validations)
                    validations += 1
                case Proposed():
                    first = next(chain(self.trials.values(), changed.values()), None)
                    changed[event.trial] = TrialState(_sharing(event, first.proposed) if first else event)
                case TrialEvent():
                    trial = changed.get(event.trial) or self.trials[event.trial]
                    changed[event.trial] = trial.after(event)
                    if isinstance(event, Finished | Pruned | Failed):
                        endings.append(event.trial)
                case StudyOpened():
                    opened = event
                case SessionStarted():
                    sessions, ended = (*sessions, event), None
                case SessionEnded():
                    ended = event
                case Concluded():
                    concluded = event
                case Warned():
                    warnings.append(event.message)
                case _:
                    raise TypeError(f"no rule for {type(event).__name__}")
        return StudyState(
            opened=opened,
            sessions=sessions,
            ended=ended,
            concluded=concluded,
            trials=self.trials.updated(changed) if changed else self.trials,
            validations=validations,
            endings=(*self.endings, *endings) if endings else self.endings,
            warnings=(*self.warnings, *warnings) if warnings else self.warnings,
            last_time=last_time,
            count=count,
        )

    @property
    def bicubic(self) -> dict[str, float]:
        """Scores of bicubic enlargement on the validation crops."""
        assert self.opened is not None
        return dict(self.opened.data["baseline"])

    @property
    def swept(self) -> list[str]:
        """Dotted names that the search moves, in the order of the experiment."""
        assert self.opened is not None
        return [name for dimension in self.opened.question["space"].values() for name in dimension["names"]]

    @property
    def session(self) -> SessionStarted | None:
        """The last owner."""
        return self.sessions[-1] if self.sessions else None

    @property
    def counted(self) -> int:
        """Search trials finished, pruned or paused, references included."""
        return sum(trial.counts for trial in self.trials.values())

    @property
    def replicated(self) -> int:
        """Replicates that have ended."""
        return sum(trial.ended and trial.is_replicate for trial in self.trials.values())

    @property
    def complete(self) -> bool:
        """Nothing is left to do for the number of trials last asked for."""
        return self.ended is not None and self.ended.reason in ("complete", "exhausted")

    def ranking(self) -> list[TrialState]:
        """Finished trials by score, then pruned and paused ones by how far they came and their score there."""
        return list(self._once("ranking", self._ranked))

    def _ranked(self) -> list[TrialState]:
        ended = [t for t in self.trials.values() if t.counts and t.score is not None]
        return sorted(ended, key=lambda t: (t.status != "finished", -t.patches, -(t.score or 0.0), t.number))

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self._derived:
            self._derived[name] = compute()
        return self._derived[name]

    def candidates(self) -> list[TrialState]:
        """The finalists of the search: the first finished trials of the ranking that are no reference."""
        finished = (t for t in self.ranking() if t.status == "finished" and not t.is_reference)
        return list(islice(finished, self.asked_for("finalists", 1)))

    def replicates_of(self, number: int) -> dict[int, TrialState]:
        """Replicates of a trial by their seed's number."""
        return dict(self._once("replicates", self._all_replicates).get(number, _NOTHING))

    def _all_replicates(self) -> dict[int, dict[int, TrialState]]:
        found: dict[int, dict[int, TrialState]] = {}
        for trial in self.trials.values():
            if trial.proposed.of is not None:
                found.setdefault(trial.proposed.of, {})[trial.proposed.replicate] = trial
        return found

    def best(self) -> TrialState | None:
        """The winner: the first of the candidates or, once several were judged, the one chosen.

        Chosen is the highest mean over replicates, of those that finished with every seed; where none did, the first
        that finished with any. Without one the first of the search stays, and there is no verdict on it.
        """
        candidates, seeds = self.candidates(), self.asked_for("replicates", 0)
        found = {t.number: self.replicates_of(t.number) for t in candidates}
        judged = all(len(r) == seeds and all(t.ended for t in r.values()) for r in found.values())
        means = {
            number: sum(t.score or 0.0 for t in replicates.values()) / seeds
            for number, replicates in found.items()
            if seeds and all(t.status == "finished" for t in replicates.values())
        }
        if len(candidates) > 1 and judged and means:
            return self.trials[max(means, key=means.__getitem__)]
        standing = [t for t in candidates if any(r.status == "finished" for r in found[t.number].values())]
        if len(candidates) > 1 and judged and standing:
            return standing[0]
        return candidates[0] if candidates else None

    def asked_for(self, name: str, default: int) -> int:
        """A number of the experiment's search section: finalists, replicates."""
        question = self.opened.question if self.opened else {}
        return int(question.get("search", {}).get(name, default))


def fold(events: Iterable[Event], state: StudyState | None = None) -> StudyState:
    """The state that these events lead to, from this one on: by default from the beginning.

    In one go: event by event is the same state, and takes several times as long.
    """
    return (state or StudyState())._after(events)
