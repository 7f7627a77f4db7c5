"""The state of a study: a pure fold over its events, which is never stored itself."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, Literal

from sr_core.errors import SuiteError
from study.question.config import TrialConfig
from study.record.compact import NO_NUMBERS, compact, sharing
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
"""The metric that a study maximises, in dB."""
FINALIST = re.compile(r"finalist \d+")
"""The names of replicates of search trials in a journal."""
_ENDS: dict[type[Event], Status] = {Finished: "finished", Pruned: "pruned", Failed: "failed"}
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrialState:
    """The state of one trial."""

    proposed: Proposed
    status: Status = "waiting"
    curve: tuple[Validated, ...] = ()
    """Its validations, in order.

    To save memory, `seconds` is only kept for the last validation of each start, where it covers the whole time since
    that start. `load` is only kept for the last validation. The journal holds the rest."""
    arrivals: tuple[int, ...] = ()
    """For each point of the curve, the number of validations that the study had recorded before it."""
    checkpoint: int = 0
    """Patches at the last checkpoint; 0 if there is none."""
    starts: tuple[Started, ...] = ()
    """Every start of the trial, from scratch or from a checkpoint."""
    micro_batch_changes: tuple[tuple[int, int], ...] = ()
    """Rows (patches, micro-batch size), one for each time that memory ran out."""
    losses: tuple[WorkerLost, ...] = ()
    """Workers that died or hung while training the trial."""
    promoted: int = 0
    """Patches of the last rung at which the trial was resumed after a pause; 0 if it never paused."""
    known_at_start: int = 0
    """Number of points that the curve had at the last start."""
    end: Finished | Pruned | Failed | None = None
    """How the trial ended; None if it has not."""

    @property
    def number(self) -> int:
        """The trial's number in the study."""
        return self.proposed.trial

    @property
    def is_reference(self) -> bool:
        """True for a reference of the experiment."""
        return self.proposed.role == "reference"

    @property
    def is_replicate(self) -> bool:
        """True if the trial retrains another one with a new seed."""
        return self.proposed.role == "replicate"

    @property
    def label(self) -> str:
        """The name that users see. It is unique within the study.

        A replicate is named after the trial that it retrains. Its journal says `finalist 1`, but this place in the
        ranking can belong to another trial after more trials were run.
        """
        proposed = self.proposed
        if self.is_replicate:
            retrained = f"trial {proposed.of}" if FINALIST.fullmatch(proposed.name) else proposed.name
            return f"{retrained} / seed {proposed.replicate}"
        return proposed.name if self.is_reference else f"trial {proposed.trial}"

    @property
    def ended(self) -> bool:
        """True if the trial finished, failed or was pruned."""
        return self.end is not None

    @property
    def counts(self) -> bool:
        """True if the trial counts towards the N of `--trials N`. A paused trial counts like a pruned one."""
        return self.status in ("finished", "pruned", "paused") and not self.is_replicate

    @property
    def config(self) -> TrialConfig:
        """The trial's complete configuration."""
        return TrialConfig.from_json(self.proposed.config)

    @property
    def patches(self) -> int:
        """Patches trained on at the last validation; 0 before the first."""
        return self.curve[-1].patches if self.curve else 0

    @property
    def scores(self) -> Mapping[str, float]:
        """The metrics of the trial's weights: the final scores if it finished, else those of its last validation.

        Empty before the first validation. The two can differ if a kill came between them and the rest of the training
        did not give the same bits again. The weights are then those of the end.
        """
        last = self.curve[-1].scores if self.curve else _NOTHING
        return {**last, **self.end.scores} if isinstance(self.end, Finished) else last

    @property
    def score(self) -> float | None:
        """The objective in dB, or None before the first validation. It is the trial's result only if it finished."""
        if isinstance(self.end, Finished) and OBJECTIVE in self.end.scores:
            return self.end.scores[OBJECTIVE]
        return self.curve[-1].scores[OBJECTIVE] if self.curve else None

    @property
    def last_repeated(self) -> bool:
        """True if the last validation preceded the last start, so that the trial's end repeated it."""
        return isinstance(self.end, Finished) and 0 < len(self.curve) <= self.known_at_start

    def score_at(self, patches: int, before: float = math.inf) -> float | None:
        """The objective in dB at exactly this number of patches, or None if there is no such validation.

        Args:
            before: only use the first `before` validations that the study recorded.
        """
        for point, arrival in zip(self.curve, self.arrivals, strict=True):
            if point.patches == patches and arrival < before:
                return point.scores[OBJECTIVE]
        return None

    def validated(self, point: Validated, before: int) -> "TrialState":
        """The state after one more validation.

        Args:
            before: number of validations that the study had recorded before this one.
        """
        if not self.curve:
            return self._moved((point,), (before,), self.checkpoint)
        *earlier, last = self.curve
        same_start = len(self.curve) > self.known_at_start
        last = compact(last, NO_NUMBERS if same_start else last.seconds)
        return self._moved((*earlier, last, point), (*self.arrivals, before), self.checkpoint)

    def after(self, event: TrialEvent) -> "TrialState":
        """The state after an event other than its proposal or a validation."""
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
                curve = (*self.curve[:-1], *(compact(point, point.seconds) for point in self.curve[-1:]))
                return replace(self, status=_ENDS[type(event)], end=event, curve=curve)
        raise TypeError(f"no rule for {type(event).__name__}")

    def _moved(self, curve: tuple[Validated, ...], arrivals: tuple[int, ...], checkpoint: int) -> "TrialState":
        """A copy with these fields. Nearly every line of a journal needs one, and replace() is 2.5 times slower."""
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


@dataclass(frozen=True, slots=True)
class StudyState:
    """The state of a study: everything that decides what happens next."""

    opened: StudyOpened | None = None
    """The first event; None if the journal is empty."""
    sessions: tuple[SessionStarted, ...] = ()
    """Every session so far."""
    ended: SessionEnded | None = None
    """How the last session ended; None if it is running or was killed."""
    concluded: Concluded | None = None
    """The last conclusion."""
    trials: TrialMap[TrialState] = field(default_factory=TrialMap)
    """Every trial by its number."""
    validations: int = 0
    """Number of validations recorded, over all trials."""
    endings: tuple[int, ...] = ()
    """Trial numbers in the order in which the trials ended."""
    warnings: tuple[str, ...] = ()
    last_time: float = 0.0
    """Unix time of the last event in seconds."""
    count: int = 0
    """Number of events."""
    _derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Cache of results computed from this state, which never changes."""

    def apply(self, event: Event) -> "StudyState":
        """The state after one more event. Does not change this state."""
        return self._after((event,))

    def _after(self, events: Iterable[Event]) -> "StudyState":
        """The state after more events. It shares the trials that they do not change with this state."""
        opened = self.opened
        sessions = self.sessions
        ended = self.ended
        concluded = self.concluded
        validations = self.validations
        last_time = self.last_time
        count = self.count
        changed: dict[int, TrialState] = {}
        endings: list[int] = []
        warnings: list[str] = []
        for event in events:
            last_time = event.time
            count += 1
            match event:
                case Validated():
                    trial = changed.get(event.trial) or self.trials[event.trial]
                    changed[event.trial] = trial.validated(event, validations)
                    validations += 1
                case Proposed():
                    first = next(chain(self.trials.values(), changed.values()), None)
                    changed[event.trial] = TrialState(sharing(event, first.proposed) if first else event)
                case TrialEvent():
                    trial = changed.get(event.trial) or self.trials[event.trial]
                    changed[event.trial] = trial.after(event)
                    if isinstance(event, Finished | Pruned | Failed):
                        endings.append(event.trial)
                case StudyOpened():
                    opened = event
                case SessionStarted():
                    sessions = (*sessions, event)
                    ended = None
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
    def opening(self) -> StudyOpened:
        """The first event of the study.

        Raises:
            SuiteError: the journal is empty.
        """
        if self.opened is None:
            raise SuiteError("expected a study with at least one event, but its journal is empty; run the study first")
        return self.opened

    @property
    def bicubic(self) -> dict[str, float]:
        """Mean scores of bicubic enlargement on the validation crops, by metric."""
        return dict(self.opening.data["baseline"])

    @property
    def swept(self) -> list[str]:
        """Dotted names of the searched hyperparameters, in the order of the experiment."""
        return [name for dimension in self.opening.question["space"].values() for name in dimension["names"]]

    @property
    def session(self) -> SessionStarted | None:
        """The last session; None before the first."""
        return self.sessions[-1] if self.sessions else None

    @property
    def counted(self) -> int:
        """Number of trials that finished, were pruned or are paused, including references but not replicates."""
        return sum(trial.counts for trial in self.trials.values())

    @property
    def replicated(self) -> int:
        """Number of replicates that have ended."""
        return sum(trial.ended and trial.is_replicate for trial in self.trials.values())

    @property
    def complete(self) -> bool:
        """True if the last session did everything for the number of trials requested."""
        return self.ended is not None and self.ended.reason in ("complete", "exhausted")

    def ranking(self) -> list[TrialState]:
        """Finished trials by score, then pruned and paused ones by their number of patches and their score there."""
        return list(self._once("ranking", self._ranked))

    def _ranked(self) -> list[TrialState]:
        ended = [t for t in self.trials.values() if t.counts and t.score is not None]
        return sorted(ended, key=lambda t: (t.status != "finished", -t.patches, -(t.score or 0.0), t.number))

    def _once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The cached result of a computation."""
        if name not in self._derived:
            self._derived[name] = compute()
        return self._derived[name]

    def candidates(self) -> list[TrialState]:
        """The finalists of the search: the best finished trials that are not references."""
        finished = (t for t in self.ranking() if t.status == "finished" and not t.is_reference)
        return list(islice(finished, self.asked_for("finalists", 1)))

    def replicates_of(self, number: int) -> dict[int, TrialState]:
        """The replicates of a trial by the number of their seed."""
        return dict(self._once("replicates", self._all_replicates).get(number, _NOTHING))

    def _all_replicates(self) -> dict[int, dict[int, TrialState]]:
        replicates: dict[int, dict[int, TrialState]] = {}
        for trial in self.trials.values():
            if trial.proposed.of is not None:
                replicates.setdefault(trial.proposed.of, {})[trial.proposed.replicate] = trial
        return replicates

    def best(self) -> TrialState | None:
        """The winner; None if no search trial has finished.

        With one finalist, or before all replicates have ended, it is the best finalist of the search. Otherwise it is
        the finalist with the highest mean over its replicates, among those that finished with every seed. If none did,
        it is the first finalist that finished with any seed, else the best finalist of the search, without a verdict.
        """
        candidates = self.candidates()
        if len(candidates) < 2:
            return candidates[0] if candidates else None

        seeds = self.asked_for("replicates", 0)
        replicates = {trial.number: list(self.replicates_of(trial.number).values()) for trial in candidates}
        for trials in replicates.values():
            if len(trials) != seeds or not all(trial.ended for trial in trials):
                return candidates[0]

        means = {}
        for number, trials in replicates.items():
            if seeds and all(trial.status == "finished" for trial in trials):
                means[number] = sum(trial.score or 0.0 for trial in trials) / seeds
        if means:
            return self.trials[max(means, key=means.__getitem__)]
        for candidate in candidates:
            if any(trial.status == "finished" for trial in replicates[candidate.number]):
                return candidate
        return candidates[0]

    def asked_for(self, name: str, default: int) -> int:
        """A number from the experiment's search section, such as finalists or replicates."""
        question = self.opened.question if self.opened else {}
        return int(question.get("search", {}).get(name, default))


def fold(events: Iterable[Event], state: StudyState | None = None) -> StudyState:
    """The state after these events, starting from a given state or, by default, from an empty one.

    Folding many events at once gives the same state as one at a time, but it is several times faster.
    """
    return (state or StudyState())._after(events)
