"""Users' own pictures, to be enlarged: which file becomes which, and what is kept beside the colours.

The colours as stored go through the network, as the field's benchmarks do it. Beside them are kept

| what | how |
|---|---|
| alpha, a transparent colour or palette entry | as an alpha channel, enlarged by MATLAB's bicubic (`imresize`) |
| grey | one channel, the luma 0.299 R + 0.587 G + 0.114 B of what the network makes of three equal ones |
| an orientation (EXIF, XMP) | in the pixels, which are upright; the tag is gone, and with it all other metadata |
| an ICC profile | unchanged, if it is one for RGB or grey as the picture is; samples are not converted |
| 16 bits per channel | rounded to 8, as everywhere here |
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sr_core.data.images import Image, list_images, naming_faults, read_upright, stated_size
from sr_core.data.resize import imresize
from sr_core.errors import ImageError

_NOT_READ = frozenset({".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd"})
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of R, G, B, full range (BT.601), as Pillow's grey; a colourless sample keeps its value."""


@dataclass(frozen=True, slots=True)
class OwnPicture:
    """A picture as read, upright."""

    rgb: Image
    """(H, W, 3); three equal channels where the file is grey."""
    alpha: Image | None
    """(H, W)."""
    is_grey: bool
    icc_profile: bytes | None


def read_own_picture(path: Path) -> OwnPicture:
    """One picture with its alpha; raises ImageError as `read_image` does, but not for what is transparent."""
    with naming_faults(path):
        picture = read_upright(path)
        is_grey = picture.mode in ("1", "L", "LA")
        profile = picture.info.get("icc_profile")
        if profile is not None and profile[16:20] != (b"GRAY" if is_grey else b"RGB "):  # ICC.1, 7.2.6
            profile = None
        if not picture.has_transparency_data:
            return OwnPicture(np.array(picture.convert("RGB")), None, is_grey, profile)
        rgba = np.asarray(picture.convert("RGBA"))
        return OwnPicture(rgba[..., :3].copy(), rgba[..., 3].copy(), is_grey, profile)


def enlarged_png(picture: OwnPicture, sr: NDArray[np.float32], scale: int) -> bytes:
    """A PNG file of the enlarged picture.

    Args:
        sr: (s*H, s*W, 3), what the network made of `picture.rgb`, in 0..255; clipped and rounded here, in place:
            as float it is the largest thing in memory by now.
        scale: by how much.
    """
    colours = sr @ _LUMA if picture.is_grey else sr
    pixels = np.rint(np.clip(colours, 0, 255, out=colours), out=colours).astype(np.uint8)
    if picture.alpha is not None:
        pixels = np.dstack([pixels, imresize(picture.alpha, scale)])
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="PNG", icc_profile=picture.icc_profile)
    return file.getvalue()


def count_pixels(path: Path) -> int:
    """Pixels of a picture by its header; 0 where that cannot be read."""
    try:
        with naming_faults(path):
            width, height = stated_size(path)
            return width * height
    except ImageError:
        return 0


def plan_outputs(inputs: Iterable[Path], out: Path, scale: int) -> tuple[dict[Path, Path], list[str]]:
    """Which file each picture becomes, source by output, and what is wrong with inputs, a line each.

    `a.jpg` becomes `out/a_x2.png`; a picture `DIR/b/a.jpg` of a folder DIR that was given, `out/b/a_x2.png`. Hidden
    pictures and those below `out` are left out of a folder, so that a second run does not enlarge the first one's.
    """
    sources: dict[Path, Path] = {}
    faults: list[str] = []
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        try:
            found += _found(given, out)
        except ImageError as exc:
            faults.append(str(exc))
    originals = {source.resolve() for source, _ in found}
    for source, relative in found:
        output = out / relative.with_name(f"{relative.stem}_x{scale}.png")
        first = sources.setdefault(output, source)
        if first.resolve() != source.resolve():
            faults.append(f"{source}: {first} becomes {output} too; rename one, or give each its own --out")
        elif output.resolve() in originals:
            faults.append(f"{source}: would become {output}, which is an input; choose another --out")
            del sources[output]
    return sources, faults


def left_out(inputs: Iterable[Path]) -> list[Path]:
    """Files of formats that are not read, such as GIF, in the folders among the inputs: known by their suffix."""
    below = (path for given in inputs if given.is_dir() for path in given.rglob("*"))
    return sorted(path for path in below if path.suffix.lower() in _NOT_READ and path.is_file())


def _found(given: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pictures, and their paths below the output folder but for the name."""
    if not given.is_dir():
        if not given.exists():
            raise ImageError(f"{given}: no such picture or folder; check the path")
        return [(given, Path(given.name))]
    if given.resolve() == out.resolve():
        raise ImageError(
            f"{given}: is --out as well; choose another folder, or one below it, for the enlarged pictures"
        )
    return [(p, p.relative_to(given)) for p in list_images(given) if out.resolve() not in p.resolve().parents]
