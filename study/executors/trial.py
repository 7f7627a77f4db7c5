"""Trains one trial from beginning to end: store → patches → model → fit ⇄ checkpoint, reported as events."""

import errno
import logging
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from torch import nn

from sr_core.errors import CheckpointError, DivergedError, SuiteError, TakenOverError
from sr_core.metrics.evaluate import Score, capped, mean_score
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.weights import load_exactly, read_weights
from sr_core.patches.placement import Patches, PatchSource, PatchSourceName, open_patch_source
from sr_core.patches.validation import MAX_BICUBIC_PSNR, Crop, Squares, choose_squares
from sr_core.process.out_of_memory import is_out_of_memory, is_taken, reason_of
from sr_core.seed import child_seed
from sr_core.store.hdf5 import PatchStore
from sr_core.training import fit as training
from sr_core.training.checkpoint import Mark, digest_of, load_checkpoint, save_checkpoint, save_weights
from sr_core.training.load import LoadMeter
from sr_core.training.runtime import Runtime
from sr_core.training.scoring import CropScorer
from sr_core.training.step import TrainState, start
from study.question.config import TrialConfig
from study.record.events import (
    Checkpointed,
    Failed,
    Finished,
    MicroBatchReduced,
    Started,
    Ticked,
    TrialEvent,
    Validated,
)
from study.record.images import keep_image
from study.record.provenance import cpu_model

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""A checkpoint is written at the first tick after this time, and after each validation."""
INITIAL_WEIGHTS = "initial.safetensors"


class Command(Enum):
    """The coordinator's answer to an event of a trial."""

    CONTINUE = auto()
    SUSPEND = auto()
    """Write a checkpoint and leave the slot. The trial can be resumed later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTask:
    """A trial to train on a slot."""

    number: int
    config: TrialConfig
    config_hash: str
    folder: Path
    """Where the checkpoint and the weights are written."""
    epoch: int
    """Number of the session that owns the study."""
    slot: int
    source: str
    """Hash of the code."""
    initial: str = ""
    """Digest of the initial weights in the trial's folder; empty if the seed determines them."""
    micro_batch_changes: tuple[tuple[int, int], ...] = ()
    """(patches, micro-batch size) of each recorded reduction after a lack of memory, to be repeated."""
    fence: Path | None = None
    """File with the epoch of the study's current owner. A trial of an earlier owner writes no checkpoint."""

    @property
    def mark(self) -> Mark:
        """The identity that the trial's checkpoints carry."""
        return Mark(self.config_hash, self.epoch, self.fence)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def initial_weights(self) -> Path:
        return self.folder / INITIAL_WEIGHTS


class TrialContext:
    """What a slot keeps from trial to trial: the runtime settings, the pixels and the validation crops."""

    def __init__(
        self,
        store: PatchStore,
        runtime: Runtime,
        source_name: PatchSourceName | None = None,
        *,
        max_bicubic_psnr: float | None = MAX_BICUBIC_PSNR,
    ) -> None:
        """
        Args:
            source_name: where the training pixels are kept; by default chosen when they are first needed. Slots of
                one machine must use the same one (`sr_core.patches.placement.choose_patch_source`).
            max_bicubic_psnr: the study's upper bound for the bicubic PSNR of validation crops, in dB
                (`sr_core.patches.validation.choose_squares`).
        """
        self.runtime = runtime
        self._store = store
        self._source_name = source_name
        self._sources: dict[int, PatchSource] = {}
        self._max_bicubic_psnr = max_bicubic_psnr
        self._crops: list[Crop] | None = None
        self.squares: Squares | None = None
        """Positions of the validation crops; None until `crops` is called."""
        self._scorer: CropScorer | None = None

    def patch_source(self, scale: int) -> PatchSource:
        """Return the source of training pixels for a scale, opened on first use."""
        if scale not in self._sources:
            self._sources[scale] = open_patch_source(self._store, scale, self.runtime.device, self._source_name)
        return self._sources[scale]

    def patches(self, config: TrialConfig) -> Patches:
        """Return the training patches of a trial, in the order that its seed determines."""
        return self.patch_source(config.data.scale).patches(config.data, child_seed(config.seed, "patches"))

    def crops(self, config: TrialConfig) -> list[Crop]:
        """Return the validation crops. All trials of a study share them, because its evaluation section is fixed."""
        if self._crops is None:
            pixels = self._store.validation_pixels(config.data.scale, config.evaluation.kernel)
            self.squares = choose_squares(
                pixels.names,
                pixels.lr,
                pixels.hr,
                scale=config.data.scale,
                crops=config.evaluation.crops,
                lr_crop_size=config.evaluation.lr_crop_size,
                max_bicubic_psnr=self._max_bicubic_psnr,
            )
            self._crops = self.squares.cut(pixels.names, pixels.lr, pixels.hr, config.data.scale)
        return self._crops

    def scorer(self, config: TrialConfig) -> CropScorer:
        """Return the scorer of networks on the validation crops. All trials of a study share it."""
        if self._scorer is None:
            protocol = config.evaluation.protocol
            crops = self.crops(config)
            self._scorer = CropScorer(crops, scale=config.data.scale, protocol=protocol, runtime=self.runtime)
        return self._scorer


def run_trial(task: TrialTask, context: TrialContext) -> Generator[TrialEvent, Command, None]:
    """Train one trial to its budget, from its checkpoint if it has one. The last event says how the trial ended.

    Send a `Command` after each event. The generator may be closed after any event.

    Raises:
        TakenOverError: another session owns the study now.
        OSError: the machine failed, for example with a full disk.
    """
    try:
        yield from _train(task, context)
    except TakenOverError:
        raise  # the study has a new owner, which may resume the trial
    except DivergedError as exc:
        yield Failed(time=time.time(), trial=task.number, cause="diverged", reason=str(exc))
    except Exception as exc:
        yield _failure(task, exc)


def _failure(task: TrialTask, error: Exception) -> Failed:
    """Return the failure event of a trial. An error that concerns the machine rather than the trial is raised.

    Raises:
        OSError: the machine failed, or another process occupies the GPU. The study stops and can be resumed.
    """
    if is_out_of_memory(error):  # first, because it comes as any of the types below
        return Failed(time=time.time(), trial=task.number, cause="out of memory", reason=reason_of(error))
    if is_taken(error):
        raise OSError(errno.EBUSY, "the GPU allows one process at a time, and another process uses it") from error
    if isinstance(error, SuiteError):
        return Failed(time=time.time(), trial=task.number, cause="input", reason=str(error))
    if isinstance(error, OSError):
        raise error

    return Failed(  # a fault in the code: the coordinator stops the study if other trials fail likewise
        time=time.time(),
        trial=task.number,
        cause="bug",
        reason=f"{type(error).__name__}: {error}".splitlines()[0],
        traceback="".join(traceback.format_exception(error)),
    )


def _train(task: TrialTask, context: TrialContext) -> Generator[TrialEvent, Command, None]:
    config = task.config
    runtime = context.runtime
    begun = time.perf_counter()
    patches = context.patches(config)
    scorer = context.scorer(config)
    rows: list[tuple[str, Score]] = []

    def validate(model: nn.Module) -> Mapping[str, float]:
        rows[:] = [(name, capped(score)) for name, score in scorer(model)]
        mean = mean_score([score for _, score in rows])
        return {"val/psnr": mean.psnr, "val/ssim": mean.ssim}

    state = _at_checkpoint(task, runtime) or _at_beginning(task, runtime)
    state.seconds |= {"start-up": time.perf_counter() - begun, "recording": 0.0}
    with _counted(state.seconds, "recording"):
        first_command = yield Started(
            time=time.time(),
            trial=task.number,
            slot=task.slot,
            epoch=task.epoch,
            patches=state.patches,
            source=task.source,
            hardware=runtime.device_name or cpu_model(),
        )
    if first_command is Command.SUSPEND:
        return  # there is nothing to save yet, and the first step may take long because it compiles the network

    if not state.patches:
        with _counted(state.seconds, "recording"):
            keep_image(task.folder, 0, config, lambda: scorer.preview(state.average.model))

    meter = LoadMeter(runtime.device)
    scores: Mapping[str, float] = {}
    last_saved = time.monotonic()
    suspend = False
    for step in training.fit(
        state,
        config.train,
        runtime,
        batches=patches.batch,
        validate=validate,
        validate_every=config.evaluation.every_patches,
        micro_batch_changes=dict(task.micro_batch_changes),
    ):
        event: TrialEvent
        now = time.time()
        match step:
            case training.Tick(done, loss):
                event = Ticked(time=now, trial=task.number, patches=done, loss=loss)
                checkpoint_due = time.monotonic() - last_saved > CHECKPOINT_SECONDS
                meter.sample()
            case training.SmallerMicroBatch(done, micro_batch):
                event = MicroBatchReduced(time=now, trial=task.number, patches=done, micro_batch=micro_batch)
                checkpoint_due = False
            case training.Validation(done, scores, loss, rate):
                with _counted(state.seconds, "recording"):
                    keep_image(task.folder, done, config, scorer.image)
                event = Validated(
                    time=now,
                    trial=task.number,
                    patches=done,
                    scores=scores,
                    loss=loss,
                    learning_rate=rate,
                    seconds=dict(state.seconds),
                    load=meter.take(),
                )
                checkpoint_due = True

        with _counted(state.seconds, "recording"):
            command = yield event
        suspend = suspend or command is Command.SUSPEND

        if isinstance(event, MicroBatchReduced):
            continue  # the validation or tick of the same step comes next
        if done == config.train.budget_patches:
            break
        if checkpoint_due or suspend:
            # Only after the validation was recorded: resuming from a checkpoint ahead of the journal would lose it.
            with _counted(state.seconds, "recording"):
                save_checkpoint(task.checkpoint, state, task.mark)
                last_saved = time.monotonic()
                yield Checkpointed(time=time.time(), trial=task.number, patches=state.patches)
        if suspend:
            return

    with _counted(state.seconds, "recording"):
        # On devices that do not repeat bits, these weights may differ from those that a new owner records.
        task.mark.check()
        digest = save_weights(task.weights, state.average.model)

    yield Finished(
        time=time.time(),
        trial=task.number,
        patches=state.patches,
        scores=scores,
        per_image=tuple((name, score.psnr, score.ssim) for name, score in rows),
        weights=digest,
        seconds=dict(state.seconds),
    )


@contextmanager
def _counted(seconds: dict[str, float], activity: str) -> Iterator[None]:
    """Add the wall time of the block to `seconds[activity]`, including the wait for an answer to an event."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[activity] += time.perf_counter() - begun


def _at_beginning(task: TrialTask, runtime: Runtime) -> TrainState:
    """Return the state before the first step.

    Raises:
        CheckpointError: the file of initial weights does not hold the recorded weights.
    """
    config = task.config
    model = A2N(config.model, config.data.scale)
    if task.initial:
        weights, _ = read_weights(task.initial_weights)
        if digest_of(weights) != task.initial:
            raise CheckpointError(
                f"{task.initial_weights}: not the weights that this training started from; run the command that "
                "started it again"
            )
        load_exactly(model, weights, origin=str(task.initial_weights))
    else:
        initialise(model, config.seed)
    return start(model, config.train, runtime)


def _at_checkpoint(task: TrialTask, runtime: Runtime) -> TrainState | None:
    """Return the state in the trial's checkpoint; None if there is no usable one, so that the trial starts over."""
    if not task.checkpoint.exists():
        return None

    state = _at_beginning(task, runtime)
    try:
        load_checkpoint(task.checkpoint, state, task.mark)
    except TakenOverError:
        raise
    except CheckpointError as exc:
        logger.warning("trial %d starts over: %s", task.number, exc)
        return None
    return state
