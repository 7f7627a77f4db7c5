"""Training multiplies float32 numbers as recorded, and every validation multiplies them exactly."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_core.config import ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from sr_core.metrics.evaluate import mean_score
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.validation import Crop
from sr_core.process.precision import check_environment, exact_multiplication
from sr_core.training.checkpoint import digest_of, weights_of
from sr_core.training.compiled import compiled
from sr_core.training.fit import fit
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.scoring import CropScorer
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, start
from sr_core.upscale import main as upscale

MODEL = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1)
TRAIN = TrainConfig(budget_patches=12, batch_size=2, ema_horizon_patches=24.0)
EXACT = ("ieee", "none")
"""Torch's values for all digits. "none" follows the general setting, which is also "none"."""


def settings() -> tuple[str, ...]:
    """The settings of convolutions and matrix products on a GPU and on a CPU."""
    backends: Any = torch.backends
    places = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    return tuple(place.fp32_precision for place in places)


def older_setting() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it disagrees with the newer ones
        return "mixed"


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_float32_matmul_precision("highest")
    backends: Any = torch.backends
    backends.fp32_precision = backends.mkldnn.conv.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    backends.cudnn.conv.fp32_precision = "tf32"
    backends.cuda.matmul.fp32_precision = "none"


def nothing() -> None:
    pass


def newer_tf32() -> None:
    backends: Any = torch.backends
    backends.cudnn.conv.fp32_precision = backends.cuda.matmul.fp32_precision = "tf32"


def newer_ieee() -> None:
    backends: Any = torch.backends
    backends.cudnn.conv.fp32_precision = backends.cuda.matmul.fp32_precision = "ieee"


def general_tf32() -> None:
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]


def bf16_on_a_cpu() -> None:
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


def both_ways() -> None:
    torch.set_float32_matmul_precision("high")
    newer_ieee()


CALLERS = [
    nothing,
    newer_tf32,
    newer_ieee,
    general_tf32,
    bf16_on_a_cpu,
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: torch.set_float32_matmul_precision("high"),
    both_ways,
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("fails", [False, True])
def test_a_block_computes_with_all_digits_and_leaves_the_callers_settings(
    caller: Callable[[], None], fails: bool
) -> None:
    caller()
    before = settings(), older_setting()
    try:
        with exact_multiplication():
            assert all(value in EXACT for value in settings())
            assert torch.get_float32_matmul_precision() == "highest", "as functions of torch read it"
            assert not torch.backends.cuda.matmul.allow_tf32, "which torch's compiler reads"
            if fails:
                raise ValueError("whatever")
    except ValueError:
        assert fails
    assert (settings(), older_setting()) == before


class Watched(nn.Module):
    """A network that records the settings of each call, and whether it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network = A2N(MODEL, 2)
        initialise(self.network, 3)

    def forward(self, lr: Tensor) -> Tensor:
        NOTED.append((self.training, settings()))
        sr: Tensor = self.network(lr)
        return sr


NOTED: list[tuple[bool, tuple[str, ...]]] = []
"""The calls of all copies of a network, such as the running average."""


def crops(count: int) -> list[Crop]:
    generator = np.random.default_rng(5)
    hr = generator.integers(0, 256, (count, 48, 48, 3), dtype=np.uint8)
    return [Crop(f"{number}.png", np.ascontiguousarray(one[::2, ::2]), one) for number, one in enumerate(hr)]


def scorer_of(runtime: Runtime) -> CropScorer:
    return CropScorer(crops(2), scale=2, protocol="canonical", runtime=runtime)


@pytest.mark.parametrize("caller", CALLERS)
def test_every_validation_and_enlargement_computes_with_all_digits(caller: Callable[[], None]) -> None:
    model = Watched().eval()
    scorer = scorer_of(resolve(threads=1))
    caller()
    before = settings()
    NOTED.clear()
    scorer(model)
    scorer.preview(model)
    hooked = model.network
    hooked.register_forward_hook(lambda *_: NOTED.append((False, settings())))
    super_resolve(hooked, crops(1)[0].lr)
    assert len(NOTED) == 4
    assert all(value in EXACT for _, values in NOTED for value in values)
    assert settings() == before


def test_settings_of_the_caller_change_no_bit_of_a_score_or_an_enlargement() -> None:
    """On a CPU without bf16 the test always passes."""
    model = A2N(MODEL, 2).eval()
    scorer = scorer_of(resolve(threads=1))
    initialise(model, 3)
    lr = crops(1)[0].lr
    expected = scorer(model)
    enlarged = super_resolve(model, lr)
    bf16_on_a_cpu()
    assert scorer(model) == expected
    assert np.array_equal(super_resolve(model, lr), enlarged)


@pytest.mark.parametrize(("precision", "convolutions"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_a_training_computes_as_its_record_says_before_and_after_each_validation(
    precision: Any, convolutions: str
) -> None:
    torch.set_float32_matmul_precision("medium")  # by the caller
    runtime = replace(resolve(threads=1), precision=precision)
    runtime.apply()
    NOTED.clear()
    scorer = scorer_of(runtime)
    list(
        fit(
            start(Watched(), TRAIN, runtime), TRAIN, runtime, batches=batches,
            validate=lambda model: {"val/psnr": mean_score([one for _, one in scorer(model)]).psnr}, validate_every=6,
        )
    )  # fmt: skip
    training = [values for is_training, values in NOTED if is_training]
    assert len(training) == TRAIN.budget_patches // TRAIN.batch_size
    assert set(training) == {(convolutions, "ieee", "ieee", "ieee")}
    assert [training for training, _ in NOTED].count(False) == 4, "two validations of two crops"
    assert {values for is_training, values in NOTED if not is_training} == {("ieee",) * 4}


def batches(first: int, count: int) -> tuple[Any, Any]:
    hr = np.random.default_rng(first).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
    return np.ascontiguousarray(hr[..., ::2, ::2]), hr


# Environment variables


@pytest.mark.parametrize(
    ("device", "name", "value"),
    [
        ("cuda", "NVIDIA_TF32_OVERRIDE", "0"),
        ("cuda:1", "NVIDIA_TF32_OVERRIDE", "1"),
        ("cpu", "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("cpu", "DNNL_DEFAULT_FPMATH_MODE", "any"),
    ],
)
def test_a_variable_that_overrules_the_settings_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, device: str, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^environment variable {name}={value}: expected it unset.* unset {name}$"):
        check_environment(device)


@pytest.mark.parametrize(
    ("device", "name", "value"),
    [
        ("cpu", "NVIDIA_TF32_OVERRIDE", "0"),
        ("cuda", "NVIDIA_TF32_OVERRIDE", ""),
        ("cuda", "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("cpu", "ONEDNN_DEFAULT_FPMATH_MODE", "strict"),
    ],
)
def test_a_variable_without_effect_on_the_device_is_allowed(
    monkeypatch: pytest.MonkeyPatch, device: str, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    check_environment(device)


def test_a_command_meets_such_a_variable_before_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settled = resolve(threads=1)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    out = tmp_path / "out"
    assert upscale([str(tmp_path), "--weights", str(tmp_path / "none"), "--out", str(out), "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: environment variable ONEDNN_DEFAULT_FPMATH_MODE=BF16")
    assert not out.exists()
    with pytest.raises(ConfigError, match="ONEDNN_DEFAULT_FPMATH_MODE"):
        settled.apply()


# Warnings of torch


class Stream:
    """A replacement for a CUDA stream that may be capturing."""

    capturing = False

    def is_capturing(self) -> bool:
        return self.capturing


def test_steps_alone_and_a_capture_warn_of_nothing_and_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own check of an optimiser runs here, with a device that says whether it captures."""
    stream = Stream()
    replayed = []

    @contextmanager
    def graph(_: object) -> Iterator[None]:
        stream.capturing = True
        yield
        stream.capturing = False

    @contextmanager
    def inert(*_: object) -> Iterator[None]:
        yield

    class Graph:
        def replay(self) -> None:
            replayed.append(None)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: stream.capturing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", inert)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(Step, "_side_stream_context", lambda self: inert())
    runtime = replace(resolve(threads=1), engine="graphed")
    network = A2N(MODEL, 2)
    initialise(network, 3)
    state = start(network, TRAIN, runtime)
    step = Step(state, TRAIN, runtime, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS_BEFORE_CAPTURE + 1):
            step()
        step.micro_batch = 1  # as after a lack of memory: steps alone once more
        step()
    assert len(replayed) == 1


@pytest.mark.slow
def test_the_compilers_advice_to_round_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(nn.Identity())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of parts of torch that it imports
        from torch._inductor.compile_fx import _warn_tf32_disabled
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    _warn_tf32_disabled.__wrapped__()  # warnings are errors here


# The same settings on a GPU


def on_a_gpu(precision: Any, engine: Any = "eager") -> Runtime:
    """Apply settings that promise equal bits."""
    runtime = replace(resolve(device="cuda:0", threads=1), precision=precision, engine=engine, deterministic=True)
    runtime.apply()
    return runtime


def trained(runtime: Runtime) -> tuple[str, str]:
    """The digests of the weights and of their average after twelve steps."""
    train = replace(TRAIN, budget_patches=24)
    model = A2N(MODEL, 2)
    initialise(model, 3)
    state = start(model, train, runtime)
    step = Step(state, train, runtime, batches)
    for _ in range(12):
        step()
    return digest_of(weights_of(state.model)), digest_of(weights_of(state.average.model))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_eager_and_captured_steps_give_the_same_bits() -> None:
    assert trained(on_a_gpu("fp32")) == trained(on_a_gpu("fp32", "graphed"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_training_in_tf32_is_another_than_in_fp32_and_repeats_its_bits() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    rounded = trained(on_a_gpu("tf32"))
    assert rounded == trained(on_a_gpu("tf32"))
    assert rounded != trained(on_a_gpu("fp32"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("caller", CALLERS)
def test_on_cuda_no_setting_of_the_caller_changes_a_score(caller: Callable[[], None]) -> None:
    runtime = on_a_gpu("fp32")
    model = runtime.place(A2N(MODEL, 2)).eval()
    assert isinstance(model, A2N)
    initialise(model, 3)
    scorer = scorer_of(runtime)
    lr = crops(1)[0].lr
    expected = scorer(model)
    enlarged = super_resolve(model, lr)
    caller()
    assert scorer(model) == expected
    assert np.array_equal(super_resolve(model, lr), enlarged)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_settings_name_the_version_of_cudnn() -> None:
    assert resolve(device="cuda:0").cudnn.isdecimal()
