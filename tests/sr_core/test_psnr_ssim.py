"""PSNR and SSIM in closed form and against scikit-image."""

import math

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_core.metrics.psnr import psnr
from sr_core.metrics.ssim import ssim

CAT: NDArray[np.float64] = skimage.data.chelsea()[60:160, 80:200, 1].astype(np.float64)


def noisy(strength: float, seed: int = 0) -> NDArray[np.float64]:
    return CAT + np.random.default_rng(seed).normal(0, strength, CAT.shape)


def test_one_grey_level_of_error_everywhere_is_48_13_db() -> None:
    assert psnr(CAT, CAT + 1, border=0) == pytest.approx(20 * math.log10(255), abs=1e-12)
    assert psnr(CAT, CAT + 1, border=0) == pytest.approx(48.1308, abs=1e-4)


def test_eight_bit_images_do_not_wrap_around() -> None:
    assert psnr(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8), border=0) == 0


def test_equal_images_have_infinite_psnr_and_ssim_one() -> None:
    assert psnr(CAT, CAT, border=2) == math.inf
    assert ssim(CAT, CAT, border=2) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("strength", [0.5, 5, 50])
def test_psnr_equals_scikit_images(strength: float) -> None:
    sr = noisy(strength)
    expected = peak_signal_noise_ratio(CAT[3:-3, 3:-3], sr[3:-3, 3:-3], data_range=255)
    assert psnr(sr, CAT, border=3) == pytest.approx(expected, abs=1e-10)


def test_psnr_pools_the_channels_of_one_image() -> None:
    sr = np.dstack([CAT, CAT, CAT + 3])
    assert psnr(sr, np.dstack([CAT] * 3), border=0) == pytest.approx(10 * math.log10(255**2 / 3))


def test_what_lies_in_the_border_does_not_count() -> None:
    sr = CAT + 1
    sr[:4] = 0
    sr[-4:] = 255
    sr[:, :4] = 0
    sr[:, -4:] = 255
    assert psnr(sr, CAT, border=4) == pytest.approx(20 * math.log10(255))
    assert psnr(sr, CAT, border=3) < 30
    assert ssim(sr, CAT, border=4) == pytest.approx(ssim(sr[4:-4, 4:-4], CAT[4:-4, 4:-4]), abs=1e-15)
    assert ssim(sr, CAT, border=3) < ssim(sr, CAT, border=4)


@pytest.mark.parametrize("strength", [0.5, 5, 50])
def test_ssim_equals_scikit_images_without_its_padded_rim(strength: float) -> None:
    sr = noisy(strength)
    _, similarity = structural_similarity(
        CAT, sr, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    assert ssim(sr, CAT) == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-10)


@given(grey=st.floats(0, 255), other=st.floats(0, 255))
def test_ssim_of_two_flat_images_is_the_luminance_term_alone(grey: float, other: float) -> None:
    c1 = (0.01 * 255) ** 2
    expected = (2 * grey * other + c1) / (grey**2 + other**2 + c1)
    assert ssim(np.full((12, 15), grey), np.full((12, 15), other)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(strength=st.floats(0.1, 80), seed=st.integers(0, 99))
def test_both_are_symmetric_and_scale_with_the_peak(strength: float, seed: int) -> None:
    sr = noisy(strength, seed)
    assert ssim(sr, CAT) == pytest.approx(ssim(CAT, sr), abs=1e-12)
    assert ssim(sr / 255, CAT / 255, peak=1) == pytest.approx(ssim(sr, CAT), abs=1e-9)
    assert psnr(sr, CAT, border=1) == psnr(CAT, sr, border=1)
    assert psnr(sr / 255, CAT / 255, border=1, peak=1) == pytest.approx(psnr(sr, CAT, border=1), abs=1e-9)


def test_both_ignore_a_flip_and_a_turn_of_both_images() -> None:
    sr = noisy(5)
    for turned_sr, turned_hr in ((sr[::-1], CAT[::-1]), (np.rot90(sr), np.rot90(CAT))):
        assert psnr(turned_sr, turned_hr, border=2) == pytest.approx(psnr(sr, CAT, border=2), abs=1e-10)
        assert ssim(turned_sr, turned_hr, border=2) == pytest.approx(ssim(sr, CAT, border=2), abs=1e-12)


def test_a_pixel_that_is_not_a_number_makes_the_score_one_too() -> None:
    sr = noisy(5)
    sr[50, 50] = math.nan
    assert math.isnan(psnr(sr, CAT, border=2))
    assert math.isnan(ssim(sr, CAT, border=2))


def test_the_smallest_image_for_ssim_is_one_window() -> None:
    assert 0 < ssim(CAT[:11, :11], noisy(5)[:11, :11]) < 1
    with pytest.raises(ValueError, match="no 11x11 window fits into 11x10 pixels"):
        ssim(CAT[:10, :11], CAT[:10, :11])
    with pytest.raises(ValueError, match="no 11x11 window fits into 10x10 pixels"):
        ssim(CAT[:12, :12], CAT[:12, :12], border=1)


def test_images_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(100, 120\) and \(100, 119\)"):
        psnr(CAT, CAT[:, :-1], border=0)
    with pytest.raises(ValueError, match="border of 50 leaves nothing of an image of 120x100"):
        psnr(CAT, CAT, border=50)
    with pytest.raises(ValueError, match="border of -1"):
        psnr(CAT, CAT, border=-1)
    with pytest.raises(ValueError, match="one channel"):
        ssim(np.dstack([CAT] * 3), np.dstack([CAT] * 3))
