"""The training loop, as a generator. Its caller decides about logging, checkpoints and stopping."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sr_core.config import TrainConfig
from sr_core.errors import ConfigError, DivergedError
from sr_core.training.optim import learning_rate
from sr_core.training.runtime import Runtime
from sr_core.training.step import Batches, Step, TrainState

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Computes finite scores by name for the averaged model."""

TICK_SECONDS = 1.0
"""A tick follows the first step that ends this long after the last event."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Reports progress between validations.

    `loss` is the mean training loss since the last validation. On a GPU it is the value of an earlier tick, because a
    tick does not wait for the GPU. It is NaN until the first value is available.
    """

    patches: int
    loss: float


@dataclass(frozen=True, slots=True)
class SmallerMicroBatch:
    """Memory ran out. From patch `patches` on, each batch is processed in parts of `micro_batch` patches."""

    patches: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Validation:
    """A validation: the scores of the averaged weights, and the mean training loss since the previous validation."""

    patches: int
    scores: Mapping[str, float]
    loss: float
    learning_rate: float


def fit(
    state: TrainState,
    config: TrainConfig,
    runtime: Runtime,
    *,
    batches: Batches,
    validate: Validate,
    validate_every: int,
    micro_batch_changes: Mapping[int, int] | None = None,
) -> Iterator[Tick | Validation | SmallerMicroBatch]:
    """Train `state` in place from its current position to the full budget.

    Yields a `Validation` at every multiple of `validate_every` patches and at the end of the budget. In between it
    yields a `Tick` about once a second, after a step has ended, and a `SmallerMicroBatch` if memory runs out. The
    result does not depend on what the caller does between events, or on how often the state was saved and loaded.

    Args:
        batches: returns the pixels of a range of patches.
        validate: computes the scores of the averaged model.
        validate_every: number of patches between two validations.
        micro_batch_changes: patches -> micro-batch, from the record of this run. The changes are repeated at the same
            patches.
    Raises:
        DivergedError: the mean loss or a score is not finite.
        ConfigError: train.budget_patches is not a multiple of train.batch_size.
        Exception: memory ran out with a single patch (`sr_core.process.out_of_memory`).
    """
    if config.budget_patches % config.batch_size:
        raise ConfigError(
            f"train.budget_patches must be a multiple of train.batch_size ({config.batch_size}), "
            f"got {config.budget_patches}"
        )
    changes = micro_batch_changes or {}
    step = Step(state, config, runtime, batches)
    step.micro_batch = _last_before(state.patches, changes, runtime.micro_batch)
    running_loss = _RunningLoss(state)
    yielded = time.monotonic()
    while state.patches < config.budget_patches:
        first = state.patches
        micro_batch = changes.get(first, step.micro_batch)
        step.micro_batch = micro_batch

        started = time.perf_counter()
        step()
        state.seconds["steps"] += time.perf_counter() - started

        if step.micro_batch != micro_batch:
            yield SmallerMicroBatch(first, step.micro_batch)
        if state.patches % validate_every == 0 or state.patches == config.budget_patches:
            yield _validation(state, config, validate)
            running_loss.begin()
            yielded = time.monotonic()
        elif time.monotonic() - yielded >= TICK_SECONDS:
            yield Tick(state.patches, running_loss.current())
            yielded = time.monotonic()


def _last_before(patches: int, micro_batch_changes: Mapping[int, int], default: int) -> int:
    """The micro-batch of the last change before `patches`."""
    earlier = [position for position in micro_batch_changes if position < patches]
    return micro_batch_changes[max(earlier)] if earlier else default


def _validation(state: TrainState, config: TrainConfig, validate: Validate) -> Validation:
    started = time.perf_counter()
    loss = _finite(state.mean_loss, state)
    state.seconds["steps"] += time.perf_counter() - started  # a GPU completes the queued steps only here

    started = time.perf_counter()
    scores = dict(validate(state.average.model))
    for name, value in scores.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} is {value} after {state.patches} patches")
    state.loss_sum.zero_()
    state.loss_steps = 0
    state.seconds["validations"] += time.perf_counter() - started

    # The rate of the last step, because at the end of a cosine schedule the next rate is 0.
    return Validation(state.patches, scores, loss, learning_rate(config, state.patches - config.batch_size))


class _RunningLoss:
    """The mean loss since the last validation, read without waiting for a GPU."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._waits = not state.loss_sum.is_cuda
        self._copy = torch.zeros((), dtype=torch.float64, pin_memory=not self._waits)
        self.begin()

    def begin(self) -> None:
        """Start again after a validation."""
        self._copied: torch.cuda.Event | None = None
        self._steps = 0
        self._last = math.nan

    def current(self) -> float:
        """The mean of the steps so far. NaN if the GPU has not computed one yet.

        Raises:
            DivergedError: the mean is not finite.
        """
        state = self._state
        if self._waits:
            return _finite(state.mean_loss, state)
        if self._copied is not None and self._copied.query():  # type: ignore[no-untyped-call]
            self._last = _finite(self._copy.item() / self._steps, state)
            self._copied = None
        if self._copied is None:
            self._copy.copy_(state.loss_sum, non_blocking=True)
            self._steps = state.loss_steps
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return self._last


def _finite(loss: float, state: TrainState) -> float:
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss} after {state.patches} patches")
    return loss
