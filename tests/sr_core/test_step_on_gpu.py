"""Training steps on a GPU under every engine. The same tests run on the CPU with its plain engine.

pytest -m gpu tests/sr_core/test_step_on_gpu.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.images.files import write_png
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.placement import open_patch_source
from sr_core.patches.sampler import LANES, draw
from sr_core.store.hdf5 import PatchStore
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage
from sr_core.training.checkpoint import Mark, load_checkpoint, save_checkpoint, weights_of
from sr_core.training.compiled import can_compile
from sr_core.training.fit import SmallerMicroBatch, fit
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, TrainState, start

GPU = "cuda:0"
SEED = 5

# The ways to execute a step, by name: the changes to the basic settings of the device.
ENGINES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "eager": {"precision": "bf16"},
    "graphed": {"precision": "bf16", "engine": "graphed"},
    "compiled": {"precision": "bf16", "engine": "compiled", "compiled": True},
    "graphed and compiled": {"precision": "bf16", "engine": "graphed", "compiled": True},
}


def each(*names: str) -> pytest.MarkDecorator:
    """Run the test under each of these engines. All except the CPU engine are marked `gpu`."""
    return pytest.mark.parametrize(
        "engine", [pytest.param(name, marks=() if name == "cpu" else pytest.mark.gpu) for name in names]
    )


every_engine = each(*ENGINES)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Bench(NamedTuple):
    """The parts of a training, in a size that suits the device."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    steps: int


ON_CPU = Bench(
    ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1, temperature=1.0),
    DataConfig(lr_patch_size=12, train_kernel="nearest"),
    TrainConfig(batch_size=4, budget_patches=4_000, learning_rate=1e-3, adam_eps=1e-3),
    steps=20,
)
ON_GPU = Bench(
    ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2, temperature=1.0),
    DataConfig(lr_patch_size=64, train_kernel="nearest"),
    TrainConfig(batch_size=32, budget_patches=32_000, learning_rate=1e-3, adam_eps=1e-3),
    steps=200,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    """Smooth images of several sizes, which a network can learn."""
    folder = tmp_path_factory.mktemp("images")
    listed = []
    for number, (height, width) in enumerate([(160, 300), (256, 256), (200, 140)]):
        y, x = np.mgrid[:height, :width] / 40
        waves = [np.sin(y * (c + 1) + number) * np.cos(x * (2 - c / 2)) for c in range(3)]
        write_png(folder / f"{number}.png", (127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8))
        listed.append(SourceImage(f"p{number}", folder / f"{number}.png"))
    return prepare_store(folder / "s.h5", ImageSet("test", tuple(listed), ()), [("train", 2, "nearest")], workers=1)


@pytest.fixture(autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def runtime_of(engine: str) -> Runtime:
    """Apply these settings, or skip the test if this machine does not support them."""
    device = None if engine == "cpu" else GPU
    if device and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    runtime = replace(resolve(device=device, threads=1), deterministic=True, **ENGINES[engine])
    if runtime.compiled and not can_compile(runtime.device):
        pytest.skip("torch finds nothing to compile with here")
    runtime.apply()
    return runtime


def bench_of(runtime: Runtime) -> Bench:
    return ON_CPU if runtime.device == "cpu" else ON_GPU


def begin(runtime: Runtime, model: ModelConfig | None = None) -> TrainState:
    bench = bench_of(runtime)
    network = A2N(model or bench.model, 2)
    initialise(network, 0)
    return start(network, bench.train, runtime)


def step_of(state: TrainState, runtime: Runtime, store: PatchStore) -> Step:
    bench = bench_of(runtime)
    patches = open_patch_source(store, 2, runtime.device, "device").patches(bench.data, SEED)
    return Step(state, bench.train, runtime, patches.batch)


def trained(runtime: Runtime, store: PatchStore, count: int, *, to: TrainState | None = None) -> TrainState:
    state = to or begin(runtime)
    step = step_of(state, runtime, store)
    for _ in range(count):
        step()
    return state


def differing(one: TrainState, other: TrainState) -> list[str]:
    """The names of the weights and averages that are not bitwise equal."""
    pairs = ((one.model, other.model), (one.average.model, other.average.model))
    return [
        name
        for left, right in pairs
        for name, tensor in weights_of(left).items()
        if not torch.equal(tensor, weights_of(right)[name])
    ]


@contextmanager
def no_waiting(runtime: Runtime) -> Iterator[None]:
    """Raise an error if the host waits for the GPU."""
    if runtime.device == "cpu":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Numbers and pixels


@each("cpu", "eager")
def test_the_device_draws_numpys_numbers(engine: str) -> None:
    device = runtime_of(engine).device
    for first in (0, 2**40, 2**63 - 100_000):
        k = np.arange(first, first + 99_999, dtype=np.int64)
        for lane in range(LANES):
            there = draw(7, torch.from_numpy(k).to(device), lane).cpu().numpy()
            np.testing.assert_array_equal(there, draw(7, k, lane))


@every_engine
def test_a_step_trains_on_the_hosts_patches_wherever_they_are_drawn(store: PatchStore, engine: str) -> None:
    runtime = runtime_of(engine)
    bench = bench_of(runtime)
    state = begin(runtime)
    step = step_of(state, runtime, store)
    host = open_patch_source(store, 2, "cpu", "host").patches(bench.data, SEED)
    for number in range(STEPS_BEFORE_CAPTURE + 4):
        if number == STEPS_BEFORE_CAPTURE + 3:
            state.patches = 2**40 * bench.train.batch_size  # as if another state had been loaded
        expected = host.batch(state.patches, bench.train.batch_size)
        step()
        for place, pixels in zip(step._inputs.places, expected, strict=True):
            seen = (place * 255).round().to(torch.uint8).cpu().numpy()  # a GPU multiplies by the rounded 1 / 255
            np.testing.assert_array_equal(seen, pixels)


# Steps


@every_engine
def test_a_step_learns_as_the_eager_one_does(store: PatchStore, engine: str) -> None:
    runtime = runtime_of(engine)
    plain = replace(runtime, engine="eager", compiled=False)
    found = trained(runtime, store, 12)
    expected = trained(plain, store, 12)
    moved = {name: tensor.float().cpu() for name, tensor in weights_of(found.model).items()}
    gap = max(float((moved[n] - t.float().cpu()).abs().max()) for n, t in weights_of(expected.model).items())
    gap /= bench_of(runtime).train.learning_rate
    print(f"{engine}: loss {found.mean_loss:.6g}, eager {expected.mean_loss:.6g}; weights {gap:.1e} learning rates")
    # The same kernels replayed differ by the rounding of the rate alone; compiled code rounds bf16 at other places.
    loss_tolerance, weight_tolerance = (2e-2, 2.0) if runtime.compiled else (1e-4, 1e-1)
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=loss_tolerance)
    assert gap < weight_tolerance


@every_engine
def test_two_trainings_have_the_same_bits(store: PatchStore, engine: str) -> None:
    runtime = runtime_of(engine)
    first = trained(runtime, store, 20)
    second = trained(runtime, store, 20)
    assert differing(first, second) == []
    assert first.mean_loss == second.mean_loss


@every_engine
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    store: PatchStore, engine: str, tmp_path: Path
) -> None:
    """The resumed run executes its first steps kernel by kernel, while the other run replays a graph."""
    runtime = runtime_of(engine)
    whole = trained(runtime, store, 16)
    save_checkpoint(tmp_path / "checkpoint", trained(runtime, store, 8), Mark("", 0))
    resumed = begin(runtime)
    load_checkpoint(tmp_path / "checkpoint", resumed, Mark("", 0))
    trained(runtime, store, 8, to=resumed)
    assert resumed.patches == whole.patches
    assert differing(resumed, whole) == []


@each("cpu", "eager", "graphed")  # smaller parts have another shape, which would have to be compiled
def test_a_batch_in_parts_takes_the_same_step(store: PatchStore, engine: str) -> None:
    runtime = runtime_of(engine)
    parts = replace(runtime, micro_batch=bench_of(runtime).train.batch_size // 2)
    whole = trained(runtime, store, 8)
    split = trained(parts, store, 8)
    assert split.mean_loss == pytest.approx(whole.mean_loss, rel=1e-2)
    assert split.patches == whole.patches


@every_engine
def test_no_step_waits_for_the_device(store: PatchStore, engine: str) -> None:
    runtime = runtime_of(engine)
    state = begin(runtime)
    step = step_of(state, runtime, store)
    for _ in range(STEPS_BEFORE_CAPTURE + 3):
        step()
    with no_waiting(runtime):
        for _ in range(bench_of(runtime).steps):
            step()
    assert np.isfinite(state.mean_loss)


# Memory


@contextmanager
def at_most(more_bytes: float) -> Iterator[None]:
    """Limit the additional GPU memory of this process to this many bytes."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(GPU)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + more_bytes) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("engine", ["eager", "graphed"])
def test_memory_that_runs_out_halves_the_parts_and_the_training_continues(store: PatchStore, engine: str) -> None:
    """The full network needs 54 MB per patch for its backward pass, so 32 patches need 1.7 GB, more than available."""
    runtime = runtime_of(engine)
    state = begin(runtime, ModelConfig())
    events = []
    train = replace(ON_GPU.train, budget_patches=32 * 12)
    patches = open_patch_source(store, 2, runtime.device, "device").patches(ON_GPU.data, SEED)
    with at_most(1.2e9):
        for event in fit(
            state, train, runtime, batches=patches.batch, validate=lambda model: {"val/psnr": 1.0}, validate_every=384
        ):
            events.append(event)
    reduced = [event.micro_batch for event in events if isinstance(event, SmallerMicroBatch)]
    print(f"{engine}: with 1.2 GB, 32 patches go through the network {reduced} at a time")
    assert reduced and 0 < reduced[-1] < 32
    assert reduced == sorted(reduced, reverse=True)
    assert state.patches == train.budget_patches
