"""The fixed validation crops."""

from itertools import combinations

import numpy as np
import pytest

from sr_core.errors import ImageError
from sr_core.images.files import Image
from sr_core.patches.validation import crop_places, validation_crops


def images(*sizes: tuple[int, int], scale: int = 2) -> tuple[list[str], list[Image], list[Image]]:
    """Names, LR images of noise, and HR images in which every scale x scale block repeats an LR pixel."""
    rng = np.random.default_rng(5)
    lr = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    hr = [image.repeat(scale, axis=0).repeat(scale, axis=1) for image in lr]
    return [f"p{i}" for i in range(len(sizes))], lr, hr


def test_crops_go_to_the_images_in_turn_and_the_first_is_centred() -> None:
    names, lr, hr = images((150, 225), (200, 300), (213, 320), (256, 256))
    crops = validation_crops(names, lr, hr, scale=2, crops=6, lr_crop_size=96)
    assert [crop.name for crop in crops] == ["p0", "p1", "p2", "p3", "p0", "p1"]
    np.testing.assert_array_equal(crops[0].lr, lr[0][27:123, 64:160])
    for crop in crops:
        assert crop.lr.shape == (96, 96, 3)
        np.testing.assert_array_equal(crop.hr, crop.lr.repeat(2, axis=0).repeat(2, axis=1))
        assert crop.lr.base is None and crop.hr.base is None  # copies: the images can be freed


def test_fewer_crops_than_images_are_spread_over_the_list() -> None:
    crops = validation_crops(*images(*[(40, 40)] * 10), scale=2, crops=4, lr_crop_size=24)
    assert [crop.name for crop in crops] == ["p0", "p2", "p5", "p7"]


def test_the_side_is_the_largest_square_that_every_image_holds() -> None:
    crops = validation_crops(*images((150, 225), (300, 41)), scale=2, crops=2, lr_crop_size=96)
    assert [crop.lr.shape for crop in crops] == [(41, 41, 3)] * 2


def test_crops_of_one_image_do_not_overlap_where_there_is_room() -> None:
    places = crop_places(678, 1020, 96, 20)
    assert len(places) == 20
    assert places[0] == (291, 462)
    for (y1, x1), (y2, x2) in combinations(places, 2):
        assert abs(y1 - y2) >= 96 or abs(x1 - x2) >= 96


def test_crops_are_distinct_and_inside_where_there_is_little_room() -> None:
    for height, width, count in [(97, 96, 2), (100, 130, 8), (96, 96, 1), (150, 225, 12)]:
        places = crop_places(height, width, 96, count)
        assert len(set(places)) == len(places) == count
        assert all(0 <= y <= height - 96 and 0 <= x <= width - 96 for y, x in places)


def test_the_second_crop_overlaps_the_first_least() -> None:
    (cy, cx), (y, x) = crop_places(150, 225, 96, 2)
    shared = (96 - abs(cy - y)) * (96 - abs(cx - x))
    assert shared == min((96 - abs(cy - y)) * max(0, 96 - abs(cx - x)) for y in range(55) for x in range(130))


def test_fewer_crops_of_an_image_are_a_prefix_of_more() -> None:
    assert crop_places(150, 225, 96, 4) == crop_places(150, 225, 96, 9)[:4]


def test_an_image_that_fills_the_square_gives_one_crop_however_many_are_asked_for() -> None:
    crops = validation_crops(*images((96, 96), (150, 225)), scale=2, crops=6, lr_crop_size=96)
    assert [crop.name for crop in crops] == ["p0", "p1", "p1", "p1"]


def test_an_image_too_small_to_be_scored_is_named() -> None:
    with pytest.raises(ImageError, match=r"p1: .* at least 16 pixels a side at x2, got 200x14"):
        validation_crops(*images((96, 96), (7, 100)), scale=2, crops=2, lr_crop_size=96)
    with pytest.raises(ImageError, match="no validation image"):
        validation_crops([], [], [], scale=2, crops=2, lr_crop_size=96)
