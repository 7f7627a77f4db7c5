"""Metadata has no influence: intact pixels are readable with text, profiles and EXIF of any size and in any state."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from sr_core.errors import ImageError
from sr_core.images.files import Image, image_sides, read_image
from sr_core.images.own_images import count_pixels, read_own_image

RNG = np.random.default_rng(11)
RGB: Image = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
TURNED = np.rot90(RGB, -1)
"""The pixels turned by orientation 6."""
MANY = 2 << 20
ORIENTED = PIL.Image.Exif()
ORIENTED[0x0112] = 6
EXIF = ORIENTED.tobytes()
XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def encoded(kind: str, pixels: Any = RGB, **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(*chunks: bytes, at: int = 33, of: bytes = b"") -> bytes:
    """An RGB PNG with these chunks after its header or elsewhere."""
    plain = of or encoded("PNG")
    return plain[:at] + b"".join(chunks) + plain[at:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    plain = encoded("JPEG", quality=95)
    return plain[:2] + b"".join(struct.pack(">BBH", 0xFF, m, len(b) + 2) + b for m, b in segments) + plain[2:]


def text(size: int) -> bytes:
    return b"Comment\0\0" + zlib.compress(bytes(size))


AS_STORED = {
    "2 MiB of compressed text": png(chunk(b"zTXt", text(MANY))),
    "2 MiB of compressed text after the pixels": png(chunk(b"zTXt", text(MANY)), at=-12),
    "more than 64 MiB of text in all": png(*[chunk(b"zTXt", text((1 << 20) - 9))] * 66),
    "2 MiB of international text": png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(MANY)))),
    "a profile of 2 MiB": png(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(MANY)))),
    "a damaged profile": png(chunk(b"iCCP", b"ICC\0\0nonsense")),
    "a profile without anything": png(chunk(b"iCCP", b"")),
    "a wrong checksum of text": png(chunk(b"tEXt", b"Comment\0hello", wrong=True)),
    "a wrong checksum of gamma": png(chunk(b"gAMA", struct.pack(">I", 45455), wrong=True)),
    "a wrong checksum of EXIF": png(chunk(b"eXIf", EXIF, wrong=True)),
    "gamma of the wrong length": png(chunk(b"gAMA", b"\0")),
    "resolution of the wrong length": png(chunk(b"pHYs", b"\0")),
    "PNG: EXIF that is none": png(chunk(b"eXIf", b"nonsense")),
    "PNG: EXIF cut off": png(chunk(b"eXIf", EXIF[6:-9])),
    "PNG: EXIF without anything": png(chunk(b"eXIf", b"")),
    "PNG: EXIF in text that is none": png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nzz")),
    "XMP of 20 MiB": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(20 << 20)))),
    "something after the end": encoded("PNG") + b"more" * 99,
    "a private chunk": png(chunk(b"prVt", b"\xff" * 99)),
    "WEBP: EXIF that is none": encoded("WEBP", lossless=True, exif=b"nonsense"),
    "WEBP: EXIF cut off": encoded("WEBP", lossless=True, exif=EXIF[:-9]),
    "WEBP: a profile that is none": encoded("WEBP", lossless=True, icc_profile=b"nonsense"),
}


@pytest.mark.parametrize("name", AS_STORED)
def test_metadata_that_is_large_or_damaged_leaves_the_pixels_as_stored(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(AS_STORED[name])
    np.testing.assert_array_equal(read_image(path), RGB)
    np.testing.assert_array_equal(read_own_image(path).rgb, RGB)
    assert (image_sides(path), count_pixels(path)) == ((9, 14), 9 * 14)


SEGMENTS = {
    "a JFIF segment cut short": [(0xE0, b"JFIF\0")],
    "EXIF that is none": [(0xE1, b"Exif\0\0nonsense")],
    "EXIF cut off": [(0xE1, EXIF[:-9])],
    "EXIF without anything": [(0xE1, b"Exif\0\0")],
    "profile parts that are missing": [(0xE2, b"ICC_PROFILE\0\1\3abc")],
    "a profile part without a number": [(0xE2, b"ICC_PROFILE\0")],
    "an index of several images that is none": [(0xE2, b"MPF\0nonsense")],
    "an index of several images cut off": [(0xE2, b"MPF\0II*\0\x08\0\0\0\x05\0")],
    "an index of several images without a number": [(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0")],
    "Photoshop's resources cut short": [(0xED, b"Photoshop 3.0\x008BIM\x04")],
    "an Adobe segment cut short": [(0xEE, b"Adobe")],
    "a FlashPix segment": [(0xE2, b"FPXR\0")],
    "empty segments of every kind": [(0xE0 + n, b"") for n in range(16)],
    "large segments of every kind": [(0xE0 + n, b"\xff" * 65_000) for n in range(16)] * 3,
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_of_a_jpeg_leave_its_pixels_as_stored(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(jpeg())
    whole = read_image(path)
    path.write_bytes(jpeg(*SEGMENTS[name]))
    np.testing.assert_array_equal(read_image(path), whole)
    assert (image_sides(path), count_pixels(path)) == ((9, 14), 9 * 14)


@pytest.mark.parametrize("tag", [0x8769, 0x8825, 0xA005])  # EXIF, GPS, interoperability
@pytest.mark.parametrize("offset", [0, 7, 0xFFFFFF00])
def test_a_tiff_that_refers_to_metadata_that_is_none_is_read(tag: int, offset: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", extratags=[(tag, "I", 1, offset, True)])
    np.testing.assert_array_equal(read_image(path), RGB)
    assert (image_sides(path), count_pixels(path)) == ((9, 14), 9 * 14)


OF_USE: dict[str, Callable[[], bytes]] = {
    "PNG, EXIF": lambda: png(chunk(b"eXIf", EXIF[6:])),
    "PNG, EXIF after the pixels": lambda: png(chunk(b"eXIf", EXIF[6:]), at=-12),
    "PNG, EXIF in text": lambda: png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n9\n" + EXIF.hex().encode())),
    "PNG, XMP": lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())),
    "PNG, compressed XMP": lambda: png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP.encode() + b" " * MANY))
    ),
    "PNG, XMP and damaged EXIF": lambda: png(
        chunk(b"eXIf", b"nonsense"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode())
    ),
    "WEBP, EXIF": lambda: encoded("WEBP", lossless=True, exif=EXIF),
    "WEBP, XMP and damaged EXIF": lambda: encoded("WEBP", lossless=True, exif=b"nonsense", xmp=XMP.encode()),
}


@pytest.mark.parametrize("name", OF_USE)
def test_an_orientation_that_can_be_read_is_obeyed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OF_USE[name]())
    np.testing.assert_array_equal(read_image(path), TURNED)


@pytest.mark.parametrize("segments", [[(0xE1, EXIF)], [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.encode())]])
def test_an_orientation_in_a_jpeg_is_obeyed(segments: list[tuple[int, bytes]], tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(jpeg())
    whole = read_image(path)
    path.write_bytes(jpeg(*segments))
    np.testing.assert_array_equal(read_image(path), np.rot90(whole, -1))


def test_a_profile_is_kept_whatever_its_size(tmp_path: Path) -> None:
    profile = b"\0" * 16 + b"RGB " + RNG.bytes(MANY)
    parts = [profile[at : at + 65_000] for at in range(0, len(profile), 65_000)]
    numbered = [(0xE2, b"ICC_PROFILE\0" + bytes([n, len(parts)]) + part) for n, part in enumerate(parts, 1)]
    for data in (png(chunk(b"iCCP", b"ICC\0\0" + zlib.compress(profile))), jpeg(*reversed(numbered))):
        (tmp_path / "a").write_bytes(data)
        assert read_own_image(tmp_path / "a").icc_profile == profile


# What the pixels need is checked as strictly as before


def _chunks(data: bytes) -> list[tuple[int, bytes, int]]:
    """(begin, kind, end) of each."""
    at, found = 8, []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((at, kind, at + 12 + length))
        at += 12 + length
    return found


PALETTE = encoded("PNG", PIL.Image.fromarray(RGB).quantize(16), transparency=bytes([255] * 15 + [9]))


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
def test_a_wrong_checksum_of_what_is_needed_is_refused(kind: bytes, tmp_path: Path) -> None:
    (end,) = {end for _, found, end in _chunks(PALETTE) if found == kind}
    damaged = bytearray(PALETTE)
    damaged[end - 1] ^= 1
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(ImageError, match=f"checksum of its chunk {kind!r} at byte"):
        read_own_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [b"PLTE", b"tRNS", b"IDAT"])
def test_a_needed_chunk_whose_name_is_damaged_is_not_taken_for_metadata(kind: bytes, tmp_path: Path) -> None:
    at = next(at for at, found, _ in _chunks(PALETTE) if found == kind)
    for place, bit in itertools.product(range(4), range(8)):
        damaged = bytearray(PALETTE)
        damaged[at + 4 + place] ^= 1 << bit
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"checksum of its chunk|it ends within"):
            read_own_image(tmp_path / "a.png")


@pytest.mark.parametrize("swallowed", [b"PLTE", b"tRNS"])
def test_metadata_whose_length_swallows_a_needed_chunk_is_refused(swallowed: bytes, tmp_path: Path) -> None:
    at, _, end = next(found for found in _chunks(PALETTE) if found[1] == swallowed)
    data = bytearray(png(chunk(b"tEXt", b"Comment\0hello"), at=at, of=PALETTE))
    data[at : at + 4] = struct.pack(">I", 13 + end - at)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="checksum of its chunk b'tEXt'"):
        read_own_image(tmp_path / "a.png")


def test_an_animation_is_refused_still(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(RGB), PIL.Image.fromarray(RGB[::-1].copy())]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated"):
        read_image(tmp_path / "a.png")
