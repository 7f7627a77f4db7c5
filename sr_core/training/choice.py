"""Chooses the fastest settings for a study on this machine, once, from measurements.

The measurements take seconds for a small network, and longer for the full network on a CPU.
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

_MAX_TIME_WITH_ALL_CORES = 0.85
"""Use all cores if a step takes at most this fraction of its single-thread time. With two cores the quickstart's
network takes 0.65 to 0.75 and a tiny network 1. The bound lies between them, because a choice that differs from day to
day would make the same command give different bits."""
_MIN_CORES_FOR_FEW_THREADS = 16
"""With this many cores, a few threads are tried as well, because they may be fastest for a small network."""
_FEW_THREADS = (2, 4, 8)
_THREAD_ROUNDS = 3
"""Number of rounds in which the numbers of threads are compared."""
_MAX_THREAD_SECONDS = 5.0
"""No further round is started after this time."""
_MAX_TIME_CONTIGUOUS = {"cpu": 0.7, "cuda": 0.95}
"""Use contiguous tensors if a step takes less than this fraction of its time with channels last. On a CPU contiguous
tensors take 1.7 times as long for the full network. For a tiny network both take about equally long, and the same
command should give the same bits every day."""
_COMPILATION_SECONDS = {"cpu": 30.0, "cuda": 60.0}
"""Estimated time to compile a network."""
_MAX_TIME_SAVED = {"cpu": 0.3, "cuda": 0.7}
"""The largest fraction of a step's time that compilation has saved. It is not tried if even this would not pay off."""
_MIN_PAYBACK = 2.0
"""Compile if the study saves at least this multiple of the compilation time."""


def choose(
    model: ModelConfig,
    data: DataConfig,
    train: TrainConfig,
    *,
    device: str | None = None,
    cores_to_use: int | None = None,
    trainings_per_device: int = 1,
    pixels: int = 0,
    patches: int = 0,
    shapes: int = 1,
) -> Runtime:
    """Choose the settings for training this configuration, and others of the same study, on this machine.

    Leaves nothing behind except compiled code.

    Threads: on a CPU, one per available core or as many as OMP_NUM_THREADS says, if that is faster than one thread. A
        step of a tiny network consists of many short operations. Splitting them can cost more time than it saves,
        especially if another process uses the core. With 16 or more cores, 2, 4 and 8 threads are tried as well.
    Memory format: channels last, unless contiguous is clearly faster.
    Precision: `train.precision`. "auto" is bf16 on a GPU that supports it, otherwise fp32.
    Engine: `train.engine`. "auto" is the fastest engine that saves at least twice its warm-up time over the study.
    Micro-batch: as many patches as this training's share of the GPU memory holds, measured with real steps.

    Args:
        train: the training config with the largest batch size of the study.
        cores_to_use: number of cores per training. By default all cores that this process may use.
        trainings_per_device: number of trainings that share the device.
        pixels: bytes of the training images, which each training keeps on the GPU if they fit.
        patches: number of patches that the whole study trains, which decides whether compilation pays off.
        shapes: number of compilations in the study: its different networks and batch shapes, times the number of
            processes that train at once.
    Raises:
        ConfigError: the device does not exist, does not support `train.engine` or `train.precision`, or lacks memory
            for one patch.
    """
    plain = resolve(device=device, threads=1)
    on_cpu = plain.device == "cpu"
    available = cores_to_use or cores()
    plain = replace(
        plain,
        threads=1 if on_cpu else available,
        deterministic=on_cpu if train.deterministic is None else train.deterministic,
        precision=_precision(train, plain.device),
    )
    _check_possible(train.engine, plain.device)

    def fastest() -> Runtime:
        with _share_of_memory(plain.device, trainings_per_device, pixels):
            return _fastest(model, data, train, plain, available, patches, shapes)

    try:
        # A thread of its own, as for a training, so that the arithmetic settings of the caller do not change.
        with needing_gpu(plain.device), OwnThread(plain.apply) as thread:
            return thread(fastest)
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        raise ConfigError(
            f"out of memory on {plain.device} with a single patch ({reason_of(exc)}): expected memory for one; use a "
            "smaller model or data.lr_patch_size, or run fewer trials at once"
        ) from exc


def _fastest(
    model: ModelConfig, data: DataConfig, train: TrainConfig, plain: Runtime, available: int, patches: int, shapes: int
) -> Runtime:
    """Compare the settings in order: threads, memory format, then engine.

    The arguments are those of `choose`, except `plain`, the settings to improve, and `available`, the number of cores.
    """
    on_cpu = plain.device == "cpu"
    at_most = 8 if on_cpu else None
    if on_cpu:
        plain = _with_threads(model, data, train, plain, available)
    plain = _with_layout(model, data, train, plain, at_most)
    eager = measure(model, data, train, plain, at_most=at_most)
    plain = replace(plain, micro_batch=eager.micro_batch)

    if train.engine != "auto":
        named = _with_engine(plain, train.engine)
        if named.engine != "eager" and _measured(model, data, train, named, at_most) is None:
            raise ConfigError(f"train.engine {train.engine} does not work on this machine; use auto")
        return named

    best = plain
    best_seconds = eager.seconds_per_patch
    for candidate in _candidates(plain, patches * best_seconds, shapes):
        speed = _measured(model, data, train, candidate, at_most)
        if speed is None:
            continue

        # The best settings are measured again, because the machine may have become faster during compilation.
        best_seconds = min(best_seconds, measure(model, data, train, best, at_most=at_most).seconds_per_patch)
        saved = patches * (best_seconds - speed.seconds_per_patch)
        logger.info(
            "engine %s: %.0f patches/s after a warm-up of %.0f s; engine %s: %.0f patches/s",
            _described(candidate),
            1 / speed.seconds_per_patch,
            speed.seconds_to_warm_up,
            _described(best),
            1 / best_seconds,
        )
        if saved > _MIN_PAYBACK * shapes * speed.seconds_to_warm_up:
            best = replace(candidate, micro_batch=speed.micro_batch)
            best_seconds = speed.seconds_per_patch
    return best


@contextmanager
def _share_of_memory(device: str, trainings_per_device: int, pixels: int) -> Iterator[None]:
    """Limit this process to its share of the free GPU memory, minus the pixels that each training keeps there."""
    if device == "cpu":
        yield
        return
    free, total = torch.cuda.mem_get_info()  # the current device, which `Runtime.apply` has set
    pixels_fit = pixels * trainings_per_device <= DEVICE_SHARE * free  # the same rule as in `choose_by_size`
    reserved = pixels if pixels_fit else 0
    torch.cuda.set_per_process_memory_fraction((GPU_SHARE * free / trainings_per_device - reserved) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _check_possible(engine: str, device: str) -> None:
    """Check that the device supports the engine.

    Raises:
        ConfigError: it does not.
    """
    if engine == "graphed" and device == "cpu":
        raise ConfigError("train.engine graphed needs a CUDA device; use auto, eager or compiled on a CPU")
    if engine == "compiled" and not can_compile(device):
        raise ConfigError("train.engine compiled needs a C++ compiler, and Triton on CUDA: install them or use auto")


def _precision(train: TrainConfig, device: str) -> Literal["fp32", "tf32", "bf16"]:
    """The precision that the config selects on this device.

    Raises:
        ConfigError: the device does not have tf32.
    """
    # GPUs older than Ampere (compute capability 8.0) do not have TF32 and only emulate bf16.
    ampere = device != "cpu" and torch.cuda.get_device_capability(device) >= (8, 0)
    if train.precision == "auto":
        return "bf16" if ampere else "fp32"
    if train.precision == "tf32" and not ampere:
        raise ConfigError(
            f"train.precision tf32 needs a CUDA device of compute capability 8.0 or higher, got {device}: use fp32"
        )
    return train.precision


def _measured(
    model: ModelConfig, data: DataConfig, train: TrainConfig, candidate: Runtime, at_most: int | None
) -> Speed | None:
    """The speed of these settings. None, after a warning, if they do not work here.

    For example, a compiler may be installed without its headers.
    """
    try:
        return measure(model, data, train, candidate, at_most=at_most)
    except (RuntimeError, OSError, MemoryError, SubprocessError) as exc:  # from torch's compiler, Triton and CUDA
        lines = str(exc).strip().splitlines()
        reason = lines[0].strip() if lines else type(exc).__name__
        logger.warning("engine %s cannot be used here: %s", _described(candidate), reason)
        return None


def _described(runtime: Runtime) -> str:
    if runtime.engine == "graphed" and runtime.compiled:
        return "graphed and compiled"
    return runtime.engine


def _with_threads(model: ModelConfig, data: DataConfig, train: TrainConfig, one: Runtime, available: int) -> Runtime:
    """The fastest number of threads for these settings, which start with one thread."""
    max_threads = min(available, _threads_in_environment() or available)
    if max_threads == 1:
        return one

    few = _FEW_THREADS if max_threads >= _MIN_CORES_FOR_FEW_THREADS else ()
    candidates = [one, *(replace(one, threads=threads) for threads in (*few, max_threads))]
    times: dict[int, list[float]] = {runtime.threads: [] for runtime in candidates}
    started = time.perf_counter()
    # The candidates take turns, and the shortest time of each counts, so that other processes do not decide the choice.
    for _ in range(_THREAD_ROUNDS):
        for runtime in candidates:
            runtime.apply()
            times[runtime.threads].append(measure(model, data, train, runtime).seconds_per_patch)
        if time.perf_counter() - started > _MAX_THREAD_SECONDS:
            break

    best = one
    for runtime in candidates[1:]:  # from fewer to more threads
        if min(times[runtime.threads]) < _MAX_TIME_WITH_ALL_CORES * min(times[best.threads]):
            best = runtime
    best.apply()
    return best


def _threads_in_environment() -> int:
    """The number of threads in OMP_NUM_THREADS, which torch, BLAS and batch systems use. 0 if it contains none.

    The variable may be a list, of which the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 10 else 0


def _with_layout(
    model: ModelConfig, data: DataConfig, train: TrainConfig, channels_last: Runtime, at_most: int | None
) -> Runtime:
    """The faster memory format for these settings."""
    contiguous = replace(channels_last, memory_format="contiguous")
    max_time = _MAX_TIME_CONTIGUOUS["cpu" if channels_last.device == "cpu" else "cuda"]
    for _ in range(2):  # twice, so that a single slow measurement does not decide a study's bits
        seconds_channels_last = measure(model, data, train, channels_last, at_most=at_most).seconds_per_patch
        seconds_contiguous = measure(model, data, train, contiguous, at_most=at_most).seconds_per_patch
        if seconds_contiguous >= max_time * seconds_channels_last:
            return channels_last
    return contiguous


def _with_engine(plain: Runtime, engine: str) -> Runtime:
    compiled = engine == "compiled" or (engine == "graphed" and can_compile(plain.device))
    return replace(plain, engine=engine, compiled=compiled)  # type: ignore[arg-type]


def _candidates(plain: Runtime, study_seconds: float, shapes: int) -> list[Runtime]:
    """Other engines that may pay off, in the order of their warm-up time."""
    kind = "cpu" if plain.device == "cpu" else "cuda"
    may_pay = study_seconds * _MAX_TIME_SAVED[kind] > _MIN_PAYBACK * shapes * _COMPILATION_SECONDS[kind]
    compile_too = may_pay and can_compile(plain.device)
    if kind == "cpu":
        return [_with_engine(plain, "compiled")] if compile_too else []
    captured = replace(plain, engine="graphed")
    return [captured, replace(captured, compiled=True)] if compile_too else [captured]
