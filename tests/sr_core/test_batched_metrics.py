"""Scores computed in torch, many images at once, against the NumPy reference."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sr_core.config import SCALES, EvaluationProtocol, ModelConfig, Scale
from sr_core.images.files import Image
from sr_core.metrics.batched import Originals, scores
from sr_core.metrics.evaluate import Score, score
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.validation import Crop
from sr_core.training.runtime import resolve
from sr_core.training.scoring import CropScorer

PROTOCOLS: tuple[EvaluationProtocol, ...] = get_args(EvaluationProtocol)
DB = 1e-6
SSIM = 1e-7
"""The largest differences between the fast scores and the reference: PSNR in dB, and SSIM."""


def images(count: int, height: int, width: int, error: float, seed: int) -> tuple[NDArray[np.float32], Image]:
    """Network outputs, unrounded and partly outside 0..255, and their HR images."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (count, height // 7 + 1, width // 7 + 1, 3))
    hr = coarse.repeat(7, axis=1).repeat(7, axis=2)[:, :height, :width].astype(np.uint8)
    return (hr + generator.normal(0, error, hr.shape)).astype(np.float32), hr


def planes(images: NDArray[np.float32] | Image) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def fast(
    sr: NDArray[np.float32], hr: Image, scale: Scale, protocol: EvaluationProtocol, device: str = "cpu"
) -> list[Score]:
    originals = Originals(planes(hr).to(device), scale=scale, protocol=protocol)
    return scores(originals.compare(planes(sr).to(device)))


def assert_as_the_reference(found: list[Score], sr: NDArray[np.float32], hr: Image, **how: object) -> None:
    for got, one_sr, one_hr in zip(found, sr, hr, strict=True):
        expected = score(one_sr, one_hr, **how)  # type: ignore[arg-type]
        assert got.psnr == pytest.approx(expected.psnr, abs=DB, rel=0)
        assert got.ssim == pytest.approx(expected.ssim, abs=SSIM, rel=0)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 4),
    height=st.integers(19, 60),
    width=st.integers(19, 60),
    error=st.sampled_from([0.0, 0.01, 0.4, 3, 20, 90]),
    scale=st.sampled_from(SCALES),
    protocol=st.sampled_from(PROTOCOLS),
    seed=st.integers(0, 99),
)
def test_they_are_the_references_at_any_size_and_error(
    count: int, height: int, width: int, error: float, scale: Scale, protocol: EvaluationProtocol, seed: int
) -> None:
    sr, hr = images(count, height, width, error, seed)
    assert_as_the_reference(fast(sr, hr, scale, protocol), sr, hr, scale=scale, protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_the_output_does_not_matter(protocol: EvaluationProtocol, layout: torch.memory_format) -> None:
    sr, hr = images(3, 41, 37, 5, 1)
    laid_out = planes(sr).contiguous(memory_format=layout)
    originals = Originals(planes(hr), scale=3, protocol=protocol)
    before = laid_out.clone()
    assert scores(originals.compare(laid_out)) == fast(sr, hr, 3, protocol)
    assert torch.equal(laid_out, before)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_image_scores_the_same_alone_and_among_others(protocol: EvaluationProtocol) -> None:
    sr, hr = images(5, 48, 48, 8, 2)
    alone = [fast(sr[i : i + 1], hr[i : i + 1], 2, protocol)[0] for i in range(5)]
    for one, other in zip(fast(sr, hr, 2, protocol), alone, strict=True):
        assert one.psnr == pytest.approx(other.psnr, abs=1e-10)
        assert one.ssim == pytest.approx(other.ssim, abs=1e-12)


def test_equal_images_have_infinite_psnr_under_both_protocols() -> None:
    _, hr = images(2, 33, 35, 0, 3)
    for protocol in PROTOCOLS:
        scored = fast(hr.astype(np.float32), hr, 2, protocol)
        assert [one.psnr for one in scored] == [math.inf, math.inf]
        assert [one.ssim for one in scored] == pytest.approx([1, 1], abs=1e-12)


def test_canonical_clips_then_rounds_halves_to_even() -> None:
    hr = np.full((1, 24, 24, 3), 254, np.uint8)
    hr[..., 12:, :] = 255
    sr = np.where(hr == 254, np.float32(254.5), np.float32(300))
    assert fast(sr, hr, 2, "canonical")[0].psnr == math.inf
    assert fast(sr, hr, 2, "blog")[0].psnr == pytest.approx(score(sr[0], hr[0], scale=2, protocol="blog").psnr)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_pixel_that_is_not_a_number_spoils_its_image_alone(protocol: EvaluationProtocol) -> None:
    sr, hr = images(3, 40, 40, 5, 4)
    sr[1, 20, 20, 2] = math.nan
    scored = fast(sr, hr, 2, protocol)
    assert [math.isnan(one.psnr) and math.isnan(one.ssim) for one in scored] == [False, True, False]


@pytest.mark.parametrize(
    ("side", "scale", "protocol"),
    [(15, 2, "canonical"), (14, 2, "canonical"), (11, 4, "blog"), (10, 4, "blog"), (8, 4, "blog")],
)
def test_images_are_refused_as_too_small_if_the_reference_refuses_them(
    side: int, scale: Scale, protocol: EvaluationProtocol
) -> None:
    sr, hr = images(1, side, side + 9, 5, 5)
    try:
        expected = score(sr[0], hr[0], scale=scale, protocol=protocol)
    except ValueError:
        with pytest.raises(ValueError, match=r"no 11x11 window fits|leaves nothing"):
            fast(sr, hr, scale, protocol)
    else:
        assert fast(sr, hr, scale, protocol)[0].ssim == pytest.approx(expected.ssim, abs=SSIM)


def test_images_of_another_shape_are_refused() -> None:
    sr, hr = images(2, 30, 31, 5, 6)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 30, 31\), got \(1, 3, 30, 31\)"):
        Originals(planes(hr), scale=2, protocol="canonical").compare(planes(sr[:1]))


# The validation of a training


def crops(count: int, side: int, scale: int) -> list[Crop]:
    _, lr = images(count, side, side, 0, 7)
    _, hr = images(count, side * scale, side * scale, 0, 8)
    return [Crop(f"image {i % 3}", lr[i], hr[i]) for i in range(count)]


def network(scale: Scale) -> A2N:
    model = A2N(ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2), scale)
    initialise(model, 5)
    return model.eval()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_validation_scores_each_crop_as_the_reference_scores_the_networks_image(
    scale: Scale, protocol: EvaluationProtocol
) -> None:
    fixed = crops(5, 17, scale)
    runtime = resolve(threads=1)
    model = runtime.place(network(scale))
    scored = CropScorer(fixed, scale=scale, protocol=protocol, runtime=runtime)(model)
    assert [name for name, _ in scored] == [crop.name for crop in fixed]
    assert isinstance(model, A2N)
    sr = np.stack([super_resolve(model, crop.lr) for crop in fixed])
    hr = np.stack([crop.hr for crop in fixed])
    assert_as_the_reference([one for _, one in scored], sr, hr, scale=scale, protocol=protocol)


def test_a_validation_gives_the_same_bits_again_also_with_a_new_scorer() -> None:
    fixed = crops(4, 20, 2)
    runtime = resolve(threads=1)
    model = runtime.place(network(2))
    first = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    again = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    assert first(model) == first(model) == again(model)


def test_a_preview_is_the_image_of_a_validation_by_the_same_network_and_leaves_that_of_another() -> None:
    fixed = crops(4, 20, 2)
    runtime = resolve(threads=1)
    model = runtime.place(network(2))
    other = runtime.place(network(2))
    initialise(other, 77)
    scorer = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    scorer(model)
    before = scorer.image()
    assert np.array_equal(scorer.preview(model), before)
    assert not np.array_equal(scorer.preview(other), before)
    assert np.array_equal(scorer.image(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_on_cuda_they_are_the_references_too_and_a_validation_waits_once(
    protocol: EvaluationProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    sr, hr = images(6, 61, 53, 5, 9)
    assert_as_the_reference(fast(sr, hr, 3, protocol, "cuda:0"), sr, hr, scale=3, protocol=protocol)

    runtime = resolve(device="cuda:0")
    scorer = CropScorer(crops(40, 96, 2), scale=2, protocol=protocol, runtime=runtime)
    model = runtime.place(network(2))
    first = scorer(model)
    monkeypatch.setattr("sr_core.training.scoring.scores", list)  # without the only call that waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = scorer(model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert scores(torch.stack([row for _, row in again])) == [one for _, one in first]  # type: ignore[misc]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), RuntimeError("CUDA error: out of memory")])
def test_a_validation_without_room_for_all_crops_takes_fewer_at_once_and_keeps_to_it(error: Exception) -> None:
    fixed = crops(7, 20, 2)
    runtime = resolve(threads=1)
    model = runtime.place(network(2))
    whole = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    (_, originals) = whole._batches[0]
    lr = torch.cat([one for one, _ in whole._batches])
    hr = torch.from_numpy(np.stack([crop.hr for crop in fixed])).permute(0, 3, 1, 2)
    scorer = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    scorer._batches = [(lr, type(originals)(hr, scale=2, protocol="canonical"))]  # as on a GPU
    scorer._max_crops = 7
    batch_sizes: list[int] = []

    class Confined(torch.nn.Module):
        def forward(self, part: torch.Tensor) -> torch.Tensor:
            batch_sizes.append(len(part))
            if len(part) > 2:
                raise error
            sr: torch.Tensor = model(part)
            return sr

    scored = scorer(Confined())
    assert batch_sizes == [7, 4, 2, 2, 2, 1]
    assert [score.psnr for _, score in scored] == pytest.approx([score.psnr for _, score in whole(model)], abs=1e-4)
    scorer(Confined())
    assert batch_sizes[6:] == [2, 2, 2, 1], "what does not fit is not tried again"


def test_a_validation_without_room_for_one_crop_is_the_end() -> None:
    fixed = crops(2, 20, 2)
    runtime = resolve(threads=1)

    class Confined(torch.nn.Module):
        def forward(self, part: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)(Confined())


def test_a_preview_without_room_for_all_crops_takes_fewer_at_once_too() -> None:
    fixed = crops(4, 20, 2)
    runtime = resolve(threads=1)
    model = runtime.place(network(2))
    scorer = CropScorer(fixed, scale=2, protocol="canonical", runtime=runtime)
    expected = scorer.preview(model)
    scorer._batches = [(torch.cat([lr for lr, _ in scorer._batches]), scorer._batches[0][1])]  # as on a GPU
    scorer._max_crops = 4

    class Confined(torch.nn.Module):
        def forward(self, part: torch.Tensor) -> torch.Tensor:
            if len(part) > 1:
                raise torch.OutOfMemoryError("no room")
            sr: torch.Tensor = model(part)
            return sr

    assert np.array_equal(scorer.preview(Confined()), expected)
    assert scorer._max_crops == 1
