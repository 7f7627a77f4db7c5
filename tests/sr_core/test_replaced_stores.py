"""A store that another command updates or replaces while a training reads it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sr_core.config import DataConfig
from sr_core.errors import StoreError
from sr_core.images.files import write_png
from sr_core.patches.placement import PatchSourceName, open_patch_source
from sr_core.patches.sampler import HostPatches
from sr_core.store.hdf5 import PatchStore
from sr_core.store.layers import HR, Layer, Lr
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage

KERNELS = ("nearest", "pillow_box", "cv2_cubic")
pytestmark = pytest.mark.usefixtures("own_memory")

PATCH_SOURCES = ("disk", "host", "device")


def images(folder: Path, seeds: Sequence[int]) -> ImageSet:
    listed = []
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (150, 140, 3), dtype=np.uint8)
        write_png(folder / f"{seed}.png", pixels)
        listed.append(SourceImage(f"p{seed}", folder / f"{seed}.png"))
    return ImageSet("test", tuple(listed), tuple(listed[:1]))


def prepared(path: Path, given: ImageSet, scales: Sequence[int] = (2,), more: Sequence[Lr] = ()) -> PatchStore:
    lr: list[Lr] = [("train", scale, kernel) for scale in scales for kernel in KERNELS]  # type: ignore[misc]
    return prepare_store(path, given, [*lr, *more], workers=1)


def batch(source: PatchSourceName, store: PatchStore, kernel: str) -> list[np.ndarray]:  # type: ignore[type-arg]
    config = DataConfig(lr_patch_size=20, train_kernel=kernel)  # type: ignore[arg-type]
    return [np.asarray(part) for part in open_patch_source(store, 2, "cpu", source).patches(config, 5).batch(0, 9)]


@pytest.mark.parametrize("name", PATCH_SOURCES)
def test_a_kernel_first_used_after_a_store_was_brought_up_to_date_is_read_right(
    tmp_path: Path, name: PatchSourceName
) -> None:
    given = images(tmp_path / "images", (1, 2, 3))
    store = prepared(tmp_path / "s.h5", given)
    expected = {kernel: batch(name, store, kernel) for kernel in KERNELS}
    source = open_patch_source(store, 2, "cpu", name)
    for scales, kernel in (((2,), "nearest"), ((2, 3), "pillow_box"), ((2, 3, 4), "cv2_cubic")):
        prepared(tmp_path / "s.h5", given, scales, [("valid", 2, "matlab_bicubic")])
        found = source.patches(DataConfig(lr_patch_size=20, train_kernel=kernel), 5).batch(0, 9)  # type: ignore[arg-type]
        for got, want in zip(found, expected[kernel], strict=True):
            np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("name", PATCH_SOURCES)
def test_a_patch_source_keeps_its_pixels_when_a_store_of_other_images_takes_the_path(
    tmp_path: Path, name: PatchSourceName
) -> None:
    given = images(tmp_path / "images", (1, 2))
    store = prepared(tmp_path / "s.h5", given)
    pixels = store.training_pixels(2, "nearest")
    source = open_patch_source(store, 2, "cpu", name)
    prepared(tmp_path / "other.h5", images(tmp_path / "others", (7, 8))).path.replace(store.path)
    config = DataConfig(lr_patch_size=20, train_kernel="nearest")
    expected = HostPatches(pixels.names, pixels.lr, pixels.hr, config, 5).batch(0, 9)
    for got, want in zip(source.patches(config, 5).batch(0, 9), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("name", PATCH_SOURCES)
def test_a_path_that_holds_other_images_of_the_same_size_is_refused_and_not_called_damaged(
    tmp_path: Path, name: PatchSourceName
) -> None:
    store = prepared(tmp_path / "s.h5", images(tmp_path / "images", (1, 2)))
    prepared(tmp_path / "other.h5", images(tmp_path / "others", (7, 8))).path.replace(store.path)
    replaced = r"s\.h5: was replaced by a store with other images"
    for layer in (HR, Layer(2, "nearest")):
        with pytest.raises(StoreError, match=replaced):
            next(store.images("train", layer))
    with pytest.raises(StoreError, match=replaced):
        store.chunks("train", HR)
    with pytest.raises(StoreError, match=replaced):
        open_patch_source(store, 2, "cpu", name)


@pytest.mark.parametrize("name", PATCH_SOURCES)
def test_a_store_that_is_gone_is_one_error_that_names_it(tmp_path: Path, name: PatchSourceName) -> None:
    store = prepared(tmp_path / "s.h5", images(tmp_path / "images", (1,)))
    store.path.unlink()
    with pytest.raises(StoreError, match=r"s\.h5: .*No such file"):
        open_patch_source(store, 2, "cpu", name)
