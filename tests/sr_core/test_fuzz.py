"""Damaged files are refused with one clear error or read correctly, without a crash, a hang or wrong pixels.

What is promised of a file that was cut off, or in which bits were flipped, runs overwritten, removed or doubled:

- a store: every image and patch equals the undamaged one, or StoreError;
- a PNG: the pixels equal the undamaged ones, or ImageError, because each of its chunks has a checksum;
- JPEG, BMP, TIFF and WebP hold no checksum: ImageError, or an 8-bit RGB image of the size that the damaged file
  states. Cut off, they too are refused or read right.

Cases run in another process with limited memory and time, and are made from their number alone. For more of them, e.g.
those from 10,000 to 100,000: `python tests/sr_core/test_fuzz.py images 10000 100000`, and `stores` likewise.
"""

import faulthandler
import io
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile

from sr_core.config import DataConfig, Kernel
from sr_core.errors import ImageError, StoreError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import Image, read_image
from sr_core.patches.disk import DiskReader
from sr_core.store.hdf5 import load_store, verify, write_store
from sr_core.store.layers import HR, Entry, Layer
from sr_core.store.manifest import Split, manifest_entry
from sr_core.store.sources import SourceImage, embedded_images

SECONDS_PER_CASE = 30
MEMORY = 4 * 2**30

Case = Callable[[int], str]
"""Runs the case of a number and returns how it ended. Raises AssertionError if a promise was broken."""


def damage(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """The name of a kind of damage, and the damaged bytes."""
    broken = bytearray(data)
    at = int(rng.integers(len(data))) if rng.random() < 0.7 else int(rng.integers(min(len(data), 256)))
    length = int(rng.integers(1, 64))
    match rng.integers(7):
        case 0:
            return "cut", data[:at]
        case 1 | 2:
            broken[at] ^= 1 << rng.integers(8)
            return "bit", bytes(broken)
        case 3:
            for place in rng.integers(len(data), size=8):
                broken[place] ^= 1 << rng.integers(8)
            return "bits", bytes(broken)
        case 4:
            broken[at : at + length] = rng.choice([b"\0", b"\xff"]) * len(broken[at : at + length])
            return "blank", bytes(broken)
        case 5:
            return "gap", data[:at] + data[at + length :]
        case _:
            return "repeat", data[: at + length] + data[at:]


def image_files() -> dict[str, bytes]:
    """Real files of every supported format: small ones, and some from scikit-image."""
    astronaut = PIL.Image.fromarray(skimage.data.astronaut()[40:120, 180:276])
    coffee = PIL.Image.fromarray(skimage.data.coffee()[100:164, 200:290])
    camera = PIL.Image.fromarray(skimage.data.camera()[100:170, 200:280])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    files: dict[str, bytes] = {}

    def add(name: str, image: PIL.Image.Image, **options: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, format=name.split("-")[0], **options)
        files[name] = stream.getvalue()

    add("png-rgb", astronaut, exif=exif, icc_profile=b"x" * 200)
    add("png-grey", camera)
    add("png-palette", coffee.quantize(64))
    add("png-1bit", camera.convert("1"))
    add("png-16bit", PIL.Image.fromarray(np.asarray(camera).astype(np.uint16) * 257))
    add("jpeg-rgb", astronaut, quality=90, exif=exif)
    add("jpeg-progressive", coffee, quality=75, progressive=True)
    add("jpeg-grey", camera)
    add("jpeg-restarts", coffee, quality=95, subsampling=0, restart_marker_blocks=4)
    add("bmp-rgb", coffee)
    add("bmp-palette", camera)
    add("bmp-1bit", camera.convert("1"))
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"tiff-{compression}", astronaut, compression=compression)
    add("tiff-group4", camera.convert("1"), compression="group4")
    add("webp-lossless", coffee, lossless=True, exif=exif)
    add("webp-lossy", astronaut, quality=80)
    stream = io.BytesIO()
    deep = np.asarray(astronaut).astype(np.uint16) * 257
    tifffile.imwrite(stream, deep, photometric="rgb", tile=(32, 32), compression="zlib", predictor=2, byteorder=">")
    files["tiff-16bit"] = stream.getvalue()
    shipped = {image.name: image.path for image in embedded_images().train}
    files["png-page"] = shipped["page"].read_bytes()
    files["jpeg-rocket"] = next(p.path for p in embedded_images().valid if p.name == "rocket").read_bytes()
    return files


def image_case(folder: Path) -> Case:
    files = image_files()
    names = sorted(files)
    path = folder / "picture"
    whole: dict[str, Image] = {}
    for name in names:
        path.write_bytes(files[name])
        whole[name] = read_image(path)

    def case(number: int) -> str:
        rng = np.random.default_rng(number)
        name = names[number % len(names)]
        kind, data = damage(files[name], rng)
        path.write_bytes(data)
        try:
            pixels = read_image(path)
        except ImageError as exc:
            assert str(exc).startswith(f"{path}: ") and "\n" not in str(exc), exc
            return "refused"
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
        if np.array_equal(pixels, whole[name]):
            return "equal"
        if name == "png-rgb" and np.array_equal(pixels, np.rot90(whole[name])):
            return "as stored: the damage is in the orientation"
        assert kind != "cut" and not name.startswith("png"), f"{name} {kind}: wrong pixels"
        return "other pixels, no checksum"

    return case


def store_case(folder: Path) -> Case:
    def entry(split: Split, name: str, hr: Image, *kernels: Kernel) -> Entry:
        lr = {Layer(2, kernel): downsample(crop_to_multiple(hr, 2), 2, kernel) for kernel in kernels}
        return Entry(manifest_entry(split, SourceImage(name, Path(name)), hr), {HR: hr, **lr})

    entries = [
        entry("train", "astronaut", skimage.data.astronaut()[:70, :90], "nearest", "pillow_box"),
        entry("train", "coffee", skimage.data.coffee()[:40, :33], "nearest", "pillow_box"),
        entry("valid", "cat", skimage.data.chelsea()[:30, :28], "nearest"),
    ]
    path = folder / "store.h5"
    write_store(path, entries, [("train", 2, "nearest"), ("train", 2, "pillow_box"), ("valid", 2, "nearest")])
    config = DataConfig(scale=2, lr_patch_size=12, train_kernel="pillow_box")

    readings: dict[str, Callable[[], list[Image]]] = {
        "train": lambda: (pixels := load_store(path).training_pixels(2, "pillow_box")).lr + pixels.hr,
        "valid": lambda: (pixels := load_store(path).validation_pixels(2, "nearest")).lr + pixels.hr,
        "disk": lambda: list(DiskReader(load_store(path), 2).patches(config, 5).batch(0, 12)),
    }
    whole = path.read_bytes()
    right = {name: read() for name, read in readings.items()}

    def case(number: int) -> str:
        kind, data = damage(whole, np.random.default_rng(number))
        path.write_bytes(data)
        refused = set()
        for name, read in readings.items():
            try:
                found = read()
            except StoreError as exc:
                assert "\n" not in str(exc), exc
                refused.add(name)
                continue
            for image, expected in zip(found, right[name], strict=True):
                assert np.array_equal(image, expected), f"{kind}: wrong pixels for {name}"
        try:
            damaged = verify(path)
        except StoreError:
            return "refused as a whole"
        assert damaged or not refused, f"{kind}: verify finds nothing, reading {refused} does"
        return f"{len(damaged)} images damaged, {len(refused)} of {len(readings)} readings refused"

    return case


CASES = {"images": image_case, "stores": store_case}


def main(what: str, first: int, last: int) -> None:
    """Run cases one after the other, announce each before it runs, and finally print the counts of the outcomes."""
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[what](Path(folder))
        if sys.platform == "linux":  # elsewhere this limit is not kept
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number in range(first, last):
            print("case", number, flush=True)
            faulthandler.dump_traceback_later(SECONDS_PER_CASE, exit=True)  # also out of C that never returns
            ended[case(number)] += 1
            faulthandler.cancel_dump_traceback_later()
    print(json.dumps(ended))


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("images", 1200),
        ("stores", 300),
        pytest.param("images", 6000, marks=pytest.mark.slow),
        pytest.param("stores", 1500, marks=pytest.mark.slow),
    ],
)
def test_damage_is_refused_or_harmless(what: str, count: int) -> None:
    command = [sys.executable, __file__, what, "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    *_, last = done.stdout.splitlines()
    assert done.returncode == 0, f"{last}\n{done.stderr}"
    ended: dict[str, int] = json.loads(last)
    assert sum(ended.values()) == count
    assert sum(number for end, number in ended.items() if "refused" in end) > count / 3  # the damage is real


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
