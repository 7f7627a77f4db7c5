"""How fast a configuration trains here, from a few steps on noise that leave no trace."""

import statistics
import time
from dataclasses import replace

import numpy as np

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training import fit as training
from sr_core.training.runtime import Runtime, cores, resolve

_STEPS = 5
_CLEARLY_FASTER = 0.6


def seconds_per_patch(model: ModelConfig, data: DataConfig, train: TrainConfig, runtime: Runtime) -> float:
    """Median time of a training step divided by its patches, in seconds, after one step of warm-up.

    At most eight patches a step, so that a large batch does not make the measurement long.
    """
    batch = min(train.batch_size, 8)
    steps = replace(train, batch_size=batch, budget_patches=batch * (_STEPS + 1))
    generator = np.random.default_rng(0)
    side = data.lr_patch_size
    lr = generator.integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    hr = generator.integers(0, 256, (batch, 3, side * data.scale, side * data.scale), dtype=np.uint8)
    network = A2N(model, data.scale)
    initialise(network, 0)
    state = training.start(network, steps, runtime)
    times: list[float] = []
    while state.patches < steps.budget_patches:
        begun = time.perf_counter()
        training.step(state, steps, runtime, lambda first, count: (lr, hr))
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:]) / batch


def fastest(model: ModelConfig, data: DataConfig, train: TrainConfig, device: str | None = None) -> Runtime:
    """Settings for training this configuration here: one thread, unless one per core is clearly faster.

    A step of a small network is many short operations; splitting each among threads costs more than it gains, and
    far more where another process wants the core.
    """
    one, all_cores = resolve(device=device, threads=1), resolve(device=device, threads=cores())
    if one == all_cores or one.device != "cpu":
        return all_cores
    times = []
    for runtime in (one, all_cores):
        runtime.apply()
        times.append(seconds_per_patch(model, data, train, runtime))
    return all_cores if times[1] < _CLEARLY_FASTER * times[0] else one
