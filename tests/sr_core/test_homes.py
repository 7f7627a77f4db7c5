"""The three patch sources give the same stream of patches."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_core.config import DataConfig
from sr_core.errors import ImageError, StoreError
from sr_core.images.files import write_png
from sr_core.patches import placement, shared_pixels
from sr_core.patches.placement import (
    PatchSourceName,
    choose_by_size,
    choose_patch_source,
    open_patch_source,
    pixel_bytes,
)
from sr_core.patches.sampler import HostPatches
from sr_core.patches.shared_pixels import SharedPixels
from sr_core.store.hdf5 import PatchStore
from sr_core.store.layers import HR, Layer, Lr
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage
from sr_core.training.inputs import Inputs
from sr_core.training.runtime import resolve

pytestmark = pytest.mark.usefixtures("own_memory")

SIZES = [(131, 300), (64, 64), (257, 130), (40, 700), (200, 199)]
"""Sizes of images: some are one chunk, some several, and some end in a part of a chunk."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    folder = tmp_path_factory.mktemp("pictures")
    listed = []
    for number, size in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        write_png(folder / f"{number}.png", pixels)
        listed.append(SourceImage(f"p{number}", folder / f"{number}.png"))
    lr: list[Lr] = [("train", scale, kernel) for scale in (2, 3, 4) for kernel in ("nearest", "pillow_box")]
    return prepare_store(folder / "s.h5", ImageSet("test", tuple(listed), ()), lr, workers=1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("sampling", ["images", "pixels", "subimages"])
@pytest.mark.parametrize("source", ["host", "device", "disk"])
def test_every_patch_source_gives_the_same_patches(
    store: PatchStore, source: PatchSourceName, sampling: str, scale: int
) -> None:
    config = DataConfig(
        scale=scale,  # type: ignore[arg-type]
        lr_patch_size=13,
        sampling=sampling,  # type: ignore[arg-type]
        subimage_window=60,
        subimage_step=30,
        train_kernel="pillow_box",
    )
    pixels = store.training_pixels(scale, "pillow_box")
    expected = HostPatches(pixels.names, pixels.lr, pixels.hr, config, 11)
    patches = open_patch_source(store, scale, "cpu", source).patches(config, 11)
    assert patches.left_out == expected.left_out
    for first, count in ((0, 1), (1, 150), (10**9, 7)):
        for got, want in zip(patches.batch(first, count), expected.batch(first, count), strict=True):
            assert got.shape == want.shape
            np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("source", ["host", "device", "disk"])
def test_without_augmentation_too(store: PatchStore, source: PatchSourceName) -> None:
    config = DataConfig(lr_patch_size=20, augmentation="none", train_kernel="nearest")
    pixels = store.training_pixels(2, "nearest")
    expected = HostPatches(pixels.names, pixels.lr, pixels.hr, config, 3).batch(5, 60)
    for got, want in zip(
        open_patch_source(store, 2, "cpu", source).patches(config, 3).batch(5, 60), expected, strict=True
    ):
        np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("source", ["host", "device", "disk"])
def test_hr_is_held_once_for_all_kernels_and_a_missing_kernel_is_named(
    store: PatchStore, source: PatchSourceName
) -> None:
    opened = open_patch_source(store, 2, "cpu", source)
    a = opened.patches(DataConfig(lr_patch_size=16, train_kernel="nearest"), 1).batch(0, 9)
    b = opened.patches(DataConfig(lr_patch_size=16, train_kernel="pillow_box"), 1).batch(0, 9)
    np.testing.assert_array_equal(np.asarray(a[1]), np.asarray(b[1]))
    assert not np.array_equal(np.asarray(a[0]), np.asarray(b[0]))
    with pytest.raises(StoreError, match="no train LR for x2 cv2_area"):
        opened.patches(DataConfig(lr_patch_size=16, train_kernel="cv2_area"), 1)
    with pytest.raises(ImageError, match="no training image is large enough: expected a side"):
        opened.patches(DataConfig(lr_patch_size=200, train_kernel="nearest"), 1)


def test_arrays_and_tensors_train_alike(store: PatchStore) -> None:
    config, runtime = DataConfig(lr_patch_size=16, train_kernel="nearest"), resolve(threads=1)
    batches = [
        open_patch_source(store, 2, "cpu", source).patches(config, 1).batch(0, 4) for source in ("host", "device")
    ]
    filled = [Inputs(runtime).fill(*batch) for batch in batches]
    for array, first, second in zip(batches[0], *filled, strict=True):
        assert first.dtype == torch.float32 and first.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(first, second) and first.stride() == second.stride()
        assert torch.equal(first, torch.from_numpy(np.ascontiguousarray(array)).float() / 255)


def test_the_first_patch_source_with_room_is_chosen_and_the_log_says_so(
    store: PatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_by_size(40, 40, device_free=100, host_free=80) == "device"
    assert choose_by_size(41, 41, device_free=100, host_free=82) == "host"
    assert choose_by_size(40, 40, device_free=0, host_free=80) == "host"
    assert choose_by_size(41, 41, device_free=0, host_free=80) == "disk"
    with caplog.at_level(logging.INFO):
        assert open_patch_source(store, 2, "cpu").name == "host"
    assert "source host" in caplog.text and "available in host memory" in caplog.text
    hr = sum(3 * height * width for height, width in SIZES)
    lr = sum(3 * (height // 3) * (width // 3) for height, width in SIZES)
    assert pixel_bytes(store, 3) == hr + 2 * lr


def test_pixels_that_cannot_be_shared_need_room_in_every_slot(
    store: PatchStore, own_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "available_memory", lambda: 3 * pixel_bytes(store, 2))
    assert choose_patch_source(store, 2, "cpu", slots=2) == "host"
    own_memory.rmdir()
    assert choose_patch_source(store, 2, "cpu", slots=1) == "host"
    assert choose_patch_source(store, 2, "cpu", slots=2) == "disk"


def test_a_patch_source_that_was_chosen_is_opened_whatever_there_is_room_for(
    store: PatchStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert open_patch_source(store, 2, "cpu", "disk").name == "disk"
    assert "pixels" not in caplog.text, "the process that chose the source has logged it"


def test_a_chunk_that_changed_on_the_disk_is_refused_before_a_patch_comes_out(
    store: PatchStore, tmp_path: Path
) -> None:
    data = bytearray(store.path.read_bytes())
    chunks = store.chunks("train", HR)[2]
    data[chunks.start + 100] ^= 1
    (tmp_path / "s.h5").write_bytes(data)
    damaged = PatchStore(tmp_path / "s.h5", store.manifest, store.lr)
    patches = open_patch_source(damaged, 2, "cpu", "disk").patches(
        DataConfig(lr_patch_size=16, train_kernel="nearest"), 1
    )
    with pytest.raises(StoreError, match="a part of image p2 does not match its checksum"):
        patches.batch(0, 1000)
    (tmp_path / "s.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match=r"s\.h5"):
        open_patch_source(damaged, 2, "cpu", "disk").patches(
            DataConfig(lr_patch_size=16, train_kernel="nearest"), 1
        ).batch(0, 1000)


def test_the_disk_reader_continues_when_its_store_is_replaced(store: PatchStore, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(store.path.read_bytes())
    config = DataConfig(lr_patch_size=16, train_kernel="nearest")
    patches = open_patch_source(PatchStore(path, store.manifest, store.lr), 2, "cpu", "disk").patches(config, 1)
    (tmp_path / "other").write_bytes(b"another store")
    (tmp_path / "other").replace(path)
    expected = open_patch_source(store, 2, "cpu", "disk").patches(config, 1).batch(0, 20)
    np.testing.assert_array_equal(patches.batch(0, 20)[1], expected[1])


def test_chunks_tell_where_the_pixels_are(store: PatchStore) -> None:
    data = store.path.read_bytes()
    for layer in (HR, Layer(2, "nearest")):
        for chunks, image in zip(store.chunks("train", layer), store.images("train", layer), strict=True):
            height, width = chunks.shape
            first = np.frombuffer(data, np.uint8, height * width * 3, chunks.start).reshape(height, width, 3)
            np.testing.assert_array_equal(first, image[:height, :width])


HOLDER = """
import sys
from pathlib import Path
import numpy as np
from sr_core.patches import placement, shared_pixels
shared_pixels.FOLDER = Path(sys.argv[1])
def fill(memory):
    print("fills", flush=True)
    memory[:] = 7
held = shared_pixels.SharedPixels("name", 1 << 20, fill)
print("holds", int(held.pixels.sum()), held.shared, flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that uses shared pixels until it gets the signal to end."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told: list[str] = []
        assert self.process.stdout is not None
        while not self.told or not self.told[-1].startswith("holds"):
            self.told.append(self.process.stdout.readline().strip())

    def end(self, number: signal.Signals | None = None) -> None:
        if number is not None:
            self.process.send_signal(number)
        self.process.communicate("\n")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="shared memory is a Linux matter here")
class TestSharedMemory:
    def test_it_is_filled_once_and_goes_with_the_last_process(self, own_memory: Path) -> None:
        first, second = Holder(own_memory), Holder(own_memory)
        expected = f"holds {7 << 20} True"
        assert (first.told, second.told) == (["fills", expected], [expected])
        (file,) = own_memory.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        first.end()
        assert list(own_memory.iterdir()) == [file]
        second.end()
        assert list(own_memory.iterdir()) == []

    def test_what_a_killed_process_left_is_removed_by_the_next(self, own_memory: Path) -> None:
        Holder(own_memory).end(signal.SIGKILL)
        assert len(list(own_memory.iterdir())) == 1
        other = SharedPixels("another", 100, lambda memory: memory.fill(1))
        assert other.shared and other.pixels.sum() == 100 and len(list(own_memory.iterdir())) == 1

    @pytest.mark.slow
    def test_it_stays_usable_when_whoever_filled_it_is_killed(self, own_memory: Path) -> None:
        first, second = Holder(own_memory), Holder(own_memory)
        first.end(signal.SIGKILL)
        third = Holder(own_memory)
        assert third.told == [f"holds {7 << 20} True"]
        second.end()
        third.end()
        assert list(own_memory.iterdir()) == []

    def test_a_half_filled_one_is_filled_again(self, own_memory: Path) -> None:
        with pytest.raises(StoreError):
            SharedPixels("name", 1 << 20, _failing)
        assert list(own_memory.iterdir()) == []
        held = Holder(own_memory)
        assert held.told[0] == "fills"
        held.end()

    def test_two_host_caches_of_one_process_share_too_and_cannot_write(
        self, store: PatchStore, own_memory: Path
    ) -> None:
        config = DataConfig(lr_patch_size=16, train_kernel="nearest")
        caches = [open_patch_source(store, 2, "cpu", "host") for _ in range(2)]
        for cache in caches:
            cache.patches(config, 1)
        assert len(list(own_memory.iterdir())) == 2  # HR and LR
        held = SharedPixels("name", 10, lambda memory: memory.fill(3))
        with pytest.raises(ValueError, match="read-only"):
            held.pixels[0] = 1


def _failing(memory: object) -> None:
    raise StoreError("damaged")


def test_without_a_folder_in_memory_the_pixels_are_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_pixels, "FOLDER", tmp_path / "absent")
    held = SharedPixels("name", 10, lambda memory: memory.fill(3))
    assert not held.shared and held.pixels.tolist() == [3] * 10
    with pytest.raises(ValueError, match="read-only"):
        held.pixels[0] = 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sampling", ["images", "subimages"])
def test_a_gpu_gathers_the_same_patches_and_waits_for_nothing(store: PatchStore, sampling: str) -> None:
    config = DataConfig(
        lr_patch_size=13,
        sampling=sampling,  # type: ignore[arg-type]
        subimage_window=60,
        subimage_step=30,
        train_kernel="nearest",
    )
    expected = open_patch_source(store, 2, "cpu", "host").patches(config, 11).batch(7, 100)
    opened = open_patch_source(store, 2, "cuda:0")
    assert opened.name == "device"
    patches = opened.patches(config, 11)
    patches.batch(0, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = patches.batch(7, 100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for got, want in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(got.cpu().numpy(), want)


def test_in_a_folder_without_locks_pixels_are_private_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    made = SharedPixels("some", 8, lambda array: array.fill(7))
    assert not made.shared
    assert made.pixels.tolist() == [7] * 8
    assert list(shared_pixels.FOLDER.iterdir()) == []
