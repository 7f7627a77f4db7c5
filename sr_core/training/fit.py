"""The training loop, as a generator: whoever drives it decides about logging, checkpoints and stopping."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam

from sr_core.config import TrainConfig
from sr_core.errors import DivergedError
from sr_core.training.loss import pixel_loss
from sr_core.training.optim import WeightAverage, adam, learning_rate
from sr_core.training.runtime import Runtime

Batches = Callable[[int, int], tuple[NDArray[np.uint8] | Tensor, NDArray[np.uint8] | Tensor]]
"""(first patch, count) -> LR (N, 3, H, W) and HR (N, 3, sH, sW), uint8; tensors may be on the training device."""
Validate = Callable[[nn.Module], Mapping[str, float]]
"""The averaged model -> finite scores by name."""

TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A sign of life between validations; `loss` is the running mean since the last one."""

    patches: int
    loss: float


@dataclass(frozen=True, slots=True)
class Progress:
    """One validation: scores of the averaged weights, and the mean training loss since the one before."""

    patches: int
    scores: Mapping[str, float]
    loss: float
    learning_rate: float


@dataclass(slots=True)
class TrainState:
    """Everything that a training run is made of. Its holder may checkpoint it whenever fit() has yielded."""

    model: nn.Module
    optimizer: Adam
    average: WeightAverage
    loss_sum: Tensor
    """Sum of the step losses since the last validation, float64 on the training device: no step waits for it."""
    loss_steps: int = 0
    patches: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "validations": 0.0})
    """Wall time by what it went into; for people, no part of the result."""

    @property
    def mean_loss(self) -> float:
        return self.loss_sum.item() / self.loss_steps if self.loss_steps else math.nan


def start(model: nn.Module, config: TrainConfig, runtime: Runtime) -> TrainState:
    """A run at its beginning, from the model's present weights."""
    placed = runtime.place(model).train()
    zero = torch.zeros((), dtype=torch.float64, device=runtime.device)
    return TrainState(placed, adam(placed, config), WeightAverage(placed, config), zero)


def fit(
    state: TrainState,
    config: TrainConfig,
    runtime: Runtime,
    *,
    batches: Batches,
    validate: Validate,
    validate_every: int,
) -> Iterator[Tick | Progress]:
    """Train `state` in place to the full budget, from wherever it stands.

    Yields a Progress at every multiple of `validate_every` patches and at the end of the budget, and a Tick at
    least every two seconds between (sooner than that a step must end). What is trained does not depend on who
    listens, when, or how often the state was saved and loaded.

    Raises:
        DivergedError: the mean loss or a score stopped being finite.
    """
    yielded = time.monotonic()
    while state.patches < config.budget_patches:
        begun = time.perf_counter()
        step(state, config, runtime, batches)
        state.seconds["steps"] += time.perf_counter() - begun
        if state.patches % validate_every == 0 or state.patches == config.budget_patches:
            yield _validation(state, config, validate)
            yielded = time.monotonic()
        elif time.monotonic() - yielded >= TICK_SECONDS:
            yield Tick(state.patches, _finite_loss(state))
            yielded = time.monotonic()


def step(state: TrainState, config: TrainConfig, runtime: Runtime, batches: Batches) -> None:
    """One optimiser step on the next batch."""
    lr, hr = (unit_range(pixels, runtime) for pixels in batches(state.patches, config.batch_size))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.patches)
    state.optimizer.zero_grad(set_to_none=True)
    loss = pixel_loss(state.model(lr), hr, config)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.patches += config.batch_size
    state.average.update(state.model, state.patches // config.batch_size)
    state.loss_sum += loss.detach()
    state.loss_steps += 1


def unit_range(pixels: NDArray[np.uint8] | Tensor, runtime: Runtime) -> Tensor:
    """uint8 (N, 3, H, W) as float32 in 0..1 on the training device."""
    layout = torch.channels_last if runtime.memory_format == "channels_last" else torch.contiguous_format
    there = (pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels)).to(runtime.device)
    return torch.div(there.contiguous(memory_format=layout), 255.0)


def _validation(state: TrainState, config: TrainConfig, validate: Validate) -> Progress:
    begun = time.perf_counter()
    loss = _finite_loss(state)
    scores = dict(validate(state.average.model))
    for name, value in scores.items():
        if not math.isfinite(value):
            raise DivergedError(f"{name} is {value} after {state.patches} patches")
    state.loss_sum.zero_()
    state.loss_steps = 0
    state.seconds["validations"] += time.perf_counter() - begun
    # The rate of the last step taken: at the end of a cosine the next one would be 0, which says nothing.
    return Progress(state.patches, scores, loss, learning_rate(config, state.patches - config.batch_size))


def _finite_loss(state: TrainState) -> float:
    loss = state.mean_loss
    if not math.isfinite(loss):
        raise DivergedError(f"the training loss is {loss} after {state.patches} patches")
    return loss
