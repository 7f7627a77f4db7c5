"""Everything that can happen in a study. The journal holds these; all else is derived from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sr_core.process.stored import FIRST_FORMAT, newer_fields, since, written

FORMAT = 2
"""Version of what a journal may hold: its events, settings and hyperparameters.

New journals get this one. Journals of every earlier one are read and continued; a journal of a later one is refused,
not guessed at. A release that adds to any of the three raises it by one and declares each new field with
`sr_core.process.stored.since`.

1. Version 0.1.
2. Version 0.2: `runtime.flush_subnormals`, `runtime.cudnn`, `Concluded.missing`; `runtime.precision` may be tf32.
"""


class UnknownFormatError(ValueError):
    """A journal is of a format that this version does not know."""


def check_format(format: object) -> None:
    """Raises UnknownFormatError, which says what to do, unless this version reads journals of that format."""
    if isinstance(format, int) and not isinstance(format, bool) and FIRST_FORMAT <= format <= FORMAT:
        return
    if isinstance(format, int) and format > FORMAT:
        what = "a newer version of this suite wrote it; update this one, or take that one"
    else:
        what = f"no version wrote that; expected a whole number from {FIRST_FORMAT} on; restore the file from a copy"
    raise UnknownFormatError(f"expected journal format {FORMAT}, got {format!r}: {what}")


Scores = Mapping[str, float]
"""Metric values by MLflow name, e.g. {"val/psnr": 31.2}."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened, at a Unix time in seconds."""

    time: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOpened(Event):
    """The first line of every journal: the question and all that may not change underneath."""

    format: int
    study: str
    experiment: str
    seed: int
    question: Mapping[str, Any]
    """Space, base config, references, protocol, rungs, data fingerprint; `digest` is over exactly this."""
    digest: str
    text: str
    """The question in words."""
    runtime: Mapping[str, Any]
    """Resolved settings that decide bits (sr_core.training.runtime)."""
    data: Mapping[str, Any]
    """origin, folder (what --data was), store (relative to the root), images [split, name, pixel digest], left_out
    (names by the settings that leave them out), not_used (count and first name of what else the folder holds, by kind;
    absent before 0.2), crops, without_detail (names of validation images that give no crop; absent before 0.2),
    baseline (bicubic's scores on the crops), leaks [kind, training image, set, held-out image] that were
    allowed."""


def max_bicubic_psnr(opened: StudyOpened) -> float | None:
    """PSNR [dB] that bicubic enlargement stays below on each of this study's crops; None if it knows no such bound."""
    bound: float | None = opened.data.get("crops", {}).get("max_bicubic_psnr")
    return bound


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStarted(Event):
    """A coordinator took the study. `epoch` counts owners."""

    epoch: int
    host: str
    pid: int
    trials: int
    """Search trials asked for."""
    provenance: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnded(Event):
    epoch: int
    reason: Literal["complete", "interrupted", "terminated", "timeout", "failures", "exhausted"]
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEvent(Event):
    trial: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposed(TrialEvent):
    role: Literal["search", "reference", "replicate", "training"]
    name: str
    """A reference's name, also on its replicates; `finalist k` on a finalist's; empty for a proposal of the sampler."""
    config: Mapping[str, Any]
    config_hash: str
    values: Mapping[str, Any]
    """The swept dotted names and what they were set to."""
    of: int | None = None
    """The trial that a replicate trains again."""
    replicate: int = 0
    """Which fresh seed a replicate has, from 1; 0 for every other trial."""
    initial: str = ""
    """Digest of the weights that a training starts from; empty: those of its config's seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started(TrialEvent):
    """A slot began the trial, from nothing or (patches > 0) from a checkpoint."""

    slot: int
    epoch: int
    patches: int
    source: str
    """Hash of the code that trains it."""
    hardware: str = ""
    """The model of the GPU that trains it, or of the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticked(TrialEvent):
    """A sign of life; for display, never journaled."""

    patches: int
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated(TrialEvent):
    """One validation. Its numbers, not its time, are what a repetition must reproduce."""

    patches: int
    scores: Scores
    loss: float
    learning_rate: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time since the trial's last start by what it went into: start-up, steps, validations, recording."""
    load: Mapping[str, float] = field(default_factory=dict)
    """Of the trial's own device since the last validation (sr_core.training.load)."""

    def numbers(self) -> tuple[object, ...]:
        return self.patches, dict(self.scores), self.loss, self.learning_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpointed(TrialEvent):
    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatchReduced(TrialEvent):
    """Memory ran out: from `patches` on, that many patches of a batch went through the network at once."""

    patches: int
    micro_batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(TrialEvent):
    """Trained to the full budget."""

    patches: int
    scores: Scores
    per_image: tuple[tuple[str, float, float], ...]
    """(validation crop, PSNR in dB, SSIM)."""
    weights: str
    """Digest of the averaged weights."""
    seconds: Mapping[str, float]
    """Wall time since the last start by what it went into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned(TrialEvent):
    """Stopped at a rung because others stood better there."""

    patches: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLost(TrialEvent):
    """The worker that trained it died or hung; the trial goes on from its checkpoint on another one."""

    slot: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused(TrialEvent):
    """Waits at a rung with a checkpoint, to go on if it comes to stand among the best there."""

    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed(TrialEvent):
    """Goes on from the rung where it waited."""

    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(TrialEvent):
    cause: Literal["diverged", "out of memory", "input", "bug", "worker lost"]
    reason: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned(Event):
    """Something that people should see and that changes no state."""

    message: str
    trial: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Concluded(Event):
    """The result was evaluated and written: the winner on the whole validation images and the benchmarks."""

    best: int
    counted: int
    """Search trials that the conclusion is drawn from; more of them call for a new one."""
    replicates: int = 0
    """Replicates that had ended; more of them call for a new one, too."""
    scores: Scores
    """Means of the winner, e.g. {"valid/psnr": …, "set5/psnr": …}, and of bicubic beside them."""
    per_image: tuple[tuple[str, str, float, float], ...]
    """(set, image, PSNR in dB, SSIM) of the winner."""
    files: tuple[str, ...]
    """Written results, relative to the study's folder."""
    missing: tuple[str, ...] = since(2, implied=(), default=())
    """Results that could not be made, each with a warning among the notes; the next session tries them again."""
    notes: tuple[str, ...] = ()
    """What was found beside the winner, in words: arms, importances, warnings."""


STORED_NAMES: dict[type[Event], str] = {Validated: "Progress", MicroBatchReduced: "Reduced"}
"""What a journal calls an event whose class has been renamed since version 0.1."""


def stored_name(kind: type[Event]) -> str:
    """What a journal calls this kind of event; it never changes."""
    return STORED_NAMES.get(kind, kind.__name__)


_KINDS: dict[str, type[Event]] = {
    stored_name(kind): kind
    for kind in (
        StudyOpened, SessionStarted, SessionEnded, Proposed, Started, Validated, Checkpointed,
        MicroBatchReduced, WorkerLost, Paused, Resumed, Finished, Pruned, Failed, Warned, Concluded,
    )
}  # fmt: skip


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain values, its kind first.

    Without newer fields that say nothing new: then an older version reads a line that was appended to its journal.
    """
    kind, values = type(event), asdict(event)
    return {"event": stored_name(kind), **(written(kind, values) if newer_fields(kind) else values)}


def from_json(stored: Mapping[str, Any]) -> Event:
    """The event that `to_json` described, of this version or an older one.

    Raises:
        UnknownFormatError: it is the first one of a journal whose format this version does not know.
        KeyError or TypeError: it is anything else.
    """
    values = dict(stored)
    kind = _KINDS[values.pop("event")]
    if kind is StudyOpened:
        check_format(values["format"])
    if kind is Finished or kind is Concluded:
        values["per_image"] = tuple(tuple(row) for row in values["per_image"])
    if kind is Concluded:
        values |= {name: tuple(values[name]) for name in ("files", "missing", "notes") if name in values}
    return kind(**values)
