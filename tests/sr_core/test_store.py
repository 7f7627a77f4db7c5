"""The patch store: round trips, damage and kills."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sr_core.config import Kernel
from sr_core.errors import ImageError, StoreError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import read_image, write_png
from sr_core.store import hdf5 as store
from sr_core.store.hdf5 import load_store, verify
from sr_core.store.layers import Lr
from sr_core.store.manifest import fingerprint, manifest_of, pixel_digest
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage

KERNELS: list[Kernel] = ["matlab_bicubic", "pillow_box"]


def make_images(folder: Path) -> ImageSet:
    def written(name: str, height: int, width: int) -> SourceImage:
        path = folder / f"{name}.png"
        rng = np.random.default_rng(height * width)
        write_png(path, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        return SourceImage(name, path)

    folder.mkdir(exist_ok=True)
    train = (written("odd", 21, 33), written("even", 24, 16), written("tiny", 9, 8))
    return ImageSet("test", train, (written("held", 17, 20),))


def build(path: Path, images: ImageSet, scale: int = 2) -> None:
    lr: list[Lr] = [*(("train", scale, kernel) for kernel in KERNELS), ("valid", scale, "nearest")]  # type: ignore[list-item]
    prepare_store(path, images, lr, workers=1)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return make_images(tmp_path / "pictures")


@pytest.fixture
def built(tmp_path: Path, images: ImageSet) -> Path:
    build(tmp_path / "patches.h5", images)
    return tmp_path / "patches.h5"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixels_come_back_as_they_were_made(tmp_path: Path, images: ImageSet, scale: int) -> None:
    build(tmp_path / "s.h5", images, scale)
    loaded = load_store(tmp_path / "s.h5")
    for kernel in KERNELS:
        pixels = loaded.training_pixels(scale, kernel)
        assert pixels.names == ["odd", "even", "tiny"]
        for image, lr, hr in zip(images.train, pixels.lr, pixels.hr, strict=True):
            expected = crop_to_multiple(read_image(image.path), scale)
            np.testing.assert_array_equal(hr, expected)
            np.testing.assert_array_equal(lr, downsample(expected, scale, kernel))
    held = loaded.validation_pixels(scale, "nearest")
    assert held.names == ["held"]
    assert held.hr[0].shape == (17 // scale * scale, 20 // scale * scale, 3)
    assert verify(tmp_path / "s.h5") == []


def test_the_manifest_says_what_the_images_are_without_building(built: Path, images: ImageSet) -> None:
    assert load_store(built).manifest == manifest_of(images)
    record = load_store(built).manifest[0]
    assert (record.split, record.name, record.height, record.width) == ("train", "odd", 21, 33)
    assert record.sha256 == pixel_digest(read_image(images.train[0].path))


def test_the_fingerprint_is_of_the_images_alone(tmp_path: Path, built: Path, images: ImageSet) -> None:
    build(tmp_path / "other.h5", images, scale=3)
    same = load_store(built).fingerprint
    assert load_store(tmp_path / "other.h5").fingerprint == same
    assert fingerprint(manifest_of(images)) == same
    swapped = ImageSet("test", (*images.train[1:], images.train[0]), images.valid)
    moved = ImageSet("test", images.train[1:], (*images.valid, images.train[0]))
    renamed = ImageSet("test", (SourceImage("new", images.train[0].path), *images.train[1:]), images.valid)
    assert len({same, *(fingerprint(manifest_of(p)) for p in (swapped, moved, renamed))}) == 4


def test_pixel_digest_tells_shapes_and_samples_apart() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    changed = image.copy()
    changed[1, 3, 2] ^= 1
    assert len({pixel_digest(image), pixel_digest(image.reshape(4, 2, 3)), pixel_digest(changed)}) == 3
    assert pixel_digest(image[:, ::-1][:, ::-1]) == pixel_digest(image)


def test_a_kernel_or_scale_that_was_not_made_is_named_with_what_is_there(built: Path) -> None:
    loaded = load_store(built)
    assert loaded.has("train", 2, "pillow_box") and not loaded.has("valid", 2, "pillow_box")
    with pytest.raises(StoreError, match="no train LR for x3 pillow_box, only for x2 matlab_bicubic, x2 pillow_box"):
        loaded.training_pixels(3, "pillow_box")
    with pytest.raises(StoreError, match=r"no valid LR for x2 matlab_bicubic, only for x2 nearest; delete it and run"):
        loaded.validation_pixels(2, "matlab_bicubic")


def test_a_store_cut_at_any_length_is_refused(built: Path, tmp_path: Path) -> None:
    whole = built.read_bytes()
    cut = tmp_path / "cut.h5"
    for length in [*range(0, len(whole), 499), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(
            StoreError, match=r"cut\.h5: is truncated, damaged or not a patch store .*delete it and run"
        ):
            load_store(cut)


def test_damage_anywhere_is_refused_or_harmless(built: Path, tmp_path: Path) -> None:
    whole = built.read_bytes()
    good = load_store(built).training_pixels(2, "pillow_box")
    damaged = tmp_path / "damaged.h5"
    rng = np.random.default_rng(11)
    refused = 0
    for position in range(0, len(whole), 23):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(data)
        try:
            pixels = load_store(damaged).training_pixels(2, "pillow_box")
        except StoreError:
            refused += 1
        else:
            for image, expected in zip(pixels.lr + pixels.hr, good.lr + good.hr, strict=True):
                np.testing.assert_array_equal(image, expected)
    assert refused > 100


@pytest.mark.parametrize("kind", ["hr", "lr"])
def test_a_flipped_bit_is_found_and_its_image_named(built: Path, images: ImageSet, kind: str) -> None:
    pixels = read_image(images.train[1].path)
    if kind == "lr":
        pixels = downsample(pixels, 2, "pillow_box")
    data = bytearray(built.read_bytes())
    data[data.index(pixels.tobytes()) + 100] ^= 1
    built.write_bytes(data)
    assert verify(built) == ["even"]
    with pytest.raises(StoreError, match="of image even does not match its checksum"):
        load_store(built).training_pixels(2, "pillow_box")


def test_foreign_files_are_told_from_damaged_ones(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    with pytest.raises(StoreError, match="is an HDF5 file, but not a patch store"):
        load_store(foreign)
    foreign.write_text("no HDF5 at all")
    with pytest.raises(StoreError, match="truncated, damaged or not a patch store"):
        load_store(foreign)
    with pytest.raises(StoreError, match="there is no such file"):
        load_store(tmp_path / "absent.h5")


def test_another_layout_is_named(tmp_path: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "LAYOUT", 99)
        build(tmp_path / "s.h5", images)
    with pytest.raises(StoreError, match="expected layout 2, got layout 99; delete it"):
        load_store(tmp_path / "s.h5")


def test_an_unreadable_image_leaves_the_old_store(tmp_path: Path, built: Path, images: ImageSet) -> None:
    before = built.read_bytes()
    images.train[2].path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="tiny"):
        build(built, images)
    assert built.read_bytes() == before


def test_an_image_smaller_than_one_lr_pixel_is_named(tmp_path: Path, images: ImageSet) -> None:
    write_png(images.train[0].path, np.zeros((3, 50, 3), np.uint8))
    with pytest.raises(ImageError, match=r"odd\.png: expected an image of at least 4x4 pixels at x4, got 50x3"):
        build(tmp_path / "s.h5", images, scale=4)


def test_a_store_that_cannot_be_written_says_where(tmp_path: Path, images: ImageSet) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"s\.h5: the patch store cannot be written"):
        build(tmp_path / "file" / "s.h5", images)


FULL_DISK = """
import importlib.util, resource, sys
from pathlib import Path
from sr_core.errors import StoreError
spec = importlib.util.spec_from_file_location("store_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
images = tests.make_images(Path(sys.argv[3]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    tests.build(Path(sys.argv[2]), images)
except StoreError as exc:
    sys.exit(str(exc))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
@pytest.mark.parametrize("room", [0, 100, 3_000, 9_000, 12_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, room: int) -> None:
    path = tmp_path / "root" / "s.h5"
    command: list[str | Path] = [sys.executable, "-c", FULL_DISK, __file__, path, tmp_path / "pictures", str(room)]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert "s.h5: the patch store cannot be written" in line and "File too large" in line
    assert [p.name for p in path.parent.iterdir()] in ([], ["s.h5.parts"])
