"""A training step gives the same result under every engine and in any number of parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sr_core.config import ModelConfig, TrainConfig
from sr_core.errors import DivergedError
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.checkpoint import digest_of, weights_of
from sr_core.training.compiled import can_compile
from sr_core.training.fit import SmallerMicroBatch, Validation, fit
from sr_core.training.inputs import Inputs
from sr_core.training.memory import keep_freed_memory
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, TrainState, start

MODEL = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2, temperature=1.0)
TRAIN = TrainConfig(budget_patches=48, batch_size=6, learning_rate=1e-3, ema_horizon_patches=24.0)
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def plain() -> Iterator[Runtime]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    settings = resolve(threads=1)
    settings.apply()
    yield settings
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def batches(first: int, count: int) -> tuple[Pixels, Pixels]:
    generator = np.random.default_rng(first)
    hr = generator.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    return np.ascontiguousarray(hr[..., ::2, ::2]), hr


def begin(runtime: Runtime, train: TrainConfig = TRAIN, model: ModelConfig = MODEL) -> TrainState:
    network = A2N(model, 2)
    initialise(network, 3)
    return start(network, train, runtime)


def trained(runtime: Runtime, train: TrainConfig = TRAIN, model: ModelConfig = MODEL, *, count: int = 8) -> TrainState:
    state = begin(runtime, train, model)
    step = Step(state, train, runtime, batches)
    for _ in range(count):
        step()
    return state


def digest(state: TrainState) -> tuple[str, str, float]:
    return digest_of(weights_of(state.model)), digest_of(weights_of(state.average.model)), state.mean_loss


def gap(one: TrainState, other: TrainState) -> float:
    """The largest difference of a weight, as a multiple of the learning rate. Adam moves weights by about 1 a step."""
    left = weights_of(one.model)
    right = weights_of(other.model)
    return max(float((left[name] - right[name]).abs().max()) for name in left) / TRAIN.learning_rate


# Parts of a batch


@pytest.mark.parametrize("loss_reduction", ["mean", "sum"])
@pytest.mark.parametrize("micro_batch", [1, 4, 5])  # of six patches, also in parts of unequal size
def test_a_batch_in_parts_is_the_same_step_up_to_rounding(
    plain: Runtime, micro_batch: int, loss_reduction: str
) -> None:
    train = replace(
        TRAIN, loss_reduction=loss_reduction, adam_eps=1e-3
    )  # a larger eps, so that gradients of 1e-9 do not matter
    whole = trained(plain, train)
    parts = trained(replace(plain, micro_batch=micro_batch), train)
    assert parts.mean_loss == pytest.approx(whole.mean_loss, rel=1e-5)
    assert gap(parts, whole) < 1e-2
    assert digest(parts) == digest(trained(replace(plain, micro_batch=micro_batch), train)), "and the same each time"


class Small(nn.Module):
    """A network on a device with memory for `room` patches."""

    def __init__(self, room: int, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.room = room
        self.seen: list[int] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.seen.append(len(lr))
        if len(lr) > self.room:
            raise torch.OutOfMemoryError("no room")
        return self.network(lr)  # type: ignore[no-any-return]


def confined(plain: Runtime, room: int) -> tuple[TrainState, Small]:
    network = A2N(MODEL, 2)
    initialise(network, 3)
    small = Small(room, network)
    return start(small, TRAIN, plain), small


def test_after_running_out_of_memory_the_same_batch_is_computed_in_smaller_parts(
    plain: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    state, small = confined(plain, room=2)
    Step(state, TRAIN, plain, batches)()
    assert small.seen == [6, 3, 2, 2, 2]
    assert "out of memory with 6 patches at once; from patch 0 on, 3 at once" in caplog.text
    expected = trained(replace(plain, micro_batch=2), count=1)
    assert digest_of(weights_of(small.network)) == digest_of(weights_of(expected.model))
    assert state.mean_loss == expected.mean_loss, "what was computed before the failure does not count"


def test_a_patch_that_does_not_fit_alone_is_the_end(plain: Runtime) -> None:
    state, _ = confined(plain, room=0)
    with pytest.raises(torch.OutOfMemoryError):
        Step(state, TRAIN, plain, batches)()


def fitted(
    state: TrainState, runtime: Runtime, micro_batch_changes: dict[int, int] | None = None
) -> list[Validation | SmallerMicroBatch]:
    events = fit(
        state, TRAIN, runtime, batches=batches, validate=lambda model: {"val/psnr": 1.0}, validate_every=24,
        micro_batch_changes=micro_batch_changes,
    )  # fmt: skip
    return [event for event in events if isinstance(event, Validation | SmallerMicroBatch)]


def test_a_smaller_micro_batch_is_an_event_and_a_repetition_changes_it_at_the_same_patch(plain: Runtime) -> None:
    state, small = confined(plain, room=6)
    events = []
    for event in fit(state, TRAIN, plain, batches=batches, validate=lambda model: {"val/psnr": 1.0}, validate_every=24):
        events.append(event)
        small.room = 3  # another process uses memory after the first validation
    reduced = [event for event in events if isinstance(event, SmallerMicroBatch)]
    assert reduced == [SmallerMicroBatch(24, 3)]
    again, unconfined = confined(plain, room=6)
    assert [e for e in fitted(again, plain, {24: 3}) if isinstance(e, SmallerMicroBatch)] == []
    assert unconfined.seen == [6] * 4 + [3] * 8
    assert digest_of(weights_of(unconfined)) == digest_of(weights_of(small))


def test_a_resumed_run_keeps_the_micro_batch_of_its_record(plain: Runtime) -> None:
    state, small = confined(plain, room=6)
    state.patches = 36
    fitted(state, plain, {6: 3, 24: 2})
    assert small.seen == [2] * 6


# Engines


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list["Graph"]:
    """Emulated CUDA graphs on the CPU: a capture computes nothing, and each replay computes the step."""
    captured: list[Graph] = []

    @contextmanager
    def nothing() -> Iterator[None]:
        yield

    def capture(self: Step, lr: Tensor, hr: Tensor) -> Graph:
        graph = Graph(self, lr, hr)
        captured.append(graph)
        return graph

    monkeypatch.setattr(Step, "_side_stream_context", lambda self: nothing())
    monkeypatch.setattr(Step, "_capture", capture)
    return captured


class Graph:
    def __init__(self, step: Step, lr: Tensor, hr: Tensor) -> None:
        self.step = step
        self.lr = lr
        self.hr = hr
        self.replays = 0
        self.micro_batch = step.micro_batch

    def replay(self) -> None:
        assert self.micro_batch == self.step.micro_batch, "a graph keeps the parts that it was captured with"
        self.replays += 1
        state = self.step._state
        state.optimizer.zero_grad(set_to_none=True)
        self.step._accumulate(self.lr, self.hr)
        state.optimizer.step()
        state.average.update(self.step._share)


def test_a_captured_step_reads_pixels_rates_and_shares_from_fixed_places(plain: Runtime, graphs: list[Graph]) -> None:
    captured = trained(replace(plain, engine="graphed"))
    eager = trained(plain)
    assert [graph.replays for graph in graphs] == [8 - STEPS_BEFORE_CAPTURE]
    assert gap(captured, eager) < 1e-3  # its learning rate is a float32
    assert captured.mean_loss == pytest.approx(eager.mean_loss, rel=1e-6)
    for name, weights in weights_of(captured.average.model).items():
        torch.testing.assert_close(weights, weights_of(eager.average.model)[name], rtol=0, atol=1e-6)


def test_parts_that_the_record_makes_smaller_are_warmed_up_and_captured_again(
    plain: Runtime, graphs: list[Graph]
) -> None:
    captured = replace(plain, engine="graphed")
    state = begin(captured)
    fitted(state, captured, {24: 4})  # the fifth of eight steps
    assert STEPS_BEFORE_CAPTURE == 3
    assert [(graph.micro_batch, graph.replays) for graph in graphs] == [(0, 1), (4, 1)]
    expected = begin(plain)
    fitted(expected, plain, {24: 4})
    assert gap(state, expected) < 1e-3  # its learning rate is a float32


def test_running_out_of_memory_while_capturing_warms_up_and_captures_smaller_parts(
    plain: Runtime, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Step._capture

    def capture(self: Step, lr: Tensor, hr: Tensor) -> object:
        if (self.micro_batch or len(lr)) > 3:
            raise torch.OutOfMemoryError("no memory in addition to the graph's own")
        return whole(self, lr, hr)

    monkeypatch.setattr(Step, "_capture", capture)
    state = begin(replace(plain, engine="graphed"))
    step = Step(state, TRAIN, replace(plain, engine="graphed"), batches)
    for _ in range(2 * STEPS_BEFORE_CAPTURE):
        step()
    assert step.micro_batch == 3 and not graphs, "kernels for the smaller parts are chosen outside of a capture"
    step()
    assert [(graph.micro_batch, graph.replays) for graph in graphs] == [(3, 1)]
    assert state.loss_steps == 2 * STEPS_BEFORE_CAPTURE + 1


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="torch finds no C++ compiler here")
def test_compiled_steps_learn_the_same_repeat_their_bits_and_serve_other_temperatures_losses_and_rates(
    plain: Runtime, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    compiled = replace(plain, engine="compiled", compiled=True)
    small = ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1, temperature=1.0)
    train = replace(TRAIN, adam_eps=1e-3)
    first = trained(compiled, train, small, count=3)
    assert gap(first, trained(plain, train, small, count=3)) < 1e-2
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 1
    assert digest(first) == digest(trained(compiled, train, small, count=3))
    for other_model, other_train in (
        (replace(small, temperature=30.0), train),
        (small, replace(train, loss="charbonnier", learning_rate=1e-4)),
    ):
        trained(compiled, other_train, other_model, count=1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "nothing was compiled again"


def test_bf16_arithmetic_keeps_fp32_weights_and_follows_fp32(plain: Runtime) -> None:
    whole = trained(plain)
    half = trained(replace(plain, precision="bf16"))
    assert {t.dtype for t in weights_of(half.model).values()} == {torch.float32}
    assert half.mean_loss == pytest.approx(whole.mean_loss, rel=0.02)
    assert half.mean_loss != whole.mean_loss


# Inputs and memory


def test_inputs_stay_in_place_until_their_shape_changes(plain: Runtime) -> None:
    inputs = Inputs(plain)
    first = [place.data_ptr() for place in inputs.fill(*batches(0, 4))]
    lr, hr = inputs.fill(*batches(4, 4))
    assert [lr.data_ptr(), hr.data_ptr()] == first
    expected = torch.from_numpy(batches(4, 4)[1]).float() / 255
    assert torch.equal(hr, expected) and hr.is_contiguous(memory_format=torch.channels_last)
    assert inputs.fill(*batches(4, 2))[1].shape == (2, 3, 16, 16)


def test_pixels_of_the_host_go_to_a_device_by_way_of_pinned_memory(
    plain: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    lr, hr = Inputs(replace(plain, device="meta")).fill(*batches(0, 4))
    assert [tuple(t.shape) for t in pinned] == [(4, 3, 8, 8), (4, 3, 16, 16)]
    assert lr.device.type == hr.device.type == "meta"
    pinned.clear()
    Inputs(plain).fill(*batches(0, 4))
    assert not pinned


def test_freed_memory_is_kept_if_the_c_library_is_glibc() -> None:
    import platform

    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")


def test_a_loss_that_is_not_finite_ends_the_run(plain: Runtime) -> None:
    state = begin(plain, replace(TRAIN, learning_rate=1e30))
    with pytest.raises(DivergedError, match="the training loss is"):
        list(
            fit(state, replace(TRAIN, learning_rate=1e30), plain, batches=batches,
                validate=lambda model: {"val/psnr": 1.0}, validate_every=24)
        )  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["CPU", "cuBLAS", "Python"],
)
def test_every_form_of_a_lack_of_memory_makes_the_parts_smaller(
    plain: Runtime, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    state, small = confined(plain, room=6)
    whole = small.network.forward

    def forward(lr: Tensor) -> Tensor:
        if len(lr) > 3:
            raise error
        return whole(lr)  # type: ignore[no-any-return]

    monkeypatch.setattr(small.network, "forward", forward)
    step = Step(state, TRAIN, plain, batches)
    step()
    assert (small.seen, step.micro_batch) == ([6, 3, 3], 3)


def test_another_error_in_a_step_comes_out_of_it(plain: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    state, small = confined(plain, room=6)

    def forward(lr: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setattr(small.network, "forward", forward)
    with pytest.raises(RuntimeError, match="misaligned"):
        Step(state, TRAIN, plain, batches)()
