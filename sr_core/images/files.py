"""Files to pixels and back: what is read is 8-bit RGB by a stated rule, or refused with a reason."""

import io
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.TiffTags
from numpy.typing import NDArray
from PIL.Image import Transpose

from sr_core.errors import ImageError
from sr_core.images.metadata import without_metadata

Image = NDArray[np.uint8]
"""(H, W, 3) RGB or (H, W) grey, 0..255, gamma-encoded as stored."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Known by content, whatever the suffix; Pillow's forty others stay shut (one of them starts Ghostscript)."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _FILL_ORDER, _PLANAR, _SAMPLE_FORMAT = 258, 262, 266, 284, 339  # TIFF tags
_SIGNED, _FLOAT = 2, 3  # values of the last
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""Orientation tag -> what turns the stored image upright (EXIF 2.3, table 6)."""

# Pillow's plugins raise all of these, not only OSError, on damaged headers and chunks.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip

# A file that cannot be used raises: what Pillow warns of on the way (odd EXIF, a large image) is no line for users.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: Path) -> Image:
    """Pixels of one image, upright: (H, W, 3) RGB, 0..255, at least one pixel.

    Whatever a PNG, JPEG, BMP, TIFF or WebP file holds is converted by one of these rules, or refused:

    | the file holds | what is read |
    |---|---|
    | 8-bit RGB | the samples as stored (JPEG and lossy WebP: as libjpeg-turbo and libwebp decode them) |
    | 1, 2, 4 or 8-bit grey | three equal channels; fewer than 8 bits are stretched to 0..255 |
    | a palette | its colours |
    | 16-bit RGB or grey (PNG, TIFF) | round(v / 257), so what once was 8-bit comes back exactly |
    | 16-bit samples that are all below 16384 | refused: data of 14 bits or fewer that nothing scaled |
    | alpha, or a transparent colour | dropped if opaque everywhere, else refused: the colour below is undefined |
    | an orientation (EXIF, XMP) | the image, turned upright |
    | a colour profile, gamma, chromaticities | samples as stored: they are not applied, as in the field's benchmarks |
    | channels that a TIFF leaves unspecified | left out |
    | CMYK, Lab, uncompressed YCbCr | refused: RGB depends on a profile or on the writer |
    | floats, signed samples, 12 or 32 bits | refused: which value is white is not said |
    | 16-bit samples that a TIFF stores plane by plane, inverted or with a spare channel | refused |
    | several images | the first of a camera's MPO; animations and multi-page files are refused |
    | more than 178,956,970 pixels | refused |

    A damaged PNG is refused, by the checksum of each of the chunks that its pixels need; so is any file that was cut
    off, unless all pixels are there. The other formats hold no checksum: a flipped bit is refused as far as the decoder
    notices it. Metadata decides nothing: text and profiles may be of any size, and an orientation that cannot be read
    leaves the pixels as stored.

    Raises:
        ImageError: the file is missing, empty, damaged, truncated or no such image, or refused by a rule.
    """
    with naming_faults(path):
        return _rgb(read_upright(path))


def read_upright(path: Path) -> PIL.Image.Image:
    """The image as Pillow holds it, upright, of 8 bits, in mode 1, L, LA, P, PA, RGB or RGBA: alpha is kept.

    Otherwise by the rules of `read_image`; to be called under `naming_faults`. Of its `info`, "icc_profile" holds the
    colour profile if there is one.
    """
    data = path.read_bytes()
    if not data:
        raise ImageError(f"{path}: the file is empty; replace it or take it out of the folder")
    return _decoded(data)


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Whatever goes wrong while this image is read becomes an ImageError that names it."""
    try:
        yield
    except _RefusedError as exc:
        raise ImageError(f"{path}: {exc}") from exc
    except FileNotFoundError as exc:
        raise ImageError(f"{path}: no such image; check the path") from exc
    except PermissionError as exc:
        raise ImageError(f"{path}: may not be read by this user ({exc.strerror}); change its permissions") from exc
    except PIL.UnidentifiedImageError as exc:
        raise ImageError(
            f"{path}: cannot be decoded as an image: it is no PNG, JPEG, BMP, TIFF or WebP file, or of a rare kind, "
            "or damaged; replace it or take it out of the folder"
        ) from exc
    except PIL.Image.DecompressionBombError as exc:
        limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(f"{path}: holds more than {limit:,} pixels, or says so; cut it into several") from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(
            f"{path}: cannot be decoded as an image ({exc or type(exc).__name__}); it is damaged, truncated or of "
            "another kind: replace it or take it out of the folder"
        ) from exc


def image_sides(path: Path) -> tuple[int, int]:
    """The shorter and the longer side of an image in pixels, from its header, which may be all that is right of it.

    Raises:
        ImageError: as `read_image` does, where not even the header can be read.
    """
    try:
        width, height = stated_size(path)
    except (PIL.Image.DecompressionBombError, *_DECODER_ERRORS):
        height, width = read_image(path).shape[:2]
    return min(height, width), max(height, width)


def stated_size(path: Path) -> tuple[int, int]:
    """Width and height as stored, by the header; to be called under `naming_faults`."""
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            return image.size
    except (*_DECODER_ERRORS, Warning):  # perhaps metadata that comes first
        data, _ = without_metadata(path.read_bytes())
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size


class _RefusedError(Exception):
    """A whole image of a kind that is not read; the message is what comes after the path."""

    def __init__(self, reason: str, remedy: str = "convert it") -> None:
        super().__init__(f"{reason}; expected an RGB or grey image of 8 or 16 bits: {remedy} first")


def _decoded(file: bytes) -> PIL.Image.Image:
    data, metadata = without_metadata(file)
    with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
        deep = _is_deep(image)  # before load(), which forgets how many bits the file has
        if image.format == "TIFF":
            _forget_subdirectories(image)
        image.load()
        image.info.update(metadata)
        is_upright = image.format == "TIFF"  # since load(), which also removed its tag
        upright = None if is_upright else _UPRIGHT.get(_orientation(image.info))
        shallow = _rounded(image, data) if deep else image
        if deep and "icc_profile" in image.info:
            shallow.info["icc_profile"] = image.info["icc_profile"]
        return shallow if upright is None else shallow.transpose(upright)


def _orientation(info: Mapping[str | tuple[int, int], Any]) -> int:
    """The orientation by an image's EXIF, or else by its XMP; 1 (as stored) if neither has one that can be read."""
    xmp_alone = {name: value for name, value in info.items() if name in ("xmp", "XML:com.adobe.xmp")}
    sources: list[dict[Any, Any]] = [dict(info), dict(xmp_alone)]
    for metadata in sources:
        reader = PIL.Image.Image()
        reader.info = metadata
        try:
            return int(reader.getexif().get(_EXIF_ORIENTATION, 1))
        except (*_DECODER_ERRORS, Warning):
            continue
    return 1


def _forget_subdirectories(image: PIL.Image.Image) -> None:
    """Let Pillow not follow a TIFF's references to EXIF, GPS and the like, which may be damaged."""
    exif = image.getexif()
    for tag in PIL.TiffTags.TAGS_V2_GROUPS:
        if tag in exif:
            del exif[tag]


def _is_deep(image: PIL.ImageFile.ImageFile) -> bool:
    """Whether the samples have 16 bits; raises _RefusedError if nothing here can read them."""
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _RefusedError("is animated or multi-page", "take out one image")
    tags = getattr(image, "tag_v2", {})
    formats = tags.get(_SAMPLE_FORMAT, ())
    if image.mode == "F" or _FLOAT in formats:
        raise _RefusedError("holds floating-point samples")
    if image.mode == "I" or _SIGNED in formats:
        raise _RefusedError("holds signed or 32-bit samples")

    # A layout is Pillow's name for the samples in the file, e.g. "RGB;16B". A BMP's "BGR;16" is 5-6-5 bits.
    layouts = {_layout(tile.args) for tile in image.tile} if image.format in ("PNG", "TIFF") else set()
    bits = set(tags.get(_BITS_PER_SAMPLE, ()))
    if image.mode.startswith("I;16") or any(";16" in layout for layout in layouts) or any(n > 8 for n in bits):
        plain = (
            bits <= {16}
            and tags.get(_PHOTOMETRIC, 1) in (1, 2)
            and tags.get(_FILL_ORDER, 1) == tags.get(_PLANAR, 1) == 1
            and all(re.fullmatch(r"(RGBA?|I);16[BLN]?", layout) for layout in layouts)
        )
        if not plain:
            raise _RefusedError("has more than 8 bits per channel in a rare layout (12 bits, planes, inverted, …)")
        if "transparency" in image.info:
            raise _RefusedError("has more than 8 bits per channel and a transparent colour", "flatten it")
        return True
    if layouts & {"L;2", "L;4"} and "transparency" in image.info:  # Pillow would compare before and after stretching
        raise _RefusedError("has a transparent shade among fewer than 8 bits of grey", "flatten it")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise _RefusedError(f"is a {image.mode} image")
    return False


def _layout(args: object) -> str:
    return str(args[0] if isinstance(args, tuple) else args)


def _rounded(image: PIL.ImageFile.ImageFile, data: bytes) -> PIL.Image.Image:
    """The 8-bit image nearest to a 16-bit one, which has been loaded."""
    samples = np.asarray(image).astype(np.uint32)
    if not image.mode.startswith("I;16"):  # Pillow read the high bytes alone: the low ones are those it swaps with
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as swapped:
            swapped.tile = [tile._replace(args=_swapped(tile.args)) for tile in swapped.tile]
            samples = samples * 256 + np.asarray(swapped)
    if samples.max() < 16384:
        raise _RefusedError(
            f"has 16 bits per channel, and no sample above {samples.max()} of 65535, as if made of fewer bits",
            "stretch and convert it",
        )
    return PIL.Image.fromarray(((samples + 128) // 257).astype(np.uint8))


def _swapped(args: tuple[object, ...] | str | None) -> tuple[object, ...] | str:
    """A tile's decoder arguments with the other byte order."""
    if isinstance(args, tuple):
        return (_swapped(str(args[0])), *args[1:])
    layout = str(args)
    native = {"little": "L", "big": "B"}[sys.byteorder]
    order = native if layout.endswith("N") else layout[-1]
    return layout[:-1] + {"L": "B", "B": "L"}[order]


def _rgb(image: PIL.Image.Image) -> Image:
    if image.has_transparency_data:  # an alpha channel, or a transparent colour or palette entry
        image = image.convert("RGBA")
        least = np.asarray(image)[..., 3].min()
        if least < 255:
            raise _RefusedError(f"is transparent in places (alpha down to {least})", "flatten it onto a background")
    return np.array(image.convert("RGB"), dtype=np.uint8)


def png_bytes(image: Image) -> bytes:
    """A PNG file of (H, W, 3) RGB or (H, W) grey pixels, lossless."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def webp_bytes(image: Image, quality: int | None = None) -> bytes:
    """A WebP file of (H, W, 3) RGB pixels: lossless, or of a quality of 0..100; losses are hard to see at 90."""
    file, whole = io.BytesIO(), quality is None
    # Method 2, effort 0: a twentieth larger than the smallest lossless file, in a quarter of its time.
    PIL.Image.fromarray(image).save(file, "WEBP", lossless=whole, method=2 if whole else 4, quality=quality or 0)
    return file.getvalue()


def webp_preview(path: Path) -> bytes:
    """A small lossy WebP file of an image, for a page that shows many. Raises ImageError as `read_image` does."""
    return webp_bytes(read_image(path), 90)


def write_png(path: Path, image: Image) -> None:
    """Writes (H, W, 3) RGB or (H, W) grey pixels, lossless; the folder must exist, an old file is replaced.

    Raises:
        ImageError: the file cannot be written.
    """
    try:
        PIL.Image.fromarray(image).save(path, format="PNG")
    except OSError as exc:
        raise ImageError(f"{path}: cannot be written ({exc}); choose another folder or make room") from exc
