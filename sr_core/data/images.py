"""Files to pixels and back: what is read is 8-bit RGB or refused with a reason."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFile
from numpy.typing import NDArray
from PIL.Image import Transpose

from sr_core.errors import ImageError

Image = NDArray[np.uint8]
"""(H, W, 3) RGB or (H, W) grey, 0..255, gamma-encoded as stored."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

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
"""Orientation tag -> what turns the stored picture upright (EXIF 2.3, table 6)."""

# The file's own layout, e.g. "RGB;16B": Pillow would drop the low bytes unasked. (A BMP's "BGR;16" is 5-6-5 bits.)
_RAW_16_BIT = re.compile(r";16[BLN]")

# Pillow's plugins raise all of these, not only OSError, on damaged headers and chunks.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip


def read_image(path: Path) -> Image:
    """Pixels of one picture, upright: (H, W, 3) RGB, 0..255, at least one pixel.

    Grey and 1-bit pictures become three equal channels, a palette its colours; an alpha channel that is opaque
    everywhere is dropped. A colour profile is not applied. Of the several pictures in a camera's MPO file it is
    the first.

    Raises:
        ImageError: the file is missing, empty, truncated or no picture; or it is one whose pixels 8-bit RGB cannot
            hold as they are: 16-bit or float, CMYK or another colour space, transparent, animated or multi-page.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty; replace it or take it out of the folder")
        with PIL.Image.open(path) as picture:
            reason = _refusal(picture)  # before load(), which forgets how many bits the file has
            if reason is None:
                picture.load()
                # TIFF is already upright after load(), and has lost its tag
                upright = _UPRIGHT.get(picture.getexif().get(_EXIF_ORIENTATION, 1))
                return _rgb(picture if upright is None else picture.transpose(upright), path)
    except FileNotFoundError as exc:
        raise ImageError(f"{path}: no such picture; check the path") from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(
            f"{path}: cannot be decoded as a picture ({exc}); it is damaged, truncated or of another kind: "
            "replace it or take it out of the folder"
        ) from exc
    raise ImageError(f"{path}: {reason}; expected an opaque 8-bit RGB or grey picture: convert it first")


def _refusal(picture: PIL.ImageFile.ImageFile) -> str | None:
    if picture.mode.startswith("I") or any(_RAW_16_BIT.search(str(tile.args)) for tile in picture.tile):
        return "has more than 8 bits per channel"
    if picture.mode == "F":
        return "holds floating-point pixels"
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        return "is animated or multi-page"
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return f"is a {picture.mode} picture"
    return None


def _rgb(picture: PIL.Image.Image, path: Path) -> Image:
    if picture.has_transparency_data:  # an alpha channel, or a transparent colour or palette entry
        rgba = picture.convert("RGBA")
        least = np.asarray(rgba)[..., 3].min()
        if least < 255:
            raise ImageError(
                f"{path}: is transparent in places (alpha down to {least}); expected an opaque picture: "
                "flatten it onto a background first"
            )
        picture = rgba
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def list_images(folder: Path) -> list[Path]:
    """Every picture file at any depth below a folder, sorted by its relative path with forward slashes.

    A picture is known by its suffix (`SUFFIXES`, any case). Hidden files and whatever is in hidden folders are left
    out; folders that are symbolic links are not entered.

    Raises:
        ImageError: the folder is missing or is a file, or no picture lies below it.
    """
    if not folder.exists():
        raise ImageError(f"{folder}: no such folder; check the path")
    if not folder.is_dir():
        raise ImageError(f"{folder}: expected a folder of pictures, this is a file")
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not _is_hidden(path.relative_to(folder))
    }
    if not found:
        raise ImageError(f"{folder}: no picture below this folder; expected {', '.join(sorted(SUFFIXES))} files")
    return [found[name] for name in sorted(found)]


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def write_png(path: Path, image: Image) -> None:
    """Writes (H, W, 3) RGB or (H, W) grey pixels, lossless; the folder must exist, an old file is replaced.

    Raises:
        ImageError: the file cannot be written.
    """
    try:
        PIL.Image.fromarray(image).save(path, format="PNG")
    except OSError as exc:
        raise ImageError(f"{path}: cannot be written ({exc}); choose another folder or make room") from exc
