"""The two evaluation protocols: the published bicubic scores, and the effect of each rule."""

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import PIL.Image
import pytest
import skimage.color
import skimage.data

from sr_core.config import EvaluationProtocol, Kernel
from sr_core.images.color import BLOG_TYPO, rgb_to_y
from sr_core.images.files import Image, read_image
from sr_core.images.resize import imresize
from sr_core.images.scan import list_images
from sr_core.metrics.evaluate import (
    Score,
    bicubic_baseline,
    describe_protocol,
    least_side,
    lr_hr_pair,
    mean_score,
    score,
)
from sr_core.metrics.psnr import psnr
from sr_core.metrics.ssim import ssim

HR: Image = skimage.data.chelsea()[60:157, 80:199]
# The output of a network: unrounded, and partly outside 0..255.
SR = HR + np.random.default_rng(3).normal(0, 6, HR.shape) + np.where(HR > 150, 110, 0)


@pytest.mark.parametrize(
    ("dataset", "scale", "expected"),
    [
        ("Set5", 2, Score(33.673, 0.9303)),
        ("Set5", 3, Score(30.403, 0.8689)),
        ("Set5", 4, Score(28.429, 0.8111)),
        ("Set14", 2, Score(30.325, 0.8699)),
        ("Set14", 3, Score(27.631, 0.7759)),
    ],
)
def test_bicubic_reaches_its_numbers_of_the_benchmark_tables(
    dataset: str, scale: int, expected: Score, shared: Path
) -> None:
    """The tolerances match the digits in PROTOCOL.md: three decimals for PSNR in dB and four for SSIM."""
    scores = []
    for path in list_images(shared / "data" / dataset / "HR"):
        lr, hr = lr_hr_pair(read_image(path), scale, "matlab_bicubic", "canonical")
        scores.append(score(bicubic_baseline(lr, scale), hr, scale=scale, protocol="canonical"))
    mean = mean_score(scores)
    assert mean.psnr == pytest.approx(expected.psnr, abs=0.001)
    assert mean.ssim == pytest.approx(expected.ssim, abs=0.0001)


def test_luma_of_black_white_and_the_primaries_is_that_of_bt601() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_allclose(rgb_to_y(colours), [16, 235, 81.481, 144.553, 40.966], rtol=1e-12)


def test_luma_equals_scikit_images_and_that_of_grey_does_not_depend_on_the_type() -> None:
    np.testing.assert_allclose(rgb_to_y(HR), skimage.color.rgb2ycbcr(HR)[..., 0], rtol=1e-12)
    np.testing.assert_array_equal(rgb_to_y(HR), rgb_to_y(HR.astype(np.float32)))


def test_the_blogs_typo_is_in_blue_alone_and_below_a_fiftieth_of_a_level() -> None:
    blue = np.array([[0, 0, 255]], np.uint8)
    assert rgb_to_y(blue) - rgb_to_y(blue, BLOG_TYPO) == pytest.approx(0.018, abs=0.001)
    yellow = np.array([[255, 255, 0]], np.uint8)
    assert rgb_to_y(yellow) == pytest.approx(rgb_to_y(yellow, BLOG_TYPO), abs=0.001)


def test_an_image_without_three_channels_has_no_luma() -> None:
    with pytest.raises(ValueError, match=r"R, G, B on the last axis, got shape \(97, 119\)"):
        rgb_to_y(HR[..., 0])


def test_canonical_clips_rounds_crops_and_compares_unrounded_luma() -> None:
    sr = np.clip(np.round(SR), 0, 255).astype(np.uint8)[4:-4, 4:-4]
    sr_y, hr_y = (skimage.color.rgb2ycbcr(image)[..., 0] for image in (sr, HR[4:-4, 4:-4]))
    result = score(SR, HR, scale=4, protocol="canonical")
    assert result.psnr == pytest.approx(psnr(sr_y, hr_y, border=0), abs=1e-10)
    assert result.ssim == pytest.approx(ssim(sr_y, hr_y), abs=1e-12)


def test_canonical_rounds_halves_to_even_as_torch_does() -> None:
    halves = HR.astype(np.float32) // 2 * 2 + 0.5
    assert score(halves, HR // 2 * 2, scale=2, protocol="canonical").psnr == math.inf


def test_blog_clips_but_neither_rounds_nor_crops_for_ssim() -> None:
    sr_y = rgb_to_y(np.clip(SR, 0, 255), BLOG_TYPO)
    hr_y = rgb_to_y(HR, BLOG_TYPO)
    result = score(SR, HR, scale=4, protocol="blog")
    assert result == Score(psnr(sr_y, hr_y, border=4), ssim(sr_y, hr_y, border=0))


@pytest.mark.parametrize("protocol", get_args(EvaluationProtocol))
def test_single_precision_output_scores_as_double(protocol: EvaluationProtocol) -> None:
    single = score(SR.astype(np.float32), HR, scale=2, protocol=protocol)
    assert single.psnr == pytest.approx(score(SR, HR, scale=2, protocol=protocol).psnr, abs=1e-5)


@pytest.mark.parametrize("protocol", get_args(EvaluationProtocol))
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_least_side_is_the_least_that_can_be_scored(scale: int, protocol: EvaluationProtocol) -> None:
    least = least_side(scale, protocol)
    for height, width in ((least, least), (least, 31), (31, least)):
        _, hr = lr_hr_pair(HR[:height, :width], scale, "nearest", protocol)
        score(hr, hr, scale=scale, protocol=protocol)
        for smaller in (HR[: least - 1, :31], HR[:31, : least - 1]):
            _, hr = lr_hr_pair(smaller, scale, "nearest", protocol)
            with pytest.raises(ValueError, match=r"no 11x11 window|leaves nothing"):
                score(hr, hr, scale=scale, protocol=protocol)


@pytest.mark.parametrize("protocol", get_args(EvaluationProtocol))
def test_a_network_that_says_nan_scores_nan(protocol: EvaluationProtocol) -> None:
    broken = SR.copy()
    broken[40, 40, 1] = math.nan
    result = score(broken, HR, scale=2, protocol=protocol)
    assert math.isnan(result.psnr)
    assert math.isnan(result.ssim)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_canonical_pairs_are_cropped_and_reduced_by_the_kernel_named(scale: int) -> None:
    lr, hr = lr_hr_pair(HR, scale, "nearest", "canonical")
    np.testing.assert_array_equal(hr, HR[: 97 // scale * scale, : 119 // scale * scale])
    np.testing.assert_array_equal(lr, hr[scale // 2 :: scale, scale // 2 :: scale])


@pytest.mark.parametrize("kernel", ["matlab_bicubic", "nearest", "pillow_bicubic"])
def test_blog_pairs_are_resized_and_reduced_by_pillow_whatever_kernel_is_named(kernel: Kernel) -> None:
    bicubic = PIL.Image.Resampling.BICUBIC
    resized = PIL.Image.fromarray(HR).resize((116, 96), bicubic)
    lr, hr = lr_hr_pair(HR, 4, kernel, "blog")
    np.testing.assert_array_equal(hr, np.asarray(resized))
    np.testing.assert_array_equal(lr, np.asarray(resized.resize((29, 24), bicubic)))


def test_the_baseline_is_imresize_enlarging() -> None:
    lr = HR[:20, :25]
    np.testing.assert_array_equal(bicubic_baseline(lr, 3), imresize(lr, 3))
    assert bicubic_baseline(lr, 3).shape == (60, 75, 3)


def test_a_sets_score_is_the_mean_of_its_images_and_not_of_their_pooled_error() -> None:
    assert mean_score([Score(30, 0.5), Score(40, 0.75)]) == Score(35, 0.625)
    with pytest.raises(ValueError, match="no scores"):
        mean_score([])


@pytest.mark.parametrize("protocol", get_args(EvaluationProtocol))
def test_a_protocol_describes_itself_for_a_record(protocol: EvaluationProtocol) -> None:
    words = describe_protocol(protocol)
    assert words["protocol"] == protocol
    assert json.loads(json.dumps(words)) == words


def test_the_two_protocols_describe_the_same_steps_and_differ_in_most() -> None:
    canonical = describe_protocol("canonical")
    blog = describe_protocol("blog")
    assert canonical.keys() == blog.keys()
    assert [step for step in canonical if canonical[step] == blog[step]] == ["psnr"]
