"""Equal floats on all threads: vector math is initialised on one thread, and all threads flush subnormals or none."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.errors import SuiteError
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.validation import Crop
from sr_core.process.floats import (
    VECTOR_MATH,
    can_flush,
    check_that_threads_agree,
    flush_subnormals,
    flushing,
    settle_vector_math,
)
from sr_core.training.choice import choose
from sr_core.training.own_thread import OwnThread, inference_thread
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.scoring import CropScorer
from sr_core.training.step import Step, start

ROOT = Path(__file__).resolve().parents[2]
MODEL = ModelConfig(n_feats=8, n_blocks=1, reduction=4)
SUBNORMAL = 1e-310

needs_flushing = pytest.mark.skipif(not can_flush(), reason="this CPU has no mode that flushes subnormal numbers")


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    flush_subnormals(False)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def in_a_thread(work: Any) -> Any:
    """Run the work in a new thread with default settings, and return its result."""
    with OwnThread(lambda: None) as thread:
        return thread(work)


def python_keeps_subnormals() -> bool:
    return SUBNORMAL * float("1") != 0


class Calls(TorchDispatchMode):
    """Records the name of every operation and the number of threads that torch may use for it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.elements: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        self.elements += [arg.numel() for arg in args if isinstance(arg, torch.Tensor)]
        return func(*args, **(kwargs or {}))


# Vector math


def test_each_vector_function_is_called_in_both_types_on_too_few_elements_for_two_threads() -> None:
    with Calls() as calls:
        settle_vector_math()
    assert {name: calls.names.count(name) for name in VECTOR_MATH} == dict.fromkeys(VECTOR_MATH, 2)
    assert max(calls.elements) < 2048


def test_settings_settle_vector_math_before_they_set_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sqrt = torch.sqrt
    monkeypatch.setattr(torch, "sqrt", lambda x: order.append("sqrt") or sqrt(x))  # type: ignore[func-returns-value]
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: order.append("threads"))
    replace(resolve(threads=2), flush_subnormals=False).apply()
    assert order == ["sqrt", "sqrt", "threads"]


@pytest.mark.parametrize("loss", ["l1", "l2", "charbonnier"])
def test_what_a_training_and_its_validations_take_from_vector_math_is_settled(loss: Any) -> None:
    runtime = resolve(threads=1)
    train = TrainConfig(loss=loss, batch_size=2, budget_patches=4)
    generator = np.random.default_rng(0)
    lr = generator.integers(0, 256, (2, 3, 12, 12), dtype=np.uint8)
    hr = generator.integers(0, 256, (2, 3, 24, 24), dtype=np.uint8)
    network = A2N(MODEL, 2)
    initialise(network, 0)
    step = Step(start(network, train, runtime), train, runtime, lambda first, count: (lr, hr))
    crops = [Crop("a", lr[0].transpose(1, 2, 0).copy(), hr[0].transpose(1, 2, 0).copy())]
    with Calls() as calls:
        step()
        CropScorer(crops, scale=2, protocol="canonical", runtime=runtime)(network)
    # Of ATen's functions with one input that MKL computes; sigmoid, softmax and the fused Adam have code of their own.
    of_mkl = {"acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin", "sqrt"}
    of_mkl |= {"tan", "tanh", "trunc", "expm1", "log1p", "sinh", "cosh"}
    assert set(calls.names) & of_mkl == ({"sqrt"} if loss == "charbonnier" else set())
    assert set(calls.names) & of_mkl <= set(VECTOR_MATH)


def test_a_network_that_only_enlarges_settles_vector_math_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[str] = []
    monkeypatch.setattr("sr_core.model.inference.settle_vector_math", lambda: settled.append("settled"))
    super_resolve(A2N(MODEL, 2), np.zeros((8, 8, 3), np.uint8))
    assert settled == ["settled"]


# Subnormal numbers


@needs_flushing
def test_every_thread_of_a_training_flushes_and_the_caller_s_arithmetic_does_not() -> None:
    torch.ones(1 << 18).mul_(2)  # starts the OpenMP threads of the caller
    with OwnThread(resolve(threads=3).apply) as thread:
        assert thread(flushing) == {True}
        assert thread(python_keeps_subnormals) is False
        assert python_keeps_subnormals()
        assert thread(torch.get_num_threads) == 3
    assert flushing() == {False}


def test_settings_of_an_old_record_flush_nothing_in_any_thread() -> None:
    stored = resolve(threads=2).to_json()
    del stored["flush_subnormals"]
    old = Runtime.from_json(stored)
    assert (old.flush_subnormals, old.here().flush_subnormals, old.unmet()) == (False, False, [])
    with OwnThread(old.apply) as thread:
        assert thread(flushing) == {False}


@needs_flushing
def test_new_settings_flush_on_a_cpu_and_keep_it_through_the_record() -> None:
    here = resolve(threads=1)
    assert here.flush_subnormals
    assert Runtime.from_json(here.to_json()) == here


def test_a_cpu_that_cannot_flush_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = replace(resolve(threads=1), flush_subnormals=True)
    monkeypatch.setattr("sr_core.training.runtime.can_flush", lambda: False)
    assert recorded.unmet() == ["flush_subnormals True then, False here"]
    assert resolve(threads=1).flush_subnormals is False


@needs_flushing
def test_threads_that_do_not_flush_alike_are_refused() -> None:
    def born_before() -> None:
        torch.set_num_threads(2)
        torch.ones(1 << 18).mul_(2)
        flush_subnormals(True)

    with pytest.raises(SuiteError, match="some threads of this process flush subnormal numbers and some do not"):
        OwnThread(born_before)

    def mixed() -> set[bool]:
        born_before()
        with pytest.raises(SuiteError, match="set OMP_NUM_THREADS=1"):
            check_that_threads_agree()
        return flushing()

    assert in_a_thread(mixed) == {True, False}


@needs_flushing
def test_settings_are_measured_and_chosen_without_subnormals_and_leave_the_caller_s_alone() -> None:
    flushed: list[set[bool]] = []

    measured = torch.Tensor.backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        flushed.append(flushing())
        return measured(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", backward)
        data = DataConfig(lr_patch_size=8)
        train = TrainConfig(batch_size=2, budget_patches=2)
        assert choose(MODEL, data, train, patches=2).flush_subnormals
    assert flushed and all(modes == {True} for modes in flushed)
    assert python_keeps_subnormals()


# A thread with settings of its own


def test_an_error_of_the_work_is_raised_and_the_thread_continues() -> None:
    with OwnThread(lambda: None) as thread:
        with pytest.raises(ZeroDivisionError):
            thread(lambda: 1 / 0)
        assert thread(lambda x, y: x + y, 1, y=2) == 3
        assert not thread.ended
    assert thread.ended
    thread.close()


def test_an_error_of_the_settings_ends_the_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        OwnThread(lambda: 1 / 0)  # type: ignore[func-returns-value,arg-type,return-value]
    assert threading.active_count() == before


def test_ctrl_c_interrupts_the_work_and_ends_its_thread() -> None:
    left: list[str] = []

    def work() -> None:
        try:
            threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
            while True:
                time.sleep(0.005)
        finally:
            left.append("cleaned up")

    with OwnThread(lambda: None) as thread:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            thread(work)
        assert time.monotonic() - begun < 3
        assert thread.ended
    assert left == ["cleaned up"]


def test_a_thread_that_only_enlarges_flushes_if_it_may() -> None:
    with inference_thread(flush=False) as thread:
        assert thread(flushing) == {False}
    with inference_thread() as thread:
        assert thread(flushing) == {can_flush()}


# Measured


@pytest.mark.slow
def test_a_configuration_full_of_subnormals_trains_as_fast_at_its_end_and_to_the_same_weights() -> None:
    benchmark = runpy.run_path(str(ROOT / "benchmarks/subnormals.py"))
    train = benchmark["train"]
    config = benchmark["configuration"](255, 0.1, "l2")
    flushed_seconds, flushed_weights = train(config, 160, flush=can_flush())
    kept_seconds, kept_weights = train(config, 160, flush=False)
    assert flushed_weights == kept_weights
    if can_flush():
        assert sum(flushed_seconds[-5:]) < 2 * sum(flushed_seconds[:5])
        assert sum(flushed_seconds[-5:]) < sum(kept_seconds[-5:])


@pytest.mark.slow
def test_forty_processes_whose_first_steps_use_two_threads_compute_the_same_bits() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/same_floats.py"), "--forks", "40", "--fresh", "3", "--steps", "1"]
    command += ["--batch", "8", "--cases", "blog", "--threads", "2", "--load", "0"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[1:] == ["blog         2 threads, 43 processes: different SR 1, loss 1, gradients 1, weights 1"]


@pytest.mark.parametrize("initialised", [True, False])
def test_a_thread_of_its_own_computes_on_the_gpu_of_the_thread_that_made_it(
    monkeypatch: pytest.MonkeyPatch, initialised: bool
) -> None:
    made_current: list[tuple[int, str]] = []

    def set_device(device: int) -> None:
        made_current.append((device, threading.current_thread().name))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialised)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    with OwnThread(lambda: None):
        pass
    assert made_current == ([(1, "own settings")] if initialised else []), "an unused GPU is not initialised"
