"""The events of a study. The journal holds them, and everything else is derived from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sr_core.process.stored import FIRST_FORMAT, newer_fields, since, written

FORMAT = 2
"""Version of the events, settings and hyperparameters that a journal can hold.

New journals have this format. Journals of every earlier format are read and continued. A journal of a later format is
an error. A release that adds an event, a setting or a hyperparameter raises the format by one and declares each new
field with `sr_core.process.stored.since`.

1. Version 0.1.
2. Version 0.2: `runtime.flush_subnormals`, `runtime.cudnn`, `Concluded.missing`; `runtime.precision` may be tf32.
"""


class UnknownFormatError(ValueError):
    """A journal has a format that this version does not know."""


def check_format(format: object) -> None:
    """Check that this version can read journals of a format.

    Raises:
        UnknownFormatError: it cannot. The message says what to do.
    """
    if isinstance(format, int) and not isinstance(format, bool) and FIRST_FORMAT <= format <= FORMAT:
        return
    if isinstance(format, int) and format > FORMAT:
        remedy = "a newer version of this suite wrote it; update this suite"
    else:
        remedy = (
            f"no version writes it: a format is a whole number from {FIRST_FORMAT} on; restore the file from a copy"
        )
    raise UnknownFormatError(f"expected journal format {FORMAT}, got {format!r}: {remedy}")


Scores = Mapping[str, float]
"""Metric values by MLflow name, for example {"val/psnr": 31.2}. PSNR is in dB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in a study."""

    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOpened(Event):
    """The first line of every journal: the question and everything else that may not change during the study."""

    format: int
    """See FORMAT."""
    study: str
    experiment: str
    """Name of the experiment's file, without its suffix."""
    seed: int
    question: Mapping[str, Any]
    """Search space, base config, references, evaluation protocol, rungs and data fingerprint."""
    digest: str
    """Digest of `question`."""
    text: str
    """The question in words."""
    runtime: Mapping[str, Any]
    """Resolved settings that affect bits (`sr_core.training.runtime`)."""
    data: Mapping[str, Any]
    """The images of the study:

    - origin: a description of where they come from;
    - folder: the value of --data, or None;
    - store: path of the patch store, relative to the root;
    - `pictures`: rows [split, name, pixel digest], one for each image;
    - left_out: names of images that a setting leaves out, by setting;
    - not_used: count and first name of the other files in the folder, by kind (absent before 0.2);
    - crops: settings of the validation crops;
    - without_detail: names of validation images that give no crop (absent before 0.2);
    - baseline: scores of bicubic enlargement on the crops;
    - leaks: rows [kind, training image, set, held-out image] that were allowed."""


def max_bicubic_psnr(opened: StudyOpened) -> float | None:
    """Upper bound in dB for the PSNR of bicubic enlargement on each validation crop; None if the study has no bound."""
    bound: float | None = opened.data.get("crops", {}).get("max_bicubic_psnr")
    return bound


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionStarted(Event):
    """A session began: a coordinator became the owner of the study."""

    epoch: int
    """Number of the owner, counted from 1."""
    host: str
    pid: int
    trials: int
    """Number of search trials requested."""
    provenance: Mapping[str, Any]
    """Code, versions and machine (`study.record.provenance.collect`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnded(Event):
    """A session ended by itself. If it was killed, this event is missing."""

    epoch: int
    reason: Literal["complete", "interrupted", "terminated", "timeout", "failures", "exhausted"]
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEvent(Event):
    """Something that happened to a trial."""

    trial: int
    """Number of the trial."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposed(TrialEvent):
    """A trial was added to the study."""

    role: Literal["search", "reference", "replicate", "training"]
    name: str
    """The name of a reference, also for its replicates. `finalist k` for the replicates of a finalist. Empty for a
    proposal of the sampler."""
    config: Mapping[str, Any]
    """The complete configuration (`TrialConfig.to_json`)."""
    config_hash: str
    values: Mapping[str, Any]
    """The values of the search space's hyperparameters, by dotted name."""
    of: int | None = None
    """The trial that a replicate retrains."""
    replicate: int = 0
    """Number of a replicate's seed, counted from 1. 0 for every other trial."""
    initial: str = ""
    """Digest of the weights that a training starts from. Empty if it starts from random weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started(TrialEvent):
    """A slot started the trial from scratch or, if `patches` is positive, from a checkpoint."""

    slot: int
    epoch: int
    """The session (`SessionStarted.epoch`)."""
    patches: int
    """Patches that the trial was trained on before."""
    source: str
    """Hash of the code that trains it."""
    hardware: str = ""
    """Model of the GPU or CPU that trains it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticked(TrialEvent):
    """Progress of a running trial, for display only. It is never written to the journal."""

    patches: int
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated(TrialEvent):
    """A trial was validated. A reproduction must give the same numbers, but not the same times."""

    patches: int
    """Patches trained on so far."""
    scores: Scores
    loss: float
    """Training loss."""
    learning_rate: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time in seconds since the trial's last start, by activity: start-up, steps, validations, recording."""
    load: Mapping[str, float] = field(default_factory=dict)
    """Load of the trial's device since the last validation (`sr_core.training.load`)."""

    def numbers(self) -> tuple[object, ...]:
        """The values that a reproduction must give again."""
        return self.patches, dict(self.scores), self.loss, self.learning_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpointed(TrialEvent):
    """A checkpoint was written."""

    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatchReduced(TrialEvent):
    """Memory ran out. After `patches`, a batch passes through the network in parts of `micro_batch` patches."""

    patches: int
    micro_batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(TrialEvent):
    """A trial was trained to the full budget."""

    patches: int
    scores: Scores
    per_image: tuple[tuple[str, float, float], ...]
    """Rows (validation crop, PSNR in dB, SSIM)."""
    weights: str
    """Digest of the averaged weights."""
    seconds: Mapping[str, float]
    """Wall time in seconds since the last start, by activity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned(TrialEvent):
    """A trial was stopped at a rung because others scored higher there."""

    patches: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLost(TrialEvent):
    """The worker that trained the trial died or hung. The trial continues from its checkpoint on another worker."""

    slot: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused(TrialEvent):
    """A trial waits at a rung with a checkpoint. It continues if it is among the best there later."""

    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed(TrialEvent):
    """A paused trial continues from the rung where it waited."""

    patches: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(TrialEvent):
    """A trial ended without a result."""

    cause: Literal["diverged", "out of memory", "input", "bug", "worker lost"]
    reason: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned(Event):
    """A warning for the user. It does not affect what the study does."""

    message: str
    trial: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Concluded(Event):
    """The winner was evaluated on the whole validation images and the benchmarks, and the results were written."""

    best: int
    """Number of the winning trial."""
    counted: int
    """Number of search trials that the conclusion is based on. If there are more later, a new conclusion is drawn."""
    replicates: int = 0
    """Number of replicates that had ended. If there are more later, a new conclusion is drawn."""
    scores: Scores
    """Mean scores of the winner and of bicubic enlargement, for example {"valid/psnr": …, "set5/psnr": …}."""
    per_image: tuple[tuple[str, str, float, float], ...]
    """Rows (set, image, PSNR in dB, SSIM) of the winner."""
    files: tuple[str, ...]
    """The results that were written, relative to the study's folder."""
    missing: tuple[str, ...] = since(2, implied=(), default=())
    """Results that could not be written. The notes hold a warning for each, and the next session retries them."""
    notes: tuple[str, ...] = ()
    """Findings other than the winner, in words: arms, importances, warnings."""


STORED_NAMES: dict[type[Event], str] = {Validated: "Progress", MicroBatchReduced: "Reduced"}
"""Names in a journal for the events whose class was renamed after version 0.1."""


def stored_name(kind: type[Event]) -> str:
    """The name of this kind of event in a journal. It never changes."""
    return STORED_NAMES.get(kind, kind.__name__)


_KINDS: dict[str, type[Event]] = {
    stored_name(kind): kind
    for kind in (
        StudyOpened, SessionStarted, SessionEnded, Proposed, Started, Validated, Checkpointed,
        MicroBatchReduced, WorkerLost, Paused, Resumed, Finished, Pruned, Failed, Warned, Concluded,
    )
}  # fmt: skip


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain values, with its kind first.

    Newer fields are left out if they have the value that older code implied. Older versions can then read lines that
    this version adds to their journals.
    """
    kind = type(event)
    values = asdict(event)
    if newer_fields(kind):
        values = written(kind, values)
    return {"event": stored_name(kind), **values}


def from_json(stored: Mapping[str, Any]) -> Event:
    """The event that `to_json` of this version or an older one described.

    Raises:
        UnknownFormatError: it is the first event of a journal in a format that this version does not know.
        KeyError or TypeError: it is not an event.
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
