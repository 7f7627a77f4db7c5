"""Computing an image in strips gives the result for the whole image, at any size, strip height, scale and kernel."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sr_core.config import ModelConfig, Scale
from sr_core.images.files import Image
from sr_core.model import inference, strips
from sr_core.model.inference import automatic_strip_rows, peak_bytes, super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.strips import forward_in_strips, most_rows, tail_halo

SCALES: tuple[Scale, ...] = (2, 3, 4)


def network(scale: Scale = 2, seed: int = 5, **config: Any) -> A2N:
    """A small network whose branch weights are far from one half, so that a wrong mean changes the result."""
    settings = {"n_feats": 6, "upsampler_feats": 4, "n_blocks": 2, "temperature": 0.1, "reduction": 2} | config
    model = A2N(ModelConfig(**settings), scale)
    initialise(model, seed)
    return model.eval()


def noise(height: int, width: int, n: int = 1, seed: int = 0) -> Tensor:
    """Random images (n, 3, height, width) in [0, 1], float64, so that errors are much larger than rounding."""
    values = np.random.default_rng(seed).integers(0, 256, (n, 3, height, width))
    return torch.from_numpy(values).double() / 255


def levels(sr: Tensor | np.ndarray) -> np.ndarray:
    """As written to a file."""
    return np.rint(np.clip(np.asarray(sr), 0, 255)).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    scale=st.sampled_from(SCALES),
    kernel_size=st.sampled_from((1, 3)),
    skip=st.sampled_from(("bilinear", "nearest")),
    height=st.integers(1, 40),
    width=st.integers(1, 20),
    rows=st.integers(1, 45),
    n=st.integers(1, 2),
    channels_last=st.booleans(),
)
def test_strips_of_any_height_give_the_whole_image_s_result(
    scale: Scale, kernel_size: int, skip: str, height: int, width: int, rows: int, n: int, channels_last: bool
) -> None:
    model = network(scale, non_attention_kernel_size=kernel_size, skip_interpolation=skip).double()
    if channels_last:
        nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    lr = noise(height, width, n, seed=height * 41 + width)
    with torch.inference_mode():
        expected = model(lr)
        in_strips = forward_in_strips(model, lr, rows)
    assert in_strips.dtype == lr.dtype
    torch.testing.assert_close(in_strips, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("scale", "halo"), [(2, 2), (3, 1), (4, 2)])
def test_the_tail_s_halo_equals_its_receptive_field(scale: Scale, halo: int) -> None:
    """Gradients show which rows of deep features affect the enlarged row of one LR row."""
    model = network(scale).double()
    deep = torch.randn(1, 6, 15, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    rows = model.to_rgb(model.tail(deep))[:, :, scale * 7 : scale * 8]
    (gradient,) = torch.autograd.grad(rows.sum(), deep)
    reached = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (7 - halo, 7 + halo)
    assert tail_halo(model) == halo


def test_naive_tiles_differ_so_equality_is_no_accident() -> None:
    model = network().double()
    lr = noise(24, 12)
    with torch.inference_mode():
        tiles = torch.cat([model(lr[:, :, :12]), model(lr[:, :, 12:])], dim=2)
        assert (tiles - model(lr)).abs().max() > 1e-3


def test_the_full_network_in_fp32_differs_in_at_most_one_sample_of_ten_thousand_by_one_level() -> None:
    model = network(2, n_feats=40, upsampler_feats=24, n_blocks=16, temperature=30.0, reduction=4)
    lr: Image = (noise(50, 70)[0].permute(1, 2, 0) * 255).byte().numpy()
    whole = levels(super_resolve(model, lr, strip_rows="whole"))
    for rows in (1, 7, 16):
        difference = abs(levels(super_resolve(model, lr, strip_rows=rows)) - whole)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-4


def test_bf16_strips_are_as_near_to_fp32_as_the_whole_image_in_bf16() -> None:
    model = network(n_feats=16, upsampler_feats=8)
    lr = image(40, 30)
    exact = super_resolve(model, lr)
    whole = super_resolve(model, lr, precision="bf16", strip_rows="whole")
    strips = super_resolve(model, lr, precision="bf16", strip_rows=8)
    errors = [float(np.sqrt(np.mean((sr - exact) ** 2))) for sr in (whole, strips)]
    assert 0 < errors[0] < 1
    assert errors[1] == pytest.approx(errors[0], rel=0.05)


def image(height: int, width: int) -> Image:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_validation_crops_and_benchmark_images_are_taken_whole_and_large_ones_in_strips() -> None:
    model = A2N(ModelConfig(), 2)
    assert automatic_strip_rows(model, 96, 96) == "whole"
    assert automatic_strip_rows(model, 256, 384) == "whole"
    rows = automatic_strip_rows(model, 1000, 1500)
    assert isinstance(rows, int)
    assert 16 <= rows <= 64
    assert automatic_strip_rows(model, 1000, 100_000) == 8
    small = network()
    assert automatic_strip_rows(small, 900, 900) == "whole"  # what counts is memory, not pixels


def test_a_small_image_s_bits_are_those_of_the_plain_call() -> None:
    model = network()
    lr = image(30, 20)
    with torch.inference_mode():
        x = torch.from_numpy(lr).permute(2, 0, 1)[None] / 255
        plain = (model(x)[0] * 255).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(super_resolve(model, lr), plain)


def test_a_large_image_goes_through_strips_by_itself_and_through_each_turn_of_the_ensemble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network()
    lr = image(60, 20)
    whole = super_resolve(model, lr, self_ensemble=True)
    shapes: list[tuple[int, int, int]] = []

    def spy(model: A2N, x: Tensor, rows: int, **kwargs: Any) -> Tensor:
        shapes.append((*x.shape[2:], rows))
        return forward_in_strips(model, x, rows, **kwargs)

    monkeypatch.setattr(inference, "forward_in_strips", spy)
    monkeypatch.setattr(inference, "STRIP_BYTES", {"cpu": 60_000})
    parts: list[float] = []
    strips = super_resolve(model, lr, self_ensemble=True, progress=parts.append)
    np.testing.assert_allclose(strips, whole, atol=1e-3)
    assert sorted({shape[:2] for shape in shapes}) == [(20, 60), (60, 20)]
    assert len(shapes) == 8
    assert {rows for _, _, rows in shapes} == {8, 10}
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(parts) > 8


def test_a_strip_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        super_resolve(network(), image(5, 5), strip_rows=0)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("skip", ["bilinear", "nearest"])
@pytest.mark.parametrize("scale", SCALES)
def test_an_enlargement_that_is_too_large_for_the_device_is_made_in_strips_with_the_same_result(
    scale: Scale, skip: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(scale, skip_interpolation=skip).double()
    lr = noise(17, 9)
    if channels_last:
        lr = lr.contiguous(memory_format=torch.channels_last)
    expected = forward_in_strips(model, lr, 5)
    monkeypatch.setattr(
        strips, "_MAX_TENSOR_ELEMENTS", {"cpu": 5 * 3 * 9 * scale**2}
    )  # five rows: three with one on each side
    enlarged: list[int] = []
    whole = A2N.enlarged
    monkeypatch.setattr(A2N, "enlarged", lambda self, part: enlarged.append(part.shape[2]) or whole(self, part))
    in_strips = forward_in_strips(model, lr, 5)
    assert enlarged == [4, 5, 5, 5, 5, 3]
    torch.testing.assert_close(in_strips, expected, rtol=0, atol=1e-11)


class Largest(TorchDispatchMode):
    """Records the largest tensor of the operations that use their own element indices."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "upsample" in str(func) or "convolution" in str(func):
            self.elements = max(self.elements, result.numel(), args[0].numel())
        return result


@pytest.mark.parametrize(
    ("scale", "height", "width"),
    [
        (4, 64, 700_000),  # 2.15e9 samples of output, and 8 rows of the tail's features are more than 2^31 as well
        (3, 160, 500_000),
        (2, 150, 1_200_000),
    ],
)
def test_no_operation_on_a_gpu_meets_a_tensor_of_2_to_the_31_elements(scale: Scale, height: int, width: int) -> None:
    """Uses torch's "meta" device, which computes only shapes."""
    with torch.device("meta"):
        model = A2N(ModelConfig(n_blocks=1), scale)
        lr = torch.empty(1, 3, height, width)
    assert 3 * height * width * scale**2 >= 2**31
    rows = automatic_strip_rows(model, height, width)
    assert isinstance(rows, int)
    with torch.inference_mode(), Largest() as largest:
        sr = forward_in_strips(model, lr, rows)
    assert sr.shape == (1, 3, height * scale, width * scale)
    assert 2**30 < largest.elements < 2**31, "as high as may be, and no higher"


def test_strips_of_an_image_of_usual_width_are_as_high_as_ever_on_a_gpu() -> None:
    with torch.device("meta"):
        model = A2N(ModelConfig(), 4)
    assert most_rows(model, 13_400, torch.device("cuda")) > automatic_strip_rows(model, 13_400, 13_400)  # type: ignore[operator]


def test_memory_grows_with_the_image_and_the_ensemble() -> None:
    model = A2N(ModelConfig(), 2)
    photograph = peak_bytes(model, 1000, 1500)
    assert 250e6 < photograph < 700e6  # measured: benchmarks/strips.py
    assert peak_bytes(model, 2000, 1500) > 1.8 * (photograph - 3 * 64 * 2**20)
    assert peak_bytes(model, 1000, 1500, self_ensemble=True) > photograph


PEAK = """
import sys, numpy as np
from pathlib import Path
from sr_core.config import ModelConfig
from sr_core.model.inference import super_resolve
from sr_core.model.network import A2N
rows = int(sys.argv[1]) or "whole"
model = A2N(ModelConfig(n_blocks=1), 2)
lr = np.zeros((500, 500, 3), np.uint8)
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
super_resolve(model, lr[:32, :32])
before = peak()
super_resolve(model, lr, strip_rows=rows)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process from /proc")
def test_strips_take_less_than_half_of_the_whole_image_s_memory() -> None:
    """Peak resident memory, measured in separate processes. It does not depend on image size or number of blocks."""
    whole, strips = (
        int(subprocess.run([sys.executable, "-c", PEAK, str(rows)], check=True, capture_output=True).stdout)
        for rows in (0, 16)
    )
    assert whole > 200_000  # kB
    assert strips < 0.5 * whole


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strips_on_a_gpu_give_the_whole_image_s_result(scale: Scale, layout: torch.memory_format) -> None:
    model = network(scale, n_feats=40, upsampler_feats=24, n_blocks=4).double().cuda()
    nn.utils.convert_conv2d_weight_memory_format(model, layout)
    lr = noise(90, 70).cuda()
    with torch.inference_mode():
        expected = model(lr)
        for rows in (1, 13, 64):
            torch.testing.assert_close(forward_in_strips(model, lr, rows), expected, rtol=0, atol=1e-10)
