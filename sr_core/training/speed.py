"""Measures how fast a configuration trains under given settings, from a few steps on random pixels."""

import gc
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.runtime import Runtime
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, start

_STEPS = 5
"""Number of steps that are timed."""
_ENOUGH_SECONDS = 3.0
"""Fewer steps are timed after this time, because those of a large network on a CPU take seconds each."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The result of a measurement."""

    seconds_per_patch: float
    """The median over the timed steps."""
    seconds_to_warm_up: float
    """Extra time of the first steps, for compilation, capture and the libraries' own set-up."""
    micro_batch: int
    """The most patches that fit through the network at once. 0 if the whole batch fits."""


def measure(
    model: ModelConfig, data: DataConfig, train: TrainConfig, runtime: Runtime, *, at_most: int | None = 8
) -> Speed:
    """Measure training steps under these settings, which must have been applied. The global random state is unchanged.

    Args:
        at_most: the most patches per step, which keeps the measurement short. None uses the batch size of `train`.
    """
    batch = min(train.batch_size, at_most or train.batch_size)
    warm_up_steps = 1 if runtime.engine == "eager" else STEPS_BEFORE_CAPTURE + 1
    steps = replace(train, batch_size=batch, budget_patches=batch * (_STEPS + warm_up_steps))
    generator = np.random.default_rng(0)
    side = data.lr_patch_size
    lr = generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    hr_side = side * data.scale
    hr = generator.integers(0, 256, (batch, hr_side, hr_side, 3), dtype=np.uint8).transpose(0, 3, 1, 2)

    cuda = runtime.device != "cpu"
    with torch.random.fork_rng(devices=[torch.device(runtime.device)] if cuda else []):
        network = A2N(model, data.scale)
        initialise(network, 0)
        step = Step(start(network, steps, runtime), steps, runtime, lambda first, count: (lr, hr))
        warm_up, times = _timed(step, warm_up_steps, runtime)

    typical = statistics.median(times)
    speed = Speed(
        seconds_per_patch=typical / batch,
        seconds_to_warm_up=max(sum(warm_up) - len(warm_up) * typical, 0.0),
        micro_batch=step.micro_batch,
    )
    if cuda:  # trainings run in other processes, which need the memory
        del network, step
        gc.collect()
        torch.cuda.empty_cache()
    return speed


def _timed(step: Step, warm_up_steps: int, runtime: Runtime) -> tuple[list[float], list[float]]:
    """The times in seconds of the warm-up steps, and of the steps after them.

    If memory runs out, the step warms up again with smaller parts of the batch, because they may use other kernels.
    """
    warm_up: list[float] = []
    times: list[float] = []
    remaining = warm_up_steps
    while len(times) < _STEPS and sum(times) <= _ENOUGH_SECONDS:
        micro_batch = step.micro_batch
        is_warm = remaining <= 0 and (step.replays or runtime.engine != "graphed")
        started = time.perf_counter()
        step()
        if runtime.device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        remaining -= 1

        if not is_warm:
            warm_up.append(seconds)
        elif step.micro_batch == micro_batch:
            times.append(seconds)
        else:
            warm_up += [*times, seconds]
            times.clear()
            remaining = warm_up_steps - 1  # this step was the first with smaller parts
    return warm_up, times
