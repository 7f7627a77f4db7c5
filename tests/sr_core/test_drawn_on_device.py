"""A captured step draws the same patches in the same order on the device, after any interruption."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.images.files import write_png
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.device import DeviceBatches
from sr_core.patches.placement import PatchSourceName, open_patch_source
from sr_core.patches.sampler import HostPatches
from sr_core.store.hdf5 import PatchStore
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage
from sr_core.training.checkpoint import Mark, digest_of, load_checkpoint, save_checkpoint, weights_of
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, TrainState, start

MODEL = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1, temperature=1.0)
TRAIN = TrainConfig(budget_patches=48, batch_size=6, learning_rate=1e-3, ema_horizon_patches=24.0)
DATA = DataConfig(lr_patch_size=9, subimage_window=60, subimage_step=30, train_kernel="nearest")
SEED = 11


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    folder = tmp_path_factory.mktemp("pictures")
    listed = []
    for number, size in enumerate([(131, 300), (64, 64), (30, 700), (200, 199)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        write_png(folder / f"{number}.png", pixels)
        listed.append(SourceImage(f"p{number}", folder / f"{number}.png"))
    lr = [("train", scale, "nearest") for scale in (2, 3)]
    return prepare_store(folder / "s.h5", ImageSet("test", tuple(listed), ()), lr, workers=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> Iterator[Runtime]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings = resolve(threads=1)
    settings.apply()
    yield settings
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


# The patches


@pytest.mark.parametrize("first", [0, 1, 10**9, 2**59 - 3, 2**63 - 150])
@pytest.mark.parametrize("augmentation", ["dihedral", "none"])
@pytest.mark.parametrize("sampling", ["images", "pixels", "subimages"])
@pytest.mark.parametrize("scale", [2, 3])
def test_a_number_on_the_device_gives_the_patches_of_the_host(
    store: PatchStore, scale: int, sampling: str, augmentation: str, first: int
) -> None:
    config = replace(DATA, scale=scale, sampling=sampling, augmentation=augmentation)
    pixels = store.training_pixels(scale, "nearest")
    expected = HostPatches(pixels.names, pixels.lr, pixels.hr, config, SEED).batch(first, 149)
    number = torch.tensor(first)
    found = open_patch_source(store, scale, "cpu", "device").patches(config, SEED).batch.at(number, 149)  # type: ignore[attr-defined]
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    assert number == first, "who draws counts"


class Launches(TorchDispatchMode):
    """The names of the operations that are kernels on a GPU, without views, allocations and profiler marks."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and not any(word in func.__name__ for word in ("empty", "detach", "record_function")):
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("sampling", "most"), [("images", 66), ("pixels", 66), ("subimages", 73)])
def test_a_batch_takes_few_kernels(store: PatchStore, sampling: str, most: int) -> None:
    batch = open_patch_source(store, 2, "cpu", "device").patches(replace(DATA, sampling=sampling), SEED).batch  # type: ignore[arg-type]
    with Launches() as launches:
        batch(0, 32)
    assert 20 < len(launches.names) <= most


# The captured step


class Graph:
    """A CUDA graph simulated on the CPU: captured work is not done at the capture, but at every replay."""

    def __init__(self, step: Step, lr: Tensor, hr: Tensor) -> None:
        self.step, self.lr, self.hr = step, lr, hr

    def replay(self) -> None:
        self.step._state.optimizer.zero_grad(set_to_none=True)
        with torch.utils._python_dispatch._disable_current_modes():  # one launch, whatever it holds
            self.step._whole(self.lr, self.hr)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    made: list[Graph] = []

    def alone(self: Step) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self: Step, lr: Tensor, hr: Tensor) -> Graph:
        made.append(Graph(self, lr, hr))
        return made[-1]

    monkeypatch.setattr(Step, "_side_stream_context", alone)
    monkeypatch.setattr(Step, "_capture", capture)
    return made


@pytest.fixture
def drawn_outside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first numbers of the batches that were requested from the device cache outside a graph."""
    asked: list[int] = []
    whole = DeviceBatches.__call__

    def call(self: DeviceBatches, first_k: int, n: int) -> tuple[Tensor, Tensor]:
        asked.append(first_k)
        return whole(self, first_k, n)

    monkeypatch.setattr(DeviceBatches, "__call__", call)
    return asked


def begin(runtime: Runtime) -> TrainState:
    network = A2N(MODEL, 2)
    initialise(network, 3)
    return start(network, TRAIN, runtime)


def steps(
    state: TrainState, runtime: Runtime, store: PatchStore, home: PatchSourceName, data: DataConfig = DATA
) -> Step:
    return Step(state, TRAIN, runtime, open_patch_source(store, 2, "cpu", home).patches(data, SEED).batch)


def trained(
    runtime: Runtime, store: PatchStore, home: PatchSourceName, data: DataConfig = DATA, count: int = 8
) -> TrainState:
    state = begin(runtime)
    step = steps(state, runtime, store, home, data)
    for _ in range(count):
        step()
    return state


def digest(state: TrainState) -> tuple[str, str, float]:
    return digest_of(weights_of(state.model)), digest_of(weights_of(state.average.model)), state.mean_loss


@pytest.mark.parametrize("micro_batch", [0, 4])
@pytest.mark.parametrize("sampling", ["images", "pixels", "subimages"])
def test_a_captured_step_trains_on_the_hosts_patches_and_draws_them_itself(
    plain: Runtime, store: PatchStore, graphs: list[Graph], drawn_outside: list[int], sampling: str, micro_batch: int
) -> None:
    captured = replace(plain, engine="graphed", micro_batch=micro_batch)
    data = replace(DATA, sampling=sampling)  # type: ignore[arg-type]
    found = trained(captured, store, "device", data)
    assert drawn_outside == [6 * n for n in range(STEPS_BEFORE_CAPTURE + 1)], "until it is captured"
    assert digest(found) == digest(trained(captured, store, "host", data))


def test_a_replayed_step_launches_its_graph_and_two_numbers(
    plain: Runtime, store: PatchStore, graphs: list[Graph]
) -> None:
    captured = replace(plain, engine="graphed")
    launched: dict[str, list[str]] = {}
    for home in ("device", "host"):
        step = steps(begin(captured), captured, store, home)  # type: ignore[arg-type]
        for _ in range(STEPS_BEFORE_CAPTURE + 2):
            step()
        with Launches() as launches:
            step()
        launched[home] = launches.names
    assert launched["device"] == ["fill_.Scalar"] * 2, "the learning rate, and the share of the average"
    assert launched["host"].count("div.out") == 2, "pixels of the host come from outside of the graph"


def test_a_resumed_step_draws_on_from_the_patch_of_its_checkpoint(
    plain: Runtime, store: PatchStore, graphs: list[Graph], tmp_path: Path
) -> None:
    captured = replace(plain, engine="graphed")
    whole = trained(captured, store, "device", count=14)
    first = trained(captured, store, "device", count=6)
    save_checkpoint(tmp_path / "checkpoint", first, Mark("", 0))
    second = begin(captured)
    load_checkpoint(tmp_path / "checkpoint", second, Mark("", 0))
    step = steps(second, captured, store, "device")
    for _ in range(8):
        step()
    assert second.patches == whole.patches == 84
    assert digest_of(weights_of(second.model)) == digest_of(weights_of(whole.model))


def test_a_state_that_is_put_back_is_drawn_from_its_own_number(
    plain: Runtime, store: PatchStore, graphs: list[Graph]
) -> None:
    captured = replace(plain, engine="graphed")
    state = begin(captured)
    step = steps(state, captured, store, "device")
    for _ in range(6):
        step()
    expected = open_patch_source(store, 2, "cpu", "host").patches(DATA, SEED).batch(12, 6)
    state.patches = 12
    step()
    for place, pixels in zip(step._inputs.places, expected, strict=True):
        assert torch.equal(place, torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255)


def test_a_capture_that_runs_out_of_memory_skips_no_patch(
    plain: Runtime, store: PatchStore, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Step._capture

    def capture(self: Step, lr: Tensor, hr: Tensor) -> object:
        if (self.micro_batch or len(lr)) > 3:
            raise torch.OutOfMemoryError("no room")
        return whole(self, lr, hr)

    monkeypatch.setattr(Step, "_capture", capture)
    captured = replace(plain, engine="graphed")
    found = trained(captured, store, "device", count=9)
    assert len(graphs) == 1
    assert digest(found) == digest(trained(captured, store, "host", count=9))


def test_steps_that_are_not_captured_take_batches_by_their_numbers(
    plain: Runtime, store: PatchStore, drawn_outside: list[int]
) -> None:
    found = trained(plain, store, "device", count=3)
    assert drawn_outside == [0, 6, 12]
    assert digest(found) == digest(trained(plain, store, "host", count=3))
