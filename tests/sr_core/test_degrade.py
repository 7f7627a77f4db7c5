"""Every downsampling kernel: the positions of its samples, and its values by a reference or in closed form."""

from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import skimage.data

from sr_core.config import KERNELS, SCALES, Kernel
from sr_core.images.degrade import crop_to_multiple, downsample, resize_to_multiple
from sr_core.images.files import Image

HR: Image = skimage.data.astronaut()[:120, :144]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_lr_has_the_size_divided_by_the_scale_in_memory_of_its_own(scale: int, kernel: Kernel) -> None:
    before = HR.copy()
    lr = downsample(HR, scale, kernel)
    assert lr.shape == (120 // scale, 144 // scale, 3)
    assert lr.dtype == np.uint8
    assert lr.flags.c_contiguous
    assert not np.shares_memory(lr, HR)
    np.testing.assert_array_equal(HR, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_grey_image_is_reduced_as_each_channel_of_a_colour_image(kernel: Kernel) -> None:
    np.testing.assert_array_equal(downsample(HR[..., 1], 3, kernel), downsample(HR, 3, kernel)[..., 1])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_one_colour_stays_that_colour(scale: int, kernel: Kernel) -> None:
    flat = np.full((24, 36, 3), (3, 128, 254), np.uint8)
    assert (downsample(flat, scale, kernel) == flat[0, 0]).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_on_a_ramp_each_lr_pixel_is_the_value_at_its_documented_place(scale: int, kernel: Kernel) -> None:
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))  # 5 levels a pixel: half a pixel is 2.5
    offset = scale // 2 if kernel in ("nearest", "blur_subsample") else (scale - 1) / 2
    expected = 5 * (scale * np.arange(48 // scale) + offset)
    for lr in (downsample(ramp, scale, kernel), downsample(ramp.T, scale, kernel).T):
        inside = slice(4, -4)  # lanczos at its edge reaches three LR pixels
        np.testing.assert_allclose(lr[inside, inside], np.tile(expected[inside], (48 // scale - 8, 1)), atol=0.51)


@pytest.mark.parametrize("scale", SCALES)
def test_pillow_bicubic_is_within_one_level_of_matlab_in_all_but_a_few_interior_samples(scale: int) -> None:
    hr = crop_to_multiple(skimage.data.coffee(), scale)
    pillow, matlab = (downsample(hr, scale, name).astype(int)[2:-2, 2:-2] for name in BICUBICS)
    assert 0 < (np.abs(pillow - matlab) > 1).mean() < 0.002
    without_clipping = hr // 2 + 64
    pillow, matlab = (downsample(without_clipping, scale, name).astype(int)[2:-2, 2:-2] for name in BICUBICS)
    assert np.abs(pillow - matlab).max() <= 2


BICUBICS: tuple[Kernel, Kernel] = ("pillow_bicubic", "matlab_bicubic")


@pytest.mark.parametrize("kernel", ["pillow_box", "cv2_area"])
@pytest.mark.parametrize("scale", SCALES)
def test_box_and_area_are_the_mean_of_the_pixels_they_cover(scale: int, kernel: Kernel) -> None:
    mean = HR.reshape(120 // scale, scale, 144 // scale, scale, 3).mean(axis=(1, 3))
    # cv2 rounds once; Pillow after each of its two passes, so half a level twice
    np.testing.assert_allclose(downsample(HR, scale, kernel), mean, atol=0.5 if kernel == "cv2_area" else 1.0)


@pytest.mark.parametrize("scale", SCALES)
def test_nearest_takes_the_sample_that_pillow_takes(scale: int) -> None:
    pillow = PIL.Image.fromarray(HR).resize((144 // scale, 120 // scale), PIL.Image.Resampling.NEAREST)
    np.testing.assert_array_equal(downsample(HR, scale, "nearest"), np.asarray(pillow))


def test_cv2_cubic_does_not_antialias() -> None:
    stripes = np.tile(np.array([0, 0, 255, 0], np.uint8), (32, 8))  # a quarter white; x4 looks at a few pixels only
    assert downsample(stripes, 4, "cv2_area")[0, 3] == 64
    assert downsample(stripes, 4, "cv2_cubic")[0, 3] == 151  # weight of the right middle pixel: 19/32 at a = -0.75


def test_cv2_cubic_at_an_odd_scale_is_nearest() -> None:
    np.testing.assert_array_equal(downsample(HR, 3, "cv2_cubic"), downsample(HR, 3, "nearest"))


@pytest.mark.parametrize("scale", SCALES)
def test_blur_subsample_is_a_seven_pixel_gaussian_with_repeated_edges(scale: int) -> None:
    blurred = scipy.ndimage.gaussian_filter(HR.astype(float), 1.6, radius=3, mode="nearest", axes=(0, 1))
    expected = np.floor(blurred + 0.5)[scale // 2 :: scale, scale // 2 :: scale]
    np.testing.assert_array_equal(downsample(HR, scale, "blur_subsample"), expected)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (6, 9), (3, 3)])
def test_cropping_drops_rows_and_columns_at_the_bottom_and_the_right(height: int, width: int) -> None:
    hr = HR[:height, :width]
    np.testing.assert_array_equal(crop_to_multiple(hr, 3), hr[: height // 3 * 3, : width // 3 * 3])


def test_resizing_to_a_multiple_keeps_an_image_that_is_one_and_shrinks_one_that_is_not() -> None:
    np.testing.assert_array_equal(resize_to_multiple(HR, 4), HR)
    odd = HR[:119, :141]
    resized = resize_to_multiple(odd, 4)
    assert resized.shape == (116, 140, 3)
    assert not np.array_equal(resized, crop_to_multiple(odd, 4))


def test_an_hr_image_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 3, got 144x119: crop_to_multiple first"):
        downsample(HR[:119], 3, "matlab_bicubic")


@pytest.mark.parametrize("prepare", [crop_to_multiple, resize_to_multiple])
def test_an_image_smaller_than_one_lr_pixel_is_refused(prepare: Callable[[Image, int], Image]) -> None:
    with pytest.raises(ValueError, match="144x3 is smaller than one LR pixel at x4"):
        prepare(HR[:3], 4)
