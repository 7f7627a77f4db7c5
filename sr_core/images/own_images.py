"""Users' own images for upscaling: the names of the outputs, and the properties that are kept in addition to colour.

The network processes the stored colours, as in the field's benchmarks. Other properties are treated as follows:

| property | treatment |
|---|---|
| alpha, a transparent colour or palette entry | becomes an alpha channel, upscaled by MATLAB's bicubic (`imresize`) |
| grey | one channel: the luma 0.299 R + 0.587 G + 0.114 B of the network's output for three equal channels |
| an orientation (EXIF, XMP) | the pixels are turned upright; this tag and all other metadata are removed |
| an ICC profile | kept if it fits the image (RGB or grey); samples are not converted |
| 16 bits per channel | rounded to 8 bits, as everywhere in this suite |
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
"""Weights of R, G and B for full-range luma (BT.601), as in Pillow. A grey sample keeps its value."""


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An upright image as read from its file."""

    rgb: Image
    """(H, W, 3); three equal channels if the file is grey."""
    alpha: Image | None
    """(H, W); None if the image is opaque."""
    is_grey: bool
    icc_profile: bytes | None


def read_own_image(path: Path) -> OwnImage:
    """One image with its alpha channel.

    Raises:
        ImageError: as by `read_image`, except for transparent images.
    """
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
    """The bytes of a PNG file of the upscaled image.

    Args:
        sr: (s*H, s*W, 3), the network's output for `image.rgb`, in 0..255. It is clipped and rounded in place,
            because it is the largest array in memory.
        scale: the factor s.
    """
    colours = sr @ _LUMA if image.is_grey else sr
    pixels = np.rint(np.clip(colours, 0, 255, out=colours), out=colours).astype(np.uint8)
    if image.alpha is not None:
        pixels = np.dstack([pixels, imresize(image.alpha, scale)])
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="PNG", icc_profile=image.icc_profile)
    return file.getvalue()


def count_pixels(path: Path) -> int:
    """The number of pixels of an image according to its header; 0 if the header cannot be read."""
    try:
        with naming_faults(path):
            width, height = stated_size(path)
            return width * height
    except ImageError:
        return 0


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """The images to upscale and their outputs."""

    sources: dict[Path, Path]
    """Input path by output path."""
    faults: list[str]
    """The problems with the inputs, one line each."""
    left_out: LeftOut
    """The entries of input folders that are not upscaled."""


def plan_outputs(inputs: Iterable[Path], out: Path, scale: int) -> OutputPlan:
    """The output path of each input image.

    `a.jpg` becomes `out/a_x2.png`. An image `DIR/b/a.jpg` of an input folder DIR becomes `out/b/a_x2.png`. Hidden
    images and images in `out` are left out of a folder, so that a second run does not upscale the outputs of the first.
    Two outputs whose names differ only in case are the same file on some disks, so they count as one here.
    """
    faults: list[str] = []
    planned: list[tuple[Path, Path]] = []
    left_out = LeftOut()
    for path in inputs:
        try:
            images, others = _images_of(path, out, faults)
        except ImageError as exc:
            faults.append(str(exc))
        else:
            planned += images
            left_out += others

    sources: dict[Path, Path] = {}
    first: dict[str, Path] = {}
    originals: dict[str, set[Path]] = {}
    for source, _ in planned:
        originals.setdefault(folded(str(resolved(source))), set()).add(resolved(source))
    for source, relative in planned:
        output = out / relative.with_name(f"{relative.stem}_x{scale}.png")
        before = first.setdefault(folded(str(output)), source)
        if resolved(before) != resolved(source):
            faults.append(
                f"{source}: {before} would also become {output.name} in {output.parent}, at least on disks that ignore "
                "case; rename one of the two"
            )
        elif _is_one_of(output, originals):
            faults.append(f"{source}: would become {output}, which is an input; choose another --out")
            sources.pop(output, None)
        else:
            sources[output] = source
    return OutputPlan(sources, faults, left_out)


def _is_one_of(output: Path, originals: Mapping[str, set[Path]]) -> bool:
    """True if the output is one of the original files, possibly under another name on this disk."""
    place = resolved(output)
    alike = originals.get(folded(str(place)), set())
    return place in alike or (output.exists() and any(output.samefile(original) for original in alike))


def _images_of(path: Path, out: Path, faults: list[str]) -> tuple[list[tuple[Path, Path]], LeftOut]:
    """The images of one input, each with its relative path, and the entries that are left out. Adds to `faults`."""
    if not is_folder(path):
        if not os.path.lexists(path):
            raise ImageError(f"{path}: no such image or folder; check the path")
        check_file(path)
        return [(path, Path(path.name))], LeftOut()
    if resolved(path) == resolved(out):
        raise ImageError(f"{path}: is also --out; choose another folder, or a subfolder of it, for the outputs")
    entries = scan(path)
    outputs = _below(path, out)

    def is_output(name: str) -> bool:
        return outputs is not None and Path(name).is_relative_to(outputs)

    unusable = {name: fault for name, fault in {**entries.unusable, **entries.closed}.items() if not is_output(name)}
    faults += [unusable[name] for name in sorted(unusable)]
    images = [Path(name) for name in entries.images if not is_output(name)]
    if not entries.images and not unusable:
        raise entries.nothing()
    left_out = LeftOut(tuple(entry for entry in entries.left_out.entries if not is_output(entry[1])))
    return [(path / name, name) for name in images], left_out.below(path)


def _below(folder: Path, out: Path) -> Path | None:
    """The path of the output folder relative to an input folder; None if it is not below it."""
    place = resolved(out)
    top = resolved(folder)
    return place.relative_to(top) if place.is_relative_to(top) else None
