"""How fast a configuration trains under given settings, from a few steps on noise that leave no trace."""

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
_ENOUGH_SECONDS = 3.0
"""Of steps: those of a large network on a CPU take seconds each."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured."""

    seconds_per_patch: float
    """Median over the steps."""
    seconds_to_warm_up: float
    """Until a step takes as long as the next one: compilation, capture, the libraries' own choices."""
    micro_batch: int
    """The most patches that went through the network at once; 0 where the whole batch fitted."""


def measure(
    model: ModelConfig, data: DataConfig, train: TrainConfig, runtime: Runtime, *, at_most: int | None = 8
) -> Speed:
    """Time of training steps under these settings; needs them applied. Random state and caches of numbers stay.

    Args:
        at_most: patches a step, so that a large batch does not make the measurement long; None for the batch's own.
    """
    batch = min(train.batch_size, at_most or train.batch_size)
    alone = 1 if runtime.engine == "eager" else STEPS_BEFORE_CAPTURE + 1
    steps = replace(train, batch_size=batch, budget_patches=batch * (_STEPS + alone))
    generator = np.random.default_rng(0)
    side = data.lr_patch_size
    lr = generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    wide = side * data.scale
    hr = generator.integers(0, 256, (batch, wide, wide, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    cuda = runtime.device != "cpu"
    with torch.random.fork_rng(devices=[torch.device(runtime.device)] if cuda else []):
        network = A2N(model, data.scale)
        initialise(network, 0)
        step = Step(start(network, steps, runtime), steps, runtime, lambda first, count: (lr, hr))
        warm_up, times = _timed(step, alone, runtime)
    typical = statistics.median(times)
    found = Speed(typical / batch, max(sum(warm_up) - len(warm_up) * typical, 0.0), step.micro_batch)
    if cuda:  # the slots that train are other processes: what this one keeps they lack
        del network, step
        gc.collect()
        torch.cuda.empty_cache()
    return found


def _timed(step: Step, alone: int, runtime: Runtime) -> tuple[list[float], list[float]]:
    """Seconds of the steps until all has warmed up, and of those after it.

    Where memory runs out, the step warms up again with smaller parts of the batch, which may take other kernels.
    """
    warm_up: list[float] = []
    times: list[float] = []
    left = alone
    while len(times) < _STEPS and sum(times) <= _ENOUGH_SECONDS:
        together = step.micro_batch
        warm = left <= 0 and (step.replays or runtime.engine != "graphed")
        begun = time.perf_counter()
        step()
        if runtime.device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        left -= 1
        if not warm:
            warm_up.append(seconds)
        elif step.micro_batch == together:
            times.append(seconds)
        else:
            warm_up += [*times, seconds]
            times.clear()
            left = alone - 1  # this step was the first with the smaller parts
    return warm_up, times
