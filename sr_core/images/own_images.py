"""Users' own images, to be enlarged: which file becomes which, and what is kept beside the colours.

The colours as stored go through the network, as the field's benchmarks do it. Beside them are kept

| what | how |
|---|---|
| alpha, a transparent colour or palette entry | as an alpha channel, enlarged by MATLAB's bicubic (`imresize`) |
| grey | one channel, the luma 0.299 R + 0.587 G + 0.114 B of what the network makes of three equal ones |
| an orientation (EXIF, XMP) | in the pixels, which are upright; the tag is gone, and with it all other metadata |
| an ICC profile | unchanged, if it is one for RGB or grey as the image is; samples are not converted |
| 16 bits per channel | rounded to 8, as everywhere here |
"""

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sr_core.errors import ImageError
from sr_core.images.files import Image, naming_faults, read_upright, stated_size
from sr_core.images.resize import imresize
from sr_core.images.scan import LeftOut, check_file, is_folder, resolved, scan
from sr_core.process.names import folded

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of R, G, B, full range (BT.601), as Pillow's grey; a colourless sample keeps its value."""


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image as read, upright."""

    rgb: Image
    """(H, W, 3); three equal channels where the file is grey."""
    alpha: Image | None
    """(H, W)."""
    is_grey: bool
    icc_profile: bytes | None


def read_own_image(path: Path) -> OwnImage:
    """One image with its alpha; raises ImageError as `read_image` does, but not for what is transparent."""
    check_file(path)
    with naming_faults(path):
        image = read_upright(path)
        is_grey = image.mode in ("1", "L", "LA")
        profile = image.info.get("icc_profile")
        if profile is not None and profile[16:20] != (b"GRAY" if is_grey else b"RGB "):  # ICC.1, 7.2.6
            profile = None
        if not image.has_transparency_data:
            return OwnImage(np.array(image.convert("RGB")), None, is_grey, profile)
        rgba = np.asarray(image.convert("RGBA"))
        return OwnImage(rgba[..., :3].copy(), rgba[..., 3].copy(), is_grey, profile)


def enlarged_png(image: OwnImage, sr: NDArray[np.float32], scale: int) -> bytes:
    """A PNG file of the enlarged image.

    Args:
        sr: (s*H, s*W, 3), what the network made of `image.rgb`, in 0..255; clipped and rounded here, in place:
            as float it is the largest thing in memory by now.
        scale: by how much.
    """
    colours = sr @ _LUMA if image.is_grey else sr
    pixels = np.rint(np.clip(colours, 0, 255, out=colours), out=colours).astype(np.uint8)
    if image.alpha is not None:
        pixels = np.dstack([pixels, imresize(image.alpha, scale)])
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="PNG", icc_profile=image.icc_profile)
    return file.getvalue()


def count_pixels(path: Path) -> int:
    """Pixels of an image by its header; 0 where that cannot be read."""
    try:
        with naming_faults(path):
            width, height = stated_size(path)
            return width * height
    except ImageError:
        return 0


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """What is to be enlarged."""

    sources: dict[Path, Path]
    """Source by output."""
    faults: list[str]
    """What is wrong with inputs, a line each."""
    left_out: LeftOut
    """What the folders among the inputs hold and is not enlarged."""


def plan_outputs(inputs: Iterable[Path], out: Path, scale: int) -> OutputPlan:
    """Which file each image becomes.

    `a.jpg` becomes `out/a_x2.png`; an image `DIR/b/a.jpg` of a folder DIR that was given, `out/b/a_x2.png`. Hidden
    images and those below `out` are left out of a folder, so that a second run does not enlarge the first one's.
    Outputs of which the names differ in upper and lower case alone are one file on some disks, so they are one here.
    """
    faults: list[str] = []
    found: list[tuple[Path, Path]] = []
    left_out = LeftOut()
    for given in inputs:
        try:
            images, others = _found(given, out, faults)
        except ImageError as exc:
            faults.append(str(exc))
        else:
            found += images
            left_out += others
    sources: dict[Path, Path] = {}
    first: dict[str, Path] = {}
    originals: dict[str, set[Path]] = {}
    for source, _ in found:
        originals.setdefault(folded(str(resolved(source))), set()).add(resolved(source))
    for source, relative in found:
        output = out / relative.with_name(f"{relative.stem}_x{scale}.png")
        before = first.setdefault(folded(str(output)), source)
        if resolved(before) != resolved(source):
            faults.append(
                f"{source}: {before} becomes {output.name} in {output.parent} too, at least on disks that do not tell "
                "upper from lower case; rename one of the two"
            )
        elif _is_one_of(output, originals):
            faults.append(f"{source}: would become {output}, which is an input; choose another --out")
            sources.pop(output, None)
        else:
            sources[output] = source
    return OutputPlan(sources, faults, left_out)


def _is_one_of(output: Path, originals: Mapping[str, set[Path]]) -> bool:
    """Whether a file is one of these, perhaps by another of its names on this disk."""
    place = resolved(output)
    alike = originals.get(folded(str(place)), set())
    return place in alike or (output.exists() and any(output.samefile(original) for original in alike))


def _found(given: Path, out: Path, faults: list[str]) -> tuple[list[tuple[Path, Path]], LeftOut]:
    """Images, their paths below the output folder but for the name, and what is left out; faults are added."""
    if not is_folder(given):
        if not os.path.lexists(given):
            raise ImageError(f"{given}: no such image or folder; check the path")
        check_file(given)
        return [(given, Path(given.name))], LeftOut()
    if resolved(given) == resolved(out):
        raise ImageError(f"{given}: is --out as well; choose another folder, or one below it, for the enlarged images")
    found = scan(given)
    outputs = _below(given, out)

    def is_output(name: str) -> bool:
        return outputs is not None and Path(name).is_relative_to(outputs)

    unusable = {name: fault for name, fault in {**found.unusable, **found.closed}.items() if not is_output(name)}
    faults += [unusable[name] for name in sorted(unusable)]
    images = [Path(name) for name in found.images if not is_output(name)]
    if not found.images and not unusable:
        raise found.nothing()
    left_out = LeftOut(tuple(entry for entry in found.left_out.entries if not is_output(entry[1])))
    return [(given / name, name) for name in images], left_out.below(given)


def _below(folder: Path, out: Path) -> Path | None:
    """The output folder's path below a folder of inputs, if it is there."""
    place, top = resolved(out), resolved(folder)
    return place.relative_to(top) if place.is_relative_to(top) else None
