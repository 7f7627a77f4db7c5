"""Training patches: draws from a counter, positions, turns and batches."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sr_core.config import DataConfig
from sr_core.errors import ImageError
from sr_core.images.files import Image
from sr_core.images.turns import copy_turned, turned
from sr_core.patches.sampler import (
    IMAGE,
    ROW,
    TURN,
    HostPatches,
    PatchSampler,
    _thresholds,
    bounded,
    draw,
)

SEEDS = (0, 7, 2**63 - 1)


def numbers(count: int, first: int = 0) -> NDArray[np.int64]:
    return np.arange(first, first + count, dtype=np.int64)


def assert_counts_fit(observed: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    """Chi-square test. The draws are fixed, so it always passes or always fails. 4.5 sigma suffices for 30 tests."""
    expected = shares / shares.sum() * observed.sum()
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    freedom = len(observed) - 1
    assert abs(chi_square - freedom) <= 4.5 * (2 * freedom) ** 0.5


def images(sizes: list[tuple[int, int]], scale: int) -> tuple[list[str], list[Image], list[Image]]:
    """Names, LR images of noise, and HR images in which every scale x scale block repeats an LR pixel."""
    rng = np.random.default_rng(3)
    lr = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    hr = [image.repeat(scale, axis=0).repeat(scale, axis=1) for image in lr]
    return [f"p{i}" for i in range(len(sizes))], lr, hr


def test_draws_are_the_published_outputs_of_splitmix64() -> None:
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(draw(1234567, numbers(1), lane)[0]) for lane in range(5)] == [z >> 33 for z in published]


def test_draws_are_pinned_for_ever() -> None:
    k = np.array([0, 1, 1_000, 10**12], dtype=np.int64)
    assert draw(7, k, IMAGE).tolist() == [837153010, 288317501, 915853151, 1265082508]
    assert draw(2**63 - 1, k, TURN).tolist() == [269490380, 292819165, 507881467, 1197073727]


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**59), st.integers(0, 7), st.integers(1, 2**32 - 1))
def test_numpy_and_torch_draw_the_same_bits(seed: int, first: int, lane: int, n: int) -> None:
    k = numbers(64, first)
    drawn = draw(seed, k, lane)
    on_torch = draw(seed, torch.from_numpy(k), lane)
    assert on_torch.dtype == torch.int64
    assert drawn.tolist() == on_torch.tolist()
    assert bounded(drawn, n).tolist() == bounded(on_torch, n).tolist()
    assert bounded(drawn, np.full_like(k, n)).tolist() == bounded(on_torch, n).tolist()
    assert drawn.min() >= 0 and drawn.max() < 2**31
    assert bounded(drawn, n).max() < n


def test_importing_patches_does_not_load_torch() -> None:
    code = "import sys, sr_core.patches.sampler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_are_uniform_in_every_lane(seed: int) -> None:
    for lane in range(8):
        observed = np.bincount(bounded(draw(seed, numbers(50_000), lane), 100), minlength=100)
        assert_counts_fit(observed, np.ones(100))


def test_lanes_neighbours_and_seeds_are_independent() -> None:
    k = numbers(50_000)
    here = bounded(draw(7, k, ROW), 10)
    for other in (draw(7, k, IMAGE), draw(7, k + 1, ROW), draw(8, k, ROW)):
        pairs = np.bincount(here * 10 + bounded(other, 10), minlength=100)
        assert_counts_fit(pairs, np.ones(100))


def test_images_are_drawn_alike_by_images_and_by_area_by_pixels() -> None:
    sizes = [(64, 64), (64, 200), (300, 400), (63, 999), (100, 70)]
    names = [f"p{i}" for i in range(5)]
    alike, by_area = [1, 1, 1, 1], [64 * 64, 64 * 200, 300 * 400, 100 * 70]
    for config, shares in ((DataConfig(sampling="images"), alike), (DataConfig(sampling="pixels"), by_area)):
        sampler = PatchSampler(names, sizes, config, 7)
        assert sampler.left_out == ("p3",)
        observed = np.bincount(sampler.locate(numbers(40_000)).image, minlength=5)
        assert observed[3] == 0
        assert_counts_fit(np.delete(observed, 3), np.array(shares, float))


def test_positions_are_uniform_and_reach_every_edge() -> None:
    places = PatchSampler(["a"], [(70, 66)], DataConfig(lr_patch_size=64), 7).locate(numbers(20_000))
    assert_counts_fit(np.bincount(places.y, minlength=7), np.ones(7))
    assert_counts_fit(np.bincount(places.x, minlength=3), np.ones(3))
    assert_counts_fit(np.bincount(places.turn, minlength=8), np.ones(8))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20).filter(any), st.data())
def test_a_share_starts_and_ends_at_the_exact_fraction(weights: list[int], data: st.DataObject) -> None:
    thresholds = _thresholds(np.array(weights, dtype=np.int64))
    r = data.draw(st.integers(0, 2**31 - 1))
    image = int(np.searchsorted(thresholds, r, side="right"))
    below, total = sum(weights[:image]), sum(weights)
    assert weights[image] > 0
    assert Fraction(below, total) <= Fraction(r, 2**31) < Fraction(below + weights[image], total)


@pytest.mark.parametrize(
    ("scale", "hr_height", "lr_starts"),
    [
        (2, 480, [0]),
        (2, 482, [0, 1]),  # 2 HR pixels remain: one more window, flush with the edge
        (2, 880, [0, 100, 200]),  # 200 + 200 + 480: nothing remains
        (2, 1000, [0, 100, 200, 260]),
        (3, 999, [0, 66, 133, 173]),  # 200 and 400 rounded down to 198 and 399
        (4, 1000, [0, 50, 100, 130]),
    ],
)
def test_sub_images_start_where_the_extraction_script_cuts(scale: int, hr_height: int, lr_starts: list[int]) -> None:
    window = 480 // scale  # a patch as large as the window lies exactly on it
    config = DataConfig(scale=scale, lr_patch_size=window, sampling="subimages")  # type: ignore[arg-type]
    tall = PatchSampler(["a"], [(hr_height // scale, window)], config, 7).locate(numbers(4_000))
    wide = PatchSampler(["a"], [(window, hr_height // scale)], config, 7).locate(numbers(4_000))
    assert np.unique(tall.y).tolist() == np.unique(wide.x).tolist() == lr_starts
    assert not tall.x.any() and not wide.y.any()
    for starts in (tall.y, wide.x):
        assert_counts_fit(np.unique(starts, return_counts=True)[1], np.ones(len(lr_starts)))


def test_every_sub_image_of_every_image_is_as_likely() -> None:
    config = DataConfig(lr_patch_size=240, sampling="subimages")
    sizes = [(500, 340), (240, 240), (239, 900)]  # 4 x 2 windows, 1, none
    sampler = PatchSampler(["a", "b", "c"], sizes, config, 7)
    assert sampler.left_out == ("c",)
    image, y, x, _ = sampler.locate(numbers(18_000))
    _, observed = np.unique(np.stack([image, y, x]), axis=1, return_counts=True)
    assert len(observed) == 9
    assert_counts_fit(observed, np.ones(9))


def test_patches_stay_inside_their_sub_image() -> None:
    config = DataConfig(lr_patch_size=64, sampling="subimages", subimage_window=200, subimage_step=400)
    y = PatchSampler(["a"], [(300, 100)], config, 7).locate(numbers(10_000)).y
    assert np.unique(y).tolist() == [*range(37), *range(200, 237)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 10**9))
def test_patches_are_the_same_for_any_batching(batches: list[int], first: int) -> None:
    patches = HostPatches(*images([(40, 50), (33, 70)], 2), DataConfig(lr_patch_size=8), 7)
    whole_lr, whole_hr = patches.batch(first, sum(batches))
    starts = first + np.cumsum([0, *batches[:-1]])
    parts = [patches.batch(int(start), n) for start, n in zip(starts, batches, strict=True)]
    np.testing.assert_array_equal(np.concatenate([lr for lr, _ in parts]), whole_lr)
    np.testing.assert_array_equal(np.concatenate([hr for _, hr in parts]), whole_hr)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_and_hr_stay_aligned_under_all_eight_turns(scale: int) -> None:
    names, lr, hr = images([(40, 50), (33, 70)], scale)
    config = DataConfig(scale=scale, lr_patch_size=16)  # type: ignore[arg-type]
    lr_batch, hr_batch = HostPatches(names, lr, hr, config, 7).batch(0, 200)
    assert lr_batch.shape == (200, 3, 16, 16) and hr_batch.shape == (200, 3, 16 * scale, 16 * scale)
    assert lr_batch.transpose(0, 2, 3, 1).flags.c_contiguous and hr_batch.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(hr_batch, lr_batch.repeat(scale, axis=2).repeat(scale, axis=3))

    places = PatchSampler(names, [(40, 50), (33, 70)], config, 7).locate(numbers(200))
    assert set(places.turn.tolist()) == set(range(8))
    for patch, image, y, x, turn in zip(lr_batch, *places, strict=True):
        expected = turned(lr[image][y : y + 16, x : x + 16], int(turn))
        np.testing.assert_array_equal(patch, expected.transpose(2, 0, 1))


def test_the_eight_turns_are_the_four_quarter_turns_and_their_mirror_images() -> None:
    patch = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    reference = {np.rot90(side, quarter).tobytes() for side in (patch, patch[:, ::-1]) for quarter in range(4)}
    assert {turned(patch, turn).tobytes() for turn in range(8)} == reference
    assert len(reference) == 8


@pytest.mark.parametrize("turn", range(8))
def test_a_copied_turn_is_the_view_of_it(turn: int) -> None:
    image = np.random.default_rng(turn).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    out = np.zeros((2, 17, 17, 3), np.uint8)
    copy_turned(image[5:22, 9:26], turn, out[1])
    np.testing.assert_array_equal(out[1], turned(image[5:22, 9:26], turn))
    assert not out[0].any()


def test_without_augmentation_patches_lie_at_the_same_places_unturned() -> None:
    sizes = [(40, 50), (33, 70)]
    turning = PatchSampler(["a", "b"], sizes, DataConfig(lr_patch_size=16), 7).locate(numbers(100))
    upright = PatchSampler(["a", "b"], sizes, DataConfig(lr_patch_size=16, augmentation="none"), 7).locate(numbers(100))
    assert not upright.turn.any()
    for a, b in zip(turning[:3], upright[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_patches() -> None:
    image = images([(40, 50)], 2)
    config = DataConfig(lr_patch_size=16)
    assert not np.array_equal(HostPatches(*image, config, 1).batch(0, 4), HostPatches(*image, config, 2).batch(0, 4))


def test_when_no_image_holds_a_patch_the_largest_and_the_need_are_named() -> None:
    names, lr, hr = images([(20, 90), (30, 40)], 2)
    with pytest.raises(ImageError, match=r"128 HR pixels .*80x60 for the largest, p1; .*lower data\.lr_patch_size"):
        HostPatches(names, lr, hr, DataConfig(), 7)
    with pytest.raises(ImageError, match=r"480 HR pixels .*p1.*lower data\.subimage_window"):
        HostPatches(names, lr, hr, DataConfig(sampling="subimages"), 7)
    with pytest.raises(ImageError, match="no training image"):
        HostPatches([], [], [], DataConfig(), 7)


def test_images_too_small_for_a_patch_are_named_and_never_drawn() -> None:
    patches = HostPatches(*images([(8, 99), (20, 20), (99, 15)], 2), DataConfig(lr_patch_size=16), 7)
    assert patches.left_out == ("p0", "p2")
    assert patches.batch(0, 50)[0].shape == (50, 3, 16, 16)
