"""Which settings train a study fastest on this machine: decided once, from measurements.

They take seconds for a small network, and longer for the full one on a CPU.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from subprocess import SubprocessError
from typing import Literal

import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from sr_core.patches.placement import DEVICE_SHARE
from sr_core.process.machine import cores
from sr_core.process.out_of_memory import is_out_of_memory, reason_of
from sr_core.training.compiled import can_compile
from sr_core.training.memory import GPU_SHARE, needing_gpu
from sr_core.training.own_thread import OwnThread
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.speed import Speed, measure

logger = logging.getLogger(__name__)

_THREADS_PAY = 0.85
"""Of one thread's time, at which all cores are worth it. With two the quickstart's network takes 0.65 to 0.75, a tiny
one 1: the bound lies between, for a choice that differs from day to day makes the same command give other bits."""
_MANY_CORES = 16
"""From so many on, numbers of threads between one and all are tried: a small network may be fastest with few."""
_FEW_THREADS = (2, 4, 8)
_ROUNDS_OF_THREADS, _LONG_ROUND_SECONDS = 3, 5.0
"""How often, and after how long no further time."""
_FASTER = {"cpu": 0.7, "cuda": 0.95}
"""Of the time with channels last, at which contiguous tensors are worth it. On a CPU they take 1.7 times as long for
the full network; for a tiny one both take alike, and the same command should give the same bits tomorrow."""
_COMPILATION_SECONDS = {"cpu": 30.0, "cuda": 60.0}
_MOST_SAVED = {"cpu": 0.3, "cuda": 0.7}
"""What compilation has saved of a step's time at the very most: where even that does not pay, it is not tried."""
_MUST_PAY = 2.0
"""Times the compilation's own time that it must save over the study."""


def choose(
    model: ModelConfig,
    data: DataConfig,
    train: TrainConfig,
    *,
    device: str | None = None,
    cores_to_use: int | None = None,
    beside: int = 1,
    pixels: int = 0,
    patches: int = 0,
    shapes: int = 1,
) -> Runtime:
    """Settings for training this configuration, and others like it, here. Leaves no trace but compiled code.

    Threads on a CPU: one per core of its share, or as many as OMP_NUM_THREADS says, where that is faster than one: a
    step of a tiny network is many short operations, and splitting each costs more than it gains, and far more where
    another process wants the core. With 16 cores and more, 2, 4 and 8 threads are tried too. Memory format: channels
    last, unless contiguous is clearly faster. Precision: bf16 where a GPU has it, else fp32, unless `train.precision`
    names one. Engine: the fastest of those whose time to warm up is paid back twice over the study, unless
    `train.engine` names one. Micro-batch: as many patches as this training's share of a GPU's memory holds, found by
    real steps that may have no more.

    Args:
        train: with the largest batch that will be trained.
        cores_to_use: by one training; by default all that this process may use.
        beside: trainings that share the device.
        pixels: bytes of the training images, which each of them keeps on a GPU if they fit there.
        patches: that the whole study will train, by which compilation is judged.
        shapes: networks and shapes of batches among the study's configurations, each compiled anew; times the
            processes that train at once, for each may compile for itself.
    Raises:
        ConfigError: the device is not there, or cannot do what `train.engine` or `train.precision` asks, or has no
            memory for one patch.
    """
    plain = resolve(device=device, threads=1)
    on_cpu = plain.device == "cpu"
    plain = replace(
        plain,
        threads=1 if on_cpu else cores_to_use or cores(),
        deterministic=on_cpu if train.deterministic is None else train.deterministic,
        precision=_precision(train, plain.device),
    )
    _check_possible(train.engine, plain.device)

    def chosen() -> Runtime:
        with _share_of_memory(plain.device, beside, pixels):
            return _fastest(model, data, train, plain, cores_to_use or cores(), patches, shapes)

    try:
        with (
            needing_gpu(plain.device),
            OwnThread(plain.apply) as thread,
        ):  # as a training has one: the caller's arithmetic stays as it is
            return thread(chosen)
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        raise ConfigError(
            f"out of memory on {plain.device} with a single patch ({reason_of(exc)}): expected room for one; take a "
            "smaller model or data.lr_patch_size, or run fewer trials at once"
        ) from exc


def _fastest(
    model: ModelConfig, data: DataConfig, train: TrainConfig, plain: Runtime, available: int, patches: int, shapes: int
) -> Runtime:
    on_cpu = plain.device == "cpu"
    at_most = 8 if on_cpu else None
    if on_cpu:
        plain = _with_threads(model, data, train, plain, available)
    plain = _with_layout(model, data, train, plain, at_most)
    eager = measure(model, data, train, plain, at_most=at_most)
    plain = replace(plain, micro_batch=eager.micro_batch)
    if train.engine != "auto":
        named = _with_engine(plain, train.engine)
        if named.engine != "eager" and _tried(model, data, train, named, at_most) is None:
            raise ConfigError(f"train.engine {train.engine} does not work on this machine; take auto")
        return named
    best, least = plain, eager.seconds_per_patch
    for candidate in _candidates(plain, patches * least, shapes):
        found = _tried(model, data, train, candidate, at_most)
        if found is None:
            continue
        # Again, for the machine may have got faster while it compiled.
        least = min(least, measure(model, data, train, best, at_most=at_most).seconds_per_patch)
        saved = patches * (least - found.seconds_per_patch)
        logger.info(
            "engine %s: %.0f patches/s after %.0f s to warm up, %s: %.0f",
            _spoken(candidate), 1 / found.seconds_per_patch, found.seconds_to_warm_up, _spoken(best), 1 / least,
        )  # fmt: skip
        if saved > _MUST_PAY * shapes * found.seconds_to_warm_up:
            best, least = replace(candidate, micro_batch=found.micro_batch), found.seconds_per_patch
    return best


@contextmanager
def _share_of_memory(device: str, beside: int, pixels: int) -> Iterator[None]:
    """On a GPU, this process can allocate no more than one of `beside` equal parts of what is free, less the pixels."""
    if device == "cpu":
        yield
        return
    free, total = torch.cuda.mem_get_info()  # of the device that the settings made the current one
    kept = pixels if pixels * beside <= DEVICE_SHARE * free else 0  # as `choose_home` will decide
    torch.cuda.set_per_process_memory_fraction((GPU_SHARE * free / beside - kept) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _check_possible(engine: str, device: str) -> None:
    if engine == "graphed" and device == "cpu":
        raise ConfigError("train.engine graphed needs a CUDA device; on a CPU: auto, eager or compiled")
    if engine == "compiled" and not can_compile(device):
        raise ConfigError("train.engine compiled needs a C++ compiler (and Triton on CUDA); none is found: take auto")


def _precision(train: TrainConfig, device: str) -> Literal["fp32", "tf32", "bf16"]:
    # GPUs before Ampere (8.0) have no TF32 and only emulate bf16.
    ampere = device != "cpu" and torch.cuda.get_device_capability(device) >= (8, 0)
    if train.precision == "auto":
        return "bf16" if ampere else "fp32"
    if train.precision == "tf32" and not ampere:
        raise ConfigError(
            f"train.precision tf32 needs a CUDA device of compute capability 8.0 or more, got {device}: take fp32"
        )
    return train.precision


def _tried(
    model: ModelConfig, data: DataConfig, train: TrainConfig, candidate: Runtime, at_most: int | None
) -> Speed | None:
    """Its speed; None, with a line of why, where it does not work here: a compiler may be there but not its headers."""
    try:
        return measure(model, data, train, candidate, at_most=at_most)
    except (RuntimeError, OSError, MemoryError, SubprocessError) as exc:  # of torch's compiler, Triton and CUDA
        reason = next(filter(None, map(str.strip, str(exc).splitlines())), type(exc).__name__)
        logger.warning("engine %s cannot be used here: %s", _spoken(candidate), reason)
        return None


def _spoken(runtime: Runtime) -> str:
    return runtime.engine + " and compiled" * (runtime.engine == "graphed" and runtime.compiled)


def _with_threads(model: ModelConfig, data: DataConfig, train: TrainConfig, one: Runtime, available: int) -> Runtime:
    at_most = min(available, _threads_asked_for() or available)
    if at_most == 1:
        return one
    few = _FEW_THREADS if at_most >= _MANY_CORES else ()
    candidates = [one, *(replace(one, threads=threads) for threads in (*few, at_most))]
    times: dict[int, list[float]] = {runtime.threads: [] for runtime in candidates}
    begun = time.perf_counter()
    for _ in range(_ROUNDS_OF_THREADS):  # in turns, and the least of each: what else runs here must not decide it
        for runtime in candidates:
            runtime.apply()
            times[runtime.threads].append(measure(model, data, train, runtime).seconds_per_patch)
        if time.perf_counter() - begun > _LONG_ROUND_SECONDS:
            break
    best = one
    for runtime in candidates[1:]:  # more threads than before have to be worth it
        if min(times[runtime.threads]) < _THREADS_PAY * min(times[best.threads]):
            best = runtime
    best.apply()
    return best


def _threads_asked_for() -> int:
    """By the variable that torch, BLAS and batch systems share; 0 where it says nothing (it may be a list)."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 10 else 0


def _with_layout(
    model: ModelConfig, data: DataConfig, train: TrainConfig, channels_last: Runtime, at_most: int | None
) -> Runtime:
    contiguous = replace(channels_last, memory_format="contiguous")
    faster = _FASTER["cpu" if channels_last.device == "cpu" else "cuda"]
    for _ in range(2):  # a single hiccup must not decide a study's bits
        times = [
            measure(model, data, train, runtime, at_most=at_most).seconds_per_patch
            for runtime in (channels_last, contiguous)
        ]
        if times[1] >= faster * times[0]:
            return channels_last
    return contiguous


def _with_engine(plain: Runtime, engine: str) -> Runtime:
    compiled = engine == "compiled" or (engine == "graphed" and can_compile(plain.device))
    return replace(plain, engine=engine, compiled=compiled)  # type: ignore[arg-type]


def _candidates(plain: Runtime, study_seconds: float, shapes: int) -> list[Runtime]:
    """Settings worth a try beside the plain ones, in the order of their time to warm up."""
    kind = "cpu" if plain.device == "cpu" else "cuda"
    may_pay = study_seconds * _MOST_SAVED[kind] > _MUST_PAY * shapes * _COMPILATION_SECONDS[kind]
    compile_too = may_pay and can_compile(plain.device)
    if kind == "cpu":
        return [_with_engine(plain, "compiled")] if compile_too else []
    captured = replace(plain, engine="graphed")
    return [captured, replace(captured, compiled=True)] if compile_too else [captured]
