"""Reading and writing of image files. Each file is read as 8-bit RGB by a documented rule, or refused with a reason."""

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
"""Pixels (H, W, 3) RGB or (H, W) grey, 0..255, gamma-encoded as stored."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Supported formats, recognised by content and not by suffix. Pillow's forty others stay disabled (one of them starts
Ghostscript)."""

# TIFF tags
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_FILL_ORDER = 266
_PLANAR = 284
_SAMPLE_FORMAT = 339
# Values of _SAMPLE_FORMAT
_SIGNED = 2
_FLOAT = 3

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
"""The operation that turns a stored image upright, by orientation tag (EXIF 2.3, table 6)."""

# Pillow's plugins raise all of these for damaged headers and chunks.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip

# A file that cannot be used raises an error. Pillow's warnings (odd EXIF, a large image) do not help users.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(path: Path) -> Image:
    """The pixels of one image, upright: (H, W, 3) RGB, 0..255, at least one pixel.

    The content of a PNG, JPEG, BMP, TIFF or WebP file is converted by one of these rules, or refused:

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

    A damaged PNG is refused because of the checksums of the chunks that its pixels need. A truncated file is refused
    unless all pixels are there. The other formats have no checksums, so a flipped bit is refused only if the decoder
    notices it. Metadata has no influence: text and profiles may have any size, and an orientation that cannot be read
    leaves the pixels as stored.

    Raises:
        ImageError: the file is missing, empty, damaged, truncated, not an image, or refused by a rule.
    """
    with naming_faults(path):
        return _rgb(read_upright(path))


def read_upright(path: Path) -> PIL.Image.Image:
    """The upright 8-bit image as a Pillow image in mode 1, L, LA, P, PA, RGB or RGBA, with its alpha.

    All other rules are those of `read_image`. Call it under `naming_faults`. `info["icc_profile"]` holds the colour
    profile if there is one.
    """
    data = path.read_bytes()
    if not data:
        raise ImageError(f"{path}: the file is empty; replace it or remove it from the folder")
    return _decoded(data)


@contextmanager
def naming_faults(path: Path) -> Iterator[None]:
    """Turn every error in the block, in which an image is read, into an ImageError that names the image."""
    try:
        yield
    except _RefusedError as exc:
        raise ImageError(f"{path}: {exc}") from exc
    except FileNotFoundError as exc:
        raise ImageError(f"{path}: no such image; check the path") from exc
    except PermissionError as exc:
        raise ImageError(f"{path}: this user may not read it ({exc.strerror}); change its permissions") from exc
    except PIL.UnidentifiedImageError as exc:
        raise ImageError(
            f"{path}: cannot be decoded as an image: expected a PNG, JPEG, BMP, TIFF or WebP file, but it is of "
            "another or a rare kind, or damaged; replace it or remove it from the folder"
        ) from exc
    except PIL.Image.DecompressionBombError as exc:
        limit = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
        raise ImageError(
            f"{path}: expected at most {limit:,} pixels, but its header states more; cut it into several images"
        ) from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(
            f"{path}: cannot be decoded as an image ({exc or type(exc).__name__}); it is damaged, truncated or of "
            "another kind: replace it or remove it from the folder"
        ) from exc


def image_sides(path: Path) -> tuple[int, int]:
    """The shorter and the longer side of an image in pixels, from its header. The rest of the file may be damaged.

    Raises:
        ImageError: the header cannot be read, and `read_image` fails too.
    """
    try:
        width, height = stated_size(path)
    except (PIL.Image.DecompressionBombError, *_DECODER_ERRORS):
        height, width = read_image(path).shape[:2]
    return min(height, width), max(height, width)


def stated_size(path: Path) -> tuple[int, int]:
    """The stored width and height in pixels, from the header. Call it under `naming_faults`."""
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            return image.size
    except (*_DECODER_ERRORS, Warning):  # damaged metadata may precede the header
        data, _ = without_metadata(path.read_bytes())
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size


class _RefusedError(Exception):
    """An intact image of a kind that is not supported. The message follows the path of the file."""

    def __init__(self, reason: str, remedy: str = "convert it") -> None:
        super().__init__(f"{reason}; expected an RGB or grey image of 8 or 16 bits: {remedy} first")


def _decoded(file: bytes) -> PIL.Image.Image:
    data, metadata = without_metadata(file)
    with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
        deep = _is_deep(image)  # before load(), which loses the number of bits
        if image.format == "TIFF":
            _forget_subdirectories(image)
        image.load()
        image.info.update(metadata)
        is_upright = image.format == "TIFF"  # load() has turned it and removed its tag
        upright = None if is_upright else _UPRIGHT.get(_orientation(image.info))
        shallow = _rounded(image, data) if deep else image
        if deep and "icc_profile" in image.info:
            shallow.info["icc_profile"] = image.info["icc_profile"]
        return shallow if upright is None else shallow.transpose(upright)


def _orientation(info: Mapping[str | tuple[int, int], Any]) -> int:
    """The orientation from an image's EXIF, else from its XMP; 1 (as stored) if neither can be read."""
    xmp_only = {name: value for name, value in info.items() if name in ("xmp", "XML:com.adobe.xmp")}
    sources: list[dict[Any, Any]] = [dict(info), dict(xmp_only)]
    for metadata in sources:
        reader = PIL.Image.Image()
        reader.info = metadata
        try:
            return int(reader.getexif().get(_EXIF_ORIENTATION, 1))
        except (*_DECODER_ERRORS, Warning):
            continue
    return 1


def _forget_subdirectories(image: PIL.Image.Image) -> None:
    """Remove a TIFF's references to EXIF, GPS and similar, so that Pillow does not read them if they are damaged."""
    exif = image.getexif()
    for tag in PIL.TiffTags.TAGS_V2_GROUPS:
        if tag in exif:
            del exif[tag]


def _is_deep(image: PIL.ImageFile.ImageFile) -> bool:
    """True if the samples have 16 bits.

    Raises:
        _RefusedError: the samples are of a kind that is not supported.
    """
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _RefusedError("is animated or multi-page", "extract one image")
    tags = getattr(image, "tag_v2", {})
    formats = tags.get(_SAMPLE_FORMAT, ())
    if image.mode == "F" or _FLOAT in formats:
        raise _RefusedError("holds floating-point samples")
    if image.mode == "I" or _SIGNED in formats:
        raise _RefusedError("holds signed or 32-bit samples")

    # A layout is Pillow's name for the samples in the file, e.g. "RGB;16B". "BGR;16" in a BMP has 5-6-5 bits.
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
    if layouts & {"L;2", "L;4"} and "transparency" in image.info:  # Pillow would mix values before and after stretching
        raise _RefusedError("has a transparent shade among fewer than 8 bits of grey", "flatten it")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise _RefusedError(f"is a {image.mode} image")
    return False


def _layout(args: object) -> str:
    return str(args[0] if isinstance(args, tuple) else args)


def _rounded(image: PIL.ImageFile.ImageFile, data: bytes) -> PIL.Image.Image:
    """The 8-bit image that is nearest to a loaded 16-bit image."""
    samples = np.asarray(image).astype(np.uint32)
    if not image.mode.startswith(
        "I;16"
    ):  # Pillow read only the high bytes; in the other byte order it reads the low ones
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as swapped:
            swapped.tile = [tile._replace(args=_swapped(tile.args)) for tile in swapped.tile]
            samples = samples * 256 + np.asarray(swapped)
    if samples.max() < 16384:
        raise _RefusedError(
            f"has 16 bits per channel, but no sample above {samples.max()} of 65535, as if made from fewer bits",
            "stretch and convert it",
        )
    return PIL.Image.fromarray(((samples + 128) // 257).astype(np.uint8))


def _swapped(args: tuple[object, ...] | str | None) -> tuple[object, ...] | str:
    """The decoder arguments of a tile with the other byte order."""
    if isinstance(args, tuple):
        return (_swapped(str(args[0])), *args[1:])
    layout = str(args)
    native = {"little": "L", "big": "B"}[sys.byteorder]
    order = native if layout.endswith("N") else layout[-1]
    return layout[:-1] + {"L": "B", "B": "L"}[order]


def _rgb(image: PIL.Image.Image) -> Image:
    if image.has_transparency_data:  # an alpha channel, a transparent colour or a transparent palette entry
        image = image.convert("RGBA")
        least = np.asarray(image)[..., 3].min()
        if least < 255:
            raise _RefusedError(f"is transparent in places (alpha down to {least})", "flatten it onto a background")
    return np.array(image.convert("RGB"), dtype=np.uint8)


def png_bytes(image: Image) -> bytes:
    """The bytes of a lossless PNG file of (H, W, 3) RGB or (H, W) grey pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, format="PNG")
    return file.getvalue()


def webp_bytes(image: Image, quality: int | None = None) -> bytes:
    """The bytes of a WebP file of (H, W, 3) RGB pixels.

    Args:
        quality: 0..100; losses are hardly visible at 90. None: lossless.
    """
    file = io.BytesIO()
    lossless = quality is None
    # Method 2 with effort 0 gives files 5% larger than the smallest lossless ones, in a quarter of the time.
    PIL.Image.fromarray(image).save(file, "WEBP", lossless=lossless, method=2 if lossless else 4, quality=quality or 0)
    return file.getvalue()


def webp_preview(path: Path) -> bytes:
    """The bytes of a small lossy WebP file of an image, for pages with many images.

    Raises:
        ImageError: as by `read_image`.
    """
    return webp_bytes(read_image(path), 90)


def write_png(path: Path, image: Image) -> None:
    """Write (H, W, 3) RGB or (H, W) grey pixels as a lossless PNG file. An existing file is replaced.

    Raises:
        ImageError: the file cannot be written, for example because its folder is missing.
    """
    try:
        PIL.Image.fromarray(image).save(path, format="PNG")
    except OSError as exc:
        raise ImageError(f"{path}: cannot be written ({exc}); choose another folder or make room") from exc
