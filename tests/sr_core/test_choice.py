"""The choice of settings for a study, from measurements and the length of the study."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from sr_core.training import choice, speed
from sr_core.training.choice import choose
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.speed import Speed, measure

MODEL = ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1)
DATA = DataConfig(lr_patch_size=8)
TRAIN = TrainConfig(batch_size=4, budget_patches=4)


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


class Bench:
    """Stands in for the measurements, with given speeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        self.one = 1e-2
        self.all = 9e-3
        self.compiled = 7e-3
        self.graphed = 5e-3
        self.contiguous = 2.0  # times as long
        self.warm_up = 40.0
        self.micro_batch = 0
        self.broken = False
        self.shares: list[float] = []
        self.capability = 9, 0  # of the GPU
        self.tried: list[str] = []
        monkeypatch.setattr(choice, "measure", self)
        monkeypatch.setattr(choice, "can_compile", lambda device: True)

    def __call__(self, model: object, data: object, train: object, runtime: Runtime, **_: object) -> Speed:
        self.tried.append(runtime.engine + "+" * runtime.compiled)
        if self.broken and runtime.compiled:
            raise RuntimeError("no header files")
        seconds = self.one if runtime.threads == 1 else self.all
        if runtime.memory_format == "contiguous":
            seconds *= self.contiguous
        if runtime.engine == "compiled":
            seconds = self.compiled
        elif runtime.engine == "graphed":
            seconds = self.graphed * (0.5 if runtime.compiled else 1.0)
        return Speed(seconds, self.warm_up if runtime.compiled else 0.1, self.micro_batch)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.mark.parametrize(("one", "both", "threads"), [(1.0, 0.5, 4), (1.0, 0.75, 4), (1.0, 0.9, 1), (1.0, 1.5, 1)])
def test_one_thread_trains_unless_more_are_faster(bench: Bench, one: float, both: float, threads: int) -> None:
    bench.one = one
    bench.all = both
    assert choose(MODEL, DATA, TRAIN, cores_to_use=4).threads == threads


@pytest.mark.parametrize(("all_cores", "threads", "slow"), [(0.7, 4, 1), (0.7, 4, 5), (1.0, 1, 0), (1.0, 1, 4)])
def test_one_hiccup_does_not_decide_the_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, all_cores: float, threads: int, slow: int
) -> None:
    """The measurement number `slow` takes ten times as long. One thread and all cores take turns."""

    def measured(*args: Any, **options: Any) -> Speed:
        speed = bench(*args, **options)
        factor = 10.0 if len(bench.tried) == slow + 1 else 1
        return replace(speed, seconds_per_patch=speed.seconds_per_patch * factor)

    monkeypatch.setattr(choice, "measure", measured)
    bench.one = 1.0
    bench.all = all_cores
    assert choose(MODEL, DATA, TRAIN, cores_to_use=4).threads == threads


@pytest.mark.parametrize(
    ("value", "threads"), [("1", 1), ("2", 2), ("3,2", 3), ("64", 4), ("", 4), ("many", 4), ("0", 4)]
)
def test_the_threads_that_the_environment_allows_are_the_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, value: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    bench.one = 1.0
    bench.all = 0.5
    assert choose(MODEL, DATA, TRAIN, cores_to_use=4).threads == threads


def test_a_slot_of_one_core_has_one_thread_and_nothing_to_compare(bench: Bench) -> None:
    assert choose(MODEL, DATA, TRAIN, cores_to_use=1).threads == 1
    assert bench.tried == ["eager"] * 3, "two memory formats, then the better one"


@pytest.mark.parametrize(("times", "layout"), [(0.5, "contiguous"), (0.8, "channels_last"), (1.5, "channels_last")])
def test_channels_lie_last_unless_contiguous_is_faster(bench: Bench, times: float, layout: str) -> None:
    bench.contiguous = times
    assert choose(MODEL, DATA, TRAIN).memory_format == layout


def test_a_short_study_stays_eager_without_trying(bench: Bench) -> None:
    assert choose(MODEL, DATA, TRAIN, patches=10_000).engine == "eager"
    assert "compiled+" not in bench.tried


# Each patch saves 3 ms, and compiling a shape takes 40 s, which must be saved twice: 26,667 patches per shape.
@pytest.mark.parametrize(
    ("patches", "shapes", "engine"),
    [(26_000, 1, "eager"), (27_000, 1, "compiled"), (80_000, 4, "eager"), (107_000, 4, "compiled")],
)
def test_compilation_has_to_save_twice_its_time(bench: Bench, patches: int, shapes: int, engine: str) -> None:
    chosen = choose(MODEL, DATA, TRAIN, cores_to_use=1, patches=patches, shapes=shapes)
    assert (chosen.engine, chosen.compiled) == (engine, engine == "compiled")


def test_without_a_compiler_a_long_study_stays_eager(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "can_compile", lambda device: False)
    assert choose(MODEL, DATA, TRAIN, patches=10**9).engine == "eager"
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        choose(MODEL, DATA, replace(TRAIN, engine="compiled"))


def test_a_compiler_that_fails_is_one_line_and_the_study_stays_eager(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def speed(*args: Any, **options: Any) -> Speed:
        if args[3].compiled:
            raise RuntimeError("\nCppCompileError: Python.h is not there\nCommand: g++ …")
        return bench(*args, **options)

    monkeypatch.setattr(choice, "measure", speed)
    assert choose(MODEL, DATA, TRAIN, patches=10**9).engine == "eager"
    assert caplog.messages == ["engine compiled cannot be used here: CppCompileError: Python.h is not there"]


def test_a_named_engine_is_taken_as_it_is(bench: Bench) -> None:
    assert choose(MODEL, DATA, replace(TRAIN, engine="compiled"), patches=1).engine == "compiled"
    assert choose(MODEL, DATA, replace(TRAIN, engine="eager"), patches=10**9).engine == "eager"
    bench.broken = True
    with pytest.raises(ConfigError, match="compiled does not work on this machine"):
        choose(MODEL, DATA, replace(TRAIN, engine="compiled"))
    with pytest.raises(ConfigError, match="graphed needs a CUDA device"):
        choose(MODEL, DATA, replace(TRAIN, engine="graphed"))


@pytest.fixture
def cuda(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    on_cpu = resolve(threads=1)
    gpu = replace(on_cpu, device="cuda:0", device_name="a GPU", deterministic=False)
    monkeypatch.setattr(choice, "resolve", lambda device, threads: gpu)
    monkeypatch.setattr(Runtime, "apply", lambda self: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: bench.capability)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60 << 30, 80 << 30))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share: bench.shares.append(round(share, 4))
    )
    return bench


def test_a_gpu_gets_a_captured_step_and_bf16_and_a_compiled_one_if_it_pays(cuda: Bench) -> None:
    short = choose(MODEL, DATA, TRAIN, device="cuda:0", patches=10_000)
    assert (short.engine, short.compiled, short.precision, short.deterministic) == ("graphed", False, "bf16", False)
    long = choose(MODEL, DATA, TRAIN, device="cuda:0", patches=10**6)
    assert (long.engine, long.compiled) == ("graphed", True)
    named = choose(MODEL, DATA, replace(TRAIN, precision="fp32", deterministic=True), device="cuda:0")
    assert (named.precision, named.deterministic, named.promises_bits) == ("fp32", True, True)


def test_a_gpu_that_only_emulates_bf16_computes_in_fp32_unless_bf16_is_named(cuda: Bench) -> None:
    cuda.capability = 7, 5
    assert choose(MODEL, DATA, TRAIN, device="cuda:0").precision == "fp32"
    assert choose(MODEL, DATA, replace(TRAIN, precision="bf16"), device="cuda:0").precision == "bf16"


def test_tf32_is_used_if_named_and_refused_if_the_gpu_lacks_it(cuda: Bench) -> None:
    train = replace(TRAIN, precision="tf32")
    assert choose(MODEL, DATA, train, device="cuda:0").precision == "tf32"
    cuda.capability = 7, 5
    with pytest.raises(ConfigError, match=r"train\.precision tf32 needs a CUDA device of compute capability 8\.0"):
        choose(MODEL, DATA, train, device="cuda:0")


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(ConfigError, match="got cpu: use fp32"):
        choose(MODEL, DATA, replace(TRAIN, precision="tf32"))


def test_trainings_on_the_same_device_are_measured_with_their_share_of_the_free_memory(cuda: Bench) -> None:
    choose(MODEL, DATA, TRAIN, device="cuda:0", trainings_per_device=3)
    assert cuda.shares == [0.225, 1.0], "a third of nine tenths of three quarters, then all again"


def test_the_micro_batch_is_what_fitted_when_it_was_measured(cuda: Bench) -> None:
    cuda.micro_batch = 2
    assert choose(MODEL, DATA, TRAIN, device="cuda:0", patches=10_000).micro_batch == 2


def test_measuring_leaves_no_trace_in_the_random_state() -> None:
    runtime = resolve(threads=1)
    runtime.apply()
    before = torch.random.get_rng_state()
    speed = measure(MODEL, DATA, TRAIN, runtime)
    assert 0 < speed.seconds_per_patch < 1 and speed.micro_batch == 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_on_many_cores_a_few_threads_are_tried_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 1.0, 2: 0.7, 4: 0.5, 8: 0.45, 32: 2.0}
    tried: list[int] = []

    def speed(*args: Any, **options: Any) -> Speed:
        tried.append(args[3].threads)
        return replace(bench(*args, **options), seconds_per_patch=seconds[args[3].threads])

    monkeypatch.setattr(choice, "measure", speed)
    assert choose(MODEL, DATA, TRAIN, cores_to_use=32).threads == 4, "eight save less than they are worth"
    assert tried[:5] == [1, 2, 4, 8, 32]


@pytest.mark.parametrize(("cores", "threads"), [(15, {1, 15}), (16, {1, 2, 4, 8, 16})])
def test_below_16_cores_one_thread_and_all_are_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cores: int, threads: set[int]
) -> None:
    tried: set[int] = set()

    def speed(*args: Any, **options: Any) -> Speed:
        tried.add(args[3].threads)
        return bench(*args, **options)

    monkeypatch.setattr(choice, "measure", speed)
    choose(MODEL, DATA, TRAIN, cores_to_use=cores)
    assert tried == threads


def test_the_environment_s_threads_bound_those_that_are_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    bench.one = 1.0
    bench.all = 0.5
    assert choose(MODEL, DATA, TRAIN, cores_to_use=64).threads == 4


def test_the_micro_batch_is_looked_for_in_the_memory_that_the_pixels_leave(cuda: Bench) -> None:
    choose(MODEL, DATA, TRAIN, device="cuda:0", pixels=8 << 30)
    choose(MODEL, DATA, TRAIN, device="cuda:0", trainings_per_device=2, pixels=8 << 30)
    choose(MODEL, DATA, TRAIN, device="cuda:0", pixels=25 << 30)
    assert cuda.shares[::2] == [
        round((54 - 8) / 80, 4),
        round((27 - 8) / 80, 4),
        round(54 / 80, 4),
    ], "pixels that take more than 40 % of what is free stay on the host"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), RuntimeError("CUDA error: out of memory")])
def test_a_device_without_room_for_one_patch_is_one_line(
    cuda: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def speed(*_: Any, **__: Any) -> Speed:
        raise error

    monkeypatch.setattr(choice, "measure", speed)
    with pytest.raises(ConfigError, match="out of memory on cuda:0 with a single patch"):
        choose(MODEL, DATA, TRAIN, device="cuda:0")
    assert cuda.shares[-1] == 1.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Scripted:
    """A captured step: three steps without a graph, then the capture, which runs out of memory `failures` times."""

    def __init__(self, clock: Clock, failures: int) -> None:
        self.clock = clock
        self.failures = failures
        self.micro_batch = 0
        self.replays = False
        self.alone = 0

    def __call__(self) -> None:
        if self.replays:
            self.clock.now += 1.0
        elif self.alone < 3:
            self.clock.now += 100.0
            self.alone += 1
        elif self.failures:
            self.failures -= 1
            self.micro_batch = 4
            self.alone = 1
            self.clock.now += 150.0
        else:
            self.replays = True
            self.clock.now += 51.0


@pytest.mark.parametrize(("failures", "warm_up"), [(0, 347.0), (1, 694.0)])
def test_steps_alone_after_a_capture_that_found_no_memory_are_not_timed_as_captured(
    monkeypatch: pytest.MonkeyPatch, failures: int, warm_up: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(speed, "_ENOUGH_SECONDS", 100.0)
    monkeypatch.setattr(speed, "start", lambda *_: None)
    monkeypatch.setattr(speed, "Step", lambda *_: Scripted(clock, failures))
    measured = measure(MODEL, DATA, TRAIN, replace(resolve(threads=1), engine="graphed"))
    assert measured.seconds_per_patch == 1.0 / 4
    assert measured.seconds_to_warm_up == warm_up
    assert measured.micro_batch == (4 if failures else 0)


def test_where_memory_runs_out_later_the_time_is_that_of_the_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    class Halved:
        micro_batch = 0
        replays = False
        steps = 0

        def __call__(self) -> None:
            self.steps += 1
            if self.steps == 4:
                self.micro_batch = 2
            clock.now += 1.0 if self.steps < 4 else 3.0

    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(speed, "_ENOUGH_SECONDS", 100.0)
    monkeypatch.setattr(speed, "start", lambda *_: None)
    monkeypatch.setattr(speed, "Step", lambda *_: Halved())
    measured = measure(MODEL, DATA, TRAIN, resolve(threads=1))
    assert (measured.seconds_per_patch, measured.micro_batch) == (3.0 / 4, 2)
