"""The training loop, as a generator: whoever drives it decides about logging, checkpoints and stopping."""

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
"""The averaged model -> finite scores by name."""

TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A sign of life between validations.

    `loss` is the running mean since the last one; on a GPU, for which no tick waits, as it stood a tick ago, NaN until
    that is known.
    """

    patches: int
    loss: float


@dataclass(frozen=True, slots=True)
class SmallerMicroBatch:
    """Memory ran out: from this patch on, a batch goes through the network in parts of `micro_batch` patches."""

    patches: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Validation:
    """One validation: scores of the averaged weights, and the mean training loss since the one before."""

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
    """Train `state` in place to the full budget, from wherever it stands.

    Yields a Progress at every multiple of `validate_every` patches and at the end of the budget, a Tick at least
    every two seconds between (sooner than that a step must end), and a Reduced where memory ran out. What is trained
    does not depend on who listens, when, or how often the state was saved and loaded.

    Args:
        reductions: patches -> micro-batch, from the record of this run: they are made again at the same patches.
    Raises:
        DivergedError: the mean loss or a score stopped being finite.
        ConfigError: the last batch would go beyond the budget.
        Exception: memory ran out for a single patch (`sr_core.process.out_of_memory`).
    """
    if config.budget_patches % config.batch_size:
        raise ConfigError(
            f"train.budget_patches must be a multiple of train.batch_size ({config.batch_size}), "
            f"got {config.budget_patches}"
        )
    step = Step(state, config, runtime, batches)
    step.micro_batch = _last_before(state.patches, micro_batch_changes or {}, runtime.micro_batch)
    running_loss = _RunningLoss(state)
    yielded = time.monotonic()
    while state.patches < config.budget_patches:
        first, together = state.patches, (micro_batch_changes or {}).get(state.patches, step.micro_batch)
        step.micro_batch = together
        begun = time.perf_counter()
        step()
        state.seconds["steps"] += time.perf_counter() - begun
        if step.micro_batch != together:
            yield SmallerMicroBatch(first, step.micro_batch)
        if state.patches % validate_every == 0 or state.patches == config.budget_patches:
            yield _validation(state, config, validate)
            running_loss.begin()
            yielded = time.monotonic()
        elif time.monotonic() - yielded >= TICK_SECONDS:
            yield Tick(state.patches, running_loss.look())
            yielded = time.monotonic()


def _last_before(patches: int, micro_batch_changes: Mapping[int, int], otherwise: int) -> int:
    past = [at for at in micro_batch_changes if at < patches]
    return micro_batch_changes[max(past)] if past else otherwise


def _validation(state: TrainState, config: TrainConfig, validate: Validate) -> Validation:
    begun = time.perf_counter()
    loss = _finite(state.mean_loss, state)
    state.seconds["steps"] += time.perf_counter() - begun  # on a GPU the steps end here, not when they are queued
    begun = time.perf_counter()
    scores = dict(validate(state.average.model))
    for name, value in scores.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} is {value} after {state.patches} patches")
    state.loss_sum.zero_()
    state.loss_steps = 0
    state.seconds["validations"] += time.perf_counter() - begun
    # The rate of the last step taken: at the end of a cosine the next one would be 0, which says nothing.
    return Validation(state.patches, scores, loss, learning_rate(config, state.patches - config.batch_size))


class _RunningLoss:
    """The mean loss since the last validation, looked at without waiting for a GPU."""

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._waits = not state.loss_sum.is_cuda
        self._copy = torch.zeros((), dtype=torch.float64, pin_memory=not self._waits)
        self.begin()

    def begin(self) -> None:
        self._copied: torch.cuda.Event | None = None
        self._steps, self._known = 0, math.nan

    def look(self) -> float:
        """The mean in the making; raises DivergedError where it is known not to be finite."""
        state = self._state
        if self._waits:
            return _finite(state.mean_loss, state)
        if self._copied is not None and self._copied.query():  # type: ignore[no-untyped-call]
            self._known = _finite(self._copy.item() / self._steps, state)
            self._copied = None
        if self._copied is None:
            self._copy.copy_(state.loss_sum, non_blocking=True)
            self._steps = state.loss_steps
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return self._known


def _finite(loss: float, state: TrainState) -> float:
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss} after {state.patches} patches")
    return loss
