"""Each rule of `read_image`: a kind of file is converted exactly as documented, or refused in one line."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest
import tifffile
from numpy.typing import NDArray

from sr_core.errors import ImageError
from sr_core.images.files import Image, read_image

RGB: Image = np.random.default_rng(11).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY: Image = RGB[..., 0]
DEEP = np.random.default_rng(12).integers(0, 65536, (9, 14, 4), dtype=np.uint16)
ROUNDED = np.round(DEEP[..., :3] / 257).astype(np.uint8)  # no ties: 257 is odd
OPAQUE = np.full((9, 14, 1), 255, np.uint8)

GREY_PNG, RGB_PNG, PALETTE_PNG, GREY_ALPHA_PNG, RGBA_PNG = 0, 2, 3, 4, 6  # colour types


def png(samples: NDArray[np.unsignedinteger], colour_type: int, *extra: tuple[bytes, bytes], bits: int = 0) -> bytes:
    """An unfiltered PNG of (H, W) or (H, W, C) samples. Extra chunks come before the pixels."""
    bits = bits or samples.itemsize * 8
    rows = samples.reshape(len(samples), -1)
    if bits < 8:
        wide = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., -bits:]
        lines = [np.packbits(row).tobytes() for row in wide.reshape(len(rows), -1)]
    else:
        lines = [row.astype(f">u{bits // 8}").tobytes() for row in rows]
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines))
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def grey(pixels: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    return np.repeat(pixels[..., None], 3, axis=2)


def check(path: Path, expected: NDArray[np.unsignedinteger]) -> None:
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_is_stretched_to_the_full_range(bits: int, tmp_path: Path) -> None:
    path, most = tmp_path / "a.png", 2**bits - 1
    few = GREY & np.uint8(most)
    path.write_bytes(png(few, GREY_PNG, bits=bits))
    check(path, grey(few * (255 // most)))


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [1, 8])
def test_an_inverted_tiff_comes_out_positive(bits: int, inverted: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    stored = GREY > 127 if bits == 1 else GREY
    tifffile.imwrite(path, stored, photometric="miniswhite" if inverted else "minisblack")
    shown = stored * np.uint8(255) if bits == 1 else stored
    check(path, grey(255 - shown if inverted else shown))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    colours = RGB.reshape(-1, 3)[:16]
    path.write_bytes(png(GREY % 16, PALETTE_PNG, (b"PLTE", colours.tobytes()), bits=4))
    check(path, colours[GREY % 16])
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="palette", colormap=np.tile(np.arange(256) * 257, (3, 1)))
    check(tmp_path / "a.tif", grey(GREY))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_to_the_nearest_of_eight(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    samples = DEEP[..., :channels].copy()
    samples[..., 3:] = 65535
    path.write_bytes(png(samples, {1: GREY_PNG, 3: RGB_PNG, 4: RGBA_PNG}[channels]))
    check(path, grey(ROUNDED[..., 0]) if channels == 1 else ROUNDED)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": 2}])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 2}])
def test_sixteen_bits_of_a_tiff_are_rounded_whatever_its_layout(
    byteorder: str, options: dict[str, object], layout: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    for samples, kind, expected in (
        (DEEP[..., :3], "rgb", ROUNDED),
        (DEEP[..., 0], "minisblack", grey(ROUNDED[..., 0])),
    ):
        tifffile.imwrite(path, samples, photometric=kind, byteorder=byteorder, **options, **layout)
        check(path, expected)


def test_what_once_had_eight_bits_comes_back_from_sixteen_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(RGB.astype(np.uint16) * 257, RGB_PNG))
    check(path, RGB)


@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_sixteen_are_refused_rather_than_read_as_darkness(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(DEEP[..., :channels] // 4, GREY_PNG if channels == 1 else RGB_PNG))
    refused(path, r"no sample above 16\d\d\d of 65535, as if made from fewer bits; .*stretch and convert it first")


ORIENTATION = 0x0112


@pytest.mark.parametrize("channels", [1, 3])
def test_a_turned_image_of_sixteen_bits_is_turned_upright(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(png(DEEP[..., :channels], GREY_PNG if channels == 1 else RGB_PNG, (b"eXIf", body)))
    check(path, np.rot90(grey(ROUNDED[..., 0]) if channels == 1 else ROUNDED, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_colour_profile_changes_no_sample(suffix: str, tmp_path: Path) -> None:
    lab = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("LAB")).tobytes()  # as wrong for RGB as can be
    options = {"lossless": True} if suffix == "webp" else {}
    for profile in (None, lab):
        PIL.Image.fromarray(RGB).save(tmp_path / f"{profile is None}.{suffix}", icc_profile=profile, **options)
    check(tmp_path / f"False.{suffix}", read_image(tmp_path / f"True.{suffix}"))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"gAMA", struct.pack(">I", 100_000)),  # linear light
        (b"cHRM", struct.pack(">8I", *[33_000] * 8)),
        (b"sRGB", b"\1"),
        (b"sBIT", b"\5\6\5"),
        (b"bKGD", struct.pack(">3H", 1, 2, 3)),
        (b"cICP", bytes([9, 16, 0, 1])),  # BT.2100 PQ
    ],
)
def test_gamma_and_the_like_change_no_sample(chunk: tuple[bytes, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(RGB, RGB_PNG, chunk))
    check(path, RGB)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(png(RGB, RGB_PNG))
    check(path, RGB)
    PIL.Image.fromarray(RGB).save(path, format="GIF")
    refused(path, "expected a PNG, JPEG, BMP, TIFF or WebP file")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    refused(path, "expected a PNG, JPEG, BMP, TIFF or WebP file")


def test_a_channel_that_a_tiff_leaves_unspecified_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([RGB, GREY]), photometric="rgb", extrasamples=["unspecified"])
    check(path, RGB)


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for kind in ("unassalpha", "assocalpha"):
        tifffile.imwrite(path, np.dstack([RGB, OPAQUE]), photometric="rgb", extrasamples=[kind])
        check(path, RGB)
    path.write_bytes(png(np.dstack([GREY, OPAQUE]), GREY_ALPHA_PNG))
    check(path, grey(GREY))


TRANSPARENT = np.dstack([RGB, np.where(RGB[..., :1] == RGB[3, 4, 0], 254, 255).astype(np.uint8)])
RED = struct.pack(">H", RGB[0, 0, 0])
FILM = {"save_all": True, "append_images": [PIL.Image.fromarray(RGB[::-1])]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            png(TRANSPARENT, RGBA_PNG),
            r"transparent in places \(alpha down to 254\).*flatten it onto a background first",
        ),
        (png(DEEP, RGBA_PNG), "transparent in places"),
        (png(RGB, RGB_PNG, (b"tRNS", struct.pack(">3H", *RGB[0, 0].tolist()))), "alpha down to 0"),
        (png(GREY, GREY_PNG, (b"tRNS", RED)), "alpha down to 0"),
        (png(GREY % 2, GREY_PNG, (b"tRNS", b"\0\1"), bits=1), "alpha down to 0"),
        (png(GREY % 16, GREY_PNG, (b"tRNS", b"\0\3"), bits=4), "a transparent shade among fewer than 8 bits of grey"),
        (png(DEEP[..., 0], GREY_PNG, (b"tRNS", RED)), "more than 8 bits per channel and a transparent colour"),
        (png(DEEP[..., :3], RGB_PNG, (b"tRNS", RED * 3)), "more than 8 bits per channel and a transparent colour"),
        (png(GREY % 2, PALETTE_PNG, (b"PLTE", bytes(6)), (b"tRNS", b"\x80"), bits=1), "alpha down to 128"),
        (png(DEEP[..., :2], GREY_ALPHA_PNG), "more than 8 bits per channel in a rare layout"),
    ],
)
def test_what_is_transparent_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    refused(path, reason)


@pytest.mark.parametrize(
    ("name", "mode", "options", "reason"),
    [
        ("print.jpg", "CMYK", {}, "is a CMYK image"),
        ("print.tif", "CMYK", {}, "is a CMYK image"),
        ("lab.tif", "LAB", {}, "is a LAB image"),
        ("video.tif", "YCbCr", {}, "is a YCbCr image"),
        ("film.png", "RGB", FILM, "animated or multi-page; .* extract one image first"),
        ("film.webp", "RGB", FILM, "animated or multi-page"),
        ("pages.tif", "RGB", FILM, "animated or multi-page"),
    ],
)
def test_what_is_no_single_rgb_image_is_refused(
    name: str, mode: str, options: dict[str, object], reason: str, tmp_path: Path
) -> None:
    PIL.Image.fromarray(RGB).convert(mode).save(tmp_path / name, **options)  # type: ignore[arg-type]
    refused(tmp_path / name, reason)


@pytest.mark.parametrize(
    ("samples", "options", "reason"),
    [
        (GREY.astype(np.float32), {}, "floating-point samples"),
        (GREY.astype(np.int8), {}, "signed or 32-bit samples"),
        (GREY.astype(np.int16), {}, "signed or 32-bit samples"),
        (GREY.astype(np.uint32), {}, "signed or 32-bit samples"),
        (DEEP[..., 0], {"photometric": "miniswhite"}, "in a rare layout"),
        (
            np.moveaxis(DEEP[..., :3], 2, 0),
            {"photometric": "rgb", "planarconfig": "separate"},
            "in a rare layout",
        ),
        (DEEP, {"photometric": "rgb", "extrasamples": ["unspecified"]}, "in a rare layout"),
        (RGB.astype(np.float32), {"photometric": "rgb"}, "cannot be decoded as an image"),
    ],
)
def test_samples_whose_white_is_unknown_are_refused(
    samples: NDArray[np.generic], options: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, **options)
    refused(path, reason)


def test_a_monstrous_image_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    data = bytearray(png(RGB, RGB_PNG))
    data[16:24] = struct.pack(">II", 10**6, 10**6)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    refused(path, r"expected at most 178,956,970 pixels, but its header states more; cut it into several")


def test_a_large_image_below_the_limit_is_read_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(RGB, RGB_PNG))
    code = (
        "import sys, pathlib, PIL.Image; from sr_core.images.files import read_image; "
        "PIL.Image.MAX_IMAGE_PIXELS = 100; print(read_image(pathlib.Path(sys.argv[1])).size)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{RGB.size}\n", "")


def test_the_page_about_data_states_the_rules_of_the_reader() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "data.md").read_text(encoding="utf-8")
    rules = [line.strip() for line in (read_image.__doc__ or "").splitlines() if line.strip().startswith("|")]
    assert len(rules) > 10
    assert "\n".join(rules) in page
