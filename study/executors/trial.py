"""A whole trial on one page: store → patches → model → fit ⇄ checkpoint, told as events."""

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
INITIAL_WEIGHTS = "initial.safetensors"


class Command(Enum):
    """What a trial may be told whenever it has told something."""

    CONTINUE = auto()
    SUSPEND = auto()
    """Write a checkpoint and end, to be continued."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialTask:
    """One trial for one slot."""

    number: int
    config: TrialConfig
    config_hash: str
    folder: Path
    """Where its checkpoint and weights go."""
    epoch: int
    slot: int
    source: str
    initial: str = ""
    """Digest of the weights in its folder to start from; empty: from those of the seed."""
    micro_batch_changes: tuple[tuple[int, int], ...] = ()
    """(patches, micro-batch): what the record says of memory that ran out, to be repeated."""
    fence: Path | None = None
    """Holds the epoch of the study's present owner; a checkpoint of an earlier one is not written."""

    @property
    def mark(self) -> Mark:
        """What its checkpoints say of themselves."""
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
    """What a slot keeps warm from trial to trial: its settings and the pixels."""

    def __init__(
        self,
        store: PatchStore,
        runtime: Runtime,
        home: PatchSourceName | None = None,
        *,
        max_bicubic_psnr: float | None = MAX_BICUBIC_PSNR,
    ) -> None:
        """
        Args:
            home: of the pixels; by default chosen when they are first asked for. Slots beside each other are told
                the same (`sr_core.patches.placement.choose_home`).
            max_bicubic_psnr: what the study records as its bound for validation crops (`choose_squares`).
        """
        self.runtime = runtime
        self._store, self._home_name = store, home
        self._homes: dict[int, PatchSource] = {}
        self._max_bicubic_psnr = max_bicubic_psnr
        self._crops: list[Crop] | None = None
        self.squares: Squares | None = None
        """Which squares the crops are; None until they are asked for."""
        self._scorer: CropScorer | None = None

    def home(self, scale: int) -> PatchSource:
        """Where the training pixels of a scale live."""
        if scale not in self._homes:
            self._homes[scale] = open_patch_source(self._store, scale, self.runtime.device, self._home_name)
        return self._homes[scale]

    def patches(self, config: TrialConfig) -> Patches:
        """The training patches of a trial's seed."""
        return self.home(config.data.scale).patches(config.data, child_seed(config.seed, "patches"))

    def crops(self, config: TrialConfig) -> list[Crop]:
        """The validation crops; the same for every trial of a study, whose evaluation section is fixed."""
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
        """What scores a network on these crops; as they, the same for every trial of a study."""
        if self._scorer is None:
            protocol = config.evaluation.protocol
            crops = self.crops(config)
            self._scorer = CropScorer(crops, scale=config.data.scale, protocol=protocol, runtime=self.runtime)
        return self._scorer


def run_trial(task: TrialTask, context: TrialContext) -> Generator[TrialEvent, Command, None]:
    """Train one trial to its budget, from its checkpoint if it has one; its last event says how it ended.

    Whoever drives it sends a Command for each event. It may be closed at any of them.
    """
    try:
        yield from _train(task, context)
    except TakenOverError:
        raise  # it belongs to another owner: nothing has happened to the trial
    except DivergedError as exc:
        yield Failed(time=time.time(), trial=task.number, cause="diverged", reason=str(exc))
    except Exception as exc:
        yield _failure(task, exc)


def _failure(task: TrialTask, error: Exception) -> Failed:
    """How the trial failed; raises the error if it is no trial's fault."""
    if is_out_of_memory(error):  # in whichever form: before the others
        return Failed(time=time.time(), trial=task.number, cause="out of memory", reason=reason_of(error))
    if is_taken(error):  # the study stops, and can go on once that process has ended
        raise OSError(errno.EBUSY, "the GPU lets in one process at a time, and another one has it") from error
    if isinstance(error, SuiteError):
        return Failed(time=time.time(), trial=task.number, cause="input", reason=str(error))
    if isinstance(error, OSError):
        raise error  # a full disk or a lost root: the study stops and can go on later
    return Failed(  # ours: it fails this trial, and the coordinator judges whether it is everyone's
        time=time.time(),
        trial=task.number,
        cause="bug",
        reason=f"{type(error).__name__}: {error}".splitlines()[0],
        traceback="".join(traceback.format_exception(error)),
    )


def _train(task: TrialTask, context: TrialContext) -> Generator[TrialEvent, Command, None]:
    config, runtime = task.config, context.runtime
    begun = time.perf_counter()
    patches = context.patches(config)
    scorer = context.scorer(config)
    rows: list[tuple[str, Score]] = []

    def validate(model: nn.Module) -> Mapping[str, float]:
        rows[:] = [(name, capped(found)) for name, found in scorer(model)]
        mean = mean_score([found for _, found in rows])
        return {"val/psnr": mean.psnr, "val/ssim": mean.ssim}

    state = _at_checkpoint(task, runtime) or _at_beginning(task, runtime)
    state.seconds |= {"start-up": time.perf_counter() - begun, "recording": 0.0}
    with _counted(state.seconds, "recording"):
        told_at_once = yield Started(
            time=time.time(),
            trial=task.number,
            slot=task.slot,
            epoch=task.epoch,
            patches=state.patches,
            source=task.source,
            hardware=runtime.device_name or cpu_model(),
        )
    if told_at_once is Command.SUSPEND:
        return  # nothing to keep yet, and the first step may take long: it compiles the network
    if not state.patches:
        with _counted(state.seconds, "recording"):
            keep_image(task.folder, 0, config, lambda: scorer.preview(state.average.model))
    meter = LoadMeter(runtime.device)
    scores: Mapping[str, float] = {}
    saved, suspend = time.monotonic(), False
    for step in training.fit(
        state,
        config.train,
        runtime,
        batches=patches.batch,
        validate=validate,
        validate_every=config.evaluation.every_patches,
        micro_batch_changes=dict(task.micro_batch_changes),
    ):
        told: TrialEvent
        now = time.time()
        match step:
            case training.Tick(done, loss):
                told = Ticked(time=now, trial=task.number, patches=done, loss=loss)
                due = time.monotonic() - saved > CHECKPOINT_SECONDS
                meter.sample()
            case training.SmallerMicroBatch(at, micro_batch):
                told, done, due = (
                    MicroBatchReduced(time=now, trial=task.number, patches=at, micro_batch=micro_batch),
                    at,
                    False,
                )
            case training.Validation(done, scores, loss, rate):
                with _counted(state.seconds, "recording"):
                    keep_image(task.folder, done, config, scorer.image)
                told = Validated(
                    time=now,
                    trial=task.number,
                    patches=done,
                    scores=scores,
                    loss=loss,
                    learning_rate=rate,
                    seconds=dict(state.seconds),
                    load=meter.take(),
                )
                due = True
        with _counted(state.seconds, "recording"):
            suspend |= (yield told) is Command.SUSPEND
        if isinstance(told, MicroBatchReduced):
            continue  # the step's own validation comes next, or its tick
        if done == config.train.budget_patches:
            break  # nothing left to resume: the result comes next
        if due or suspend:
            # After the validation was journaled: a checkpoint ahead of the record would lose that point.
            with _counted(state.seconds, "recording"):
                save_checkpoint(task.checkpoint, state, task.mark)
                saved = time.monotonic()
                yield Checkpointed(time=time.time(), trial=task.number, patches=state.patches)
        if suspend:
            return
    with _counted(state.seconds, "recording"):
        task.mark.check()  # where bits are not repeated, other weights than the new owner's record says
        digest = save_weights(task.weights, state.average.model)
    yield Finished(
        time=time.time(),
        trial=task.number,
        patches=state.patches,
        scores=scores,
        per_image=tuple((name, found.psnr, found.ssim) for name, found in rows),
        weights=digest,
        seconds=dict(state.seconds),
    )


@contextmanager
def _counted(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Adds the wall time of the block, also where it waits for whoever is told something."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[what] += time.perf_counter() - begun


def _at_beginning(task: TrialTask, runtime: Runtime) -> TrainState:
    config = task.config
    model = A2N(config.model, config.data.scale)
    if task.initial:
        given, _ = read_weights(task.initial_weights)
        if digest_of(given) != task.initial:
            raise CheckpointError(f"{task.initial_weights}: not the weights that this training started from; type the "
                                  "command that started it again")  # fmt: skip
        load_exactly(model, given, origin=str(task.initial_weights))
    else:
        initialise(model, config.seed)
    return start(model, config.train, runtime)


def _at_checkpoint(task: TrialTask, runtime: Runtime) -> TrainState | None:
    """The run as its checkpoint has it; None where there is none of use, for what it held can be trained again."""
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
