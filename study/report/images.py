"""What it looks like: validation images by everybody, with a slider, a zoom, details and error maps."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sr_core.errors import SuiteError
from sr_core.images.files import Image, png_bytes, webp_bytes
from sr_core.process.names import utf8
from study.plots.figures import cause
from study.report.cache import Cache
from study.report.drawing import coloured, csv_text, data_uri
from study.report.markup import Html, element, joined, missing, paragraph, table
from study.report.material import WEIGHTS_NEEDED, network_of
from study.report.page import Section
from study.report.record import StudyRecord
from study.report.scenes import Box, Scene, errors, scenes

_TITLE = "Images"
_LARGEST = 5_500_000
"""Bytes of images in the page; scenes beyond that are left out."""


def images(record: StudyRecord, data: Path | None, cache: Cache, *, show: bool = True) -> Section:
    """Scores on whole images, and the scenes on which finalists and references differ most."""
    whole = _on_whole_images(record)
    best = record.best
    if best is None:
        return Section("pictures", _TITLE, joined([missing("Needs a finished trial of the search.")]))
    if not show:
        return Section("pictures", _TITLE, joined([whole, missing("Images were left out by --no-pictures.")]))
    if network_of(record, best) is None:
        return Section("pictures", _TITLE, joined([whole, missing(WEIGHTS_NEEDED)]))
    try:
        found = scenes(record, data, cache)
    except SuiteError as exc:
        return Section("pictures", _TITLE, joined([whole, missing(f"{str(exc)[:1].upper()}{str(exc)[1:]}.")]))
    winner, reference = f"trial {best.number}", record.best_reference
    names = [n for n in (reference.proposed.name if reference else "", winner) if n in found[0].networks]
    parts: list[object] = [whole, _words(record, names)]
    files: dict[str, bytes] = {}
    rows: list[tuple[object, ...]] = []
    faults: list[str] = []
    size = 0
    for number, scene in enumerate(found, start=1):
        maps, top, fault = _errors(scene, names)
        if fault and fault not in faults:
            faults.append(fault)
            parts.append(missing(fault))
        html = _scene(scene, number, names, maps, top)
        size += len(html) * 3 // 4
        if number > 1 and size > _LARGEST:
            break
        parts.append(html)
        files |= _files(scene, number, names, maps)
        rows += [(number, scene.name, title, psnr) for title, psnr in scene.psnr.items()]
    files["figures/scenes.csv"] = utf8(csv_text(("scene", "picture", "version", "psnr"), rows))
    return Section("pictures", _TITLE, joined(parts), files, faults)


def _words(record: StudyRecord, names: list[str]) -> Html:
    compared = "finalists and references" if len(names) > 1 else "the network and bicubic"
    return paragraph(
        f"Parts of validation images at x{record.base.data.scale}, LR by {record.base.evaluation.kernel}, in the "
        f"order in which {compared} differ most; PSNR is on Y of the part shown. Details are the squares in which they "
        "differ most."
    )


def _on_whole_images(record: StudyRecord) -> Html | None:
    if record.state.concluded is None:
        return None
    s = record.state.concluded.scores
    names = dict.fromkeys(key.partition("/")[0] for key in s)
    rows = [
        (name, *(f"{s[key]:.{digits}f}" if (key := f"{name}/{what}") in s else "" for what, digits in
                 (("psnr", 3), ("psnr_bicubic", 3), ("ssim", 4), ("ssim_bicubic", 4))))
        for name in names
    ]  # fmt: skip
    columns = ("set", "PSNR [dB]", "bicubic [dB]", "SSIM", "bicubic's SSIM")
    return table(columns, rows, caption=f"Trial {record.state.concluded.best} on whole images")


def _versions(scene: Scene, names: list[str]) -> dict[str, Image]:
    """The images of a scene by what they are, LR in its own size."""
    networks = {name: scene.networks[name] for name in names}
    return {"LR": scene.lr, "bicubic": scene.bicubic, **networks, "HR": scene.hr}


def _errors(scene: Scene, names: list[str]) -> tuple[dict[str, Image], float, str]:
    """Error maps of bicubic and the networks in one scale, the error [levels] of its bright end; or why there are none.

    Matplotlib has the colours.
    """
    every = errors(scene)
    found = {name: every[name] for name in ("bicubic", *names)}
    top = float(max(4.0, np.ceil(np.quantile(found["bicubic"], 0.99))))
    try:
        return {f"error of {name}": coloured(error / top) for name, error in found.items()}, top, ""
    except Exception as exc:  # whatever a library of figures raises: the rest of the page stands
        return {}, top, f"The error maps could not be drawn ({cause(exc)})."


def _scene(scene: Scene, number: int, names: list[str], maps: Mapping[str, Image], top: float) -> Html:
    versions = _versions(scene, names)
    height, width = scene.hr.shape[:2]
    whole = [_version(scene, title, webp_bytes(image)) for title, image in versions.items()]
    whole += [_version(scene, title, webp_bytes(image, 85)) for title, image in maps.items()]
    details = [_detail(scene, box, place, versions, maps) for place, box in enumerate(scene.details, start=1)]
    boxes = ";".join(f"{x},{y},{side}" for y, x, side in scene.details)
    scale = paragraph(
        f"Error maps: absolute error of Y from 0 (dark) to {top:.0f} levels of 255 and more (bright).", class_="hint"
    )
    return element(
        "article",
        element("h3", scene.name),
        element("div", *whole, class_="versions", style=f"--count:{len(whole)}"),
        *details,
        scale if maps else None,
        class_="scene",
        data_width=width,
        data_height=height,
        data_boxes=boxes,
        data_name=scene.name,
        id=f"scene-{number}",
        style=f"--ratio:{width / height:.4f}",
    )


def _version(scene: Scene, title: str, content: bytes) -> Html:
    psnr = scene.psnr.get(title)
    told = f"{title}, {psnr:.2f} dB" if psnr is not None else title
    image = element("img", src=data_uri(content), alt=f"{scene.name}: {told}", data_version=told)
    return element("figure", image, element("figcaption", told))


def _detail(scene: Scene, box: Box, place: int, versions: Mapping[str, Image], maps: Mapping[str, Image]) -> Html:
    y, x, side = box
    scale = scene.hr.shape[0] // scene.lr.shape[0]
    shown = []
    for title, version in {**versions, **maps}.items():
        step = scale if title == "LR" else 1
        cut = version[y // step : (y + side) // step, x // step : (x + side) // step]
        alt = f"{scene.name}, detail {place}: {title}"
        image = element("img", src=data_uri(webp_bytes(np.ascontiguousarray(cut))), alt=alt)
        shown.append(element("figure", image, element("figcaption", title)))
    head = element("h4", f"Detail {place}: {side} x {side} pixels at ({x}, {y})")
    return joined([head, element("div", *shown, class_="details", style=f"--count:{len(shown)}")])


def _files(scene: Scene, number: int, names: list[str], maps: Mapping[str, Image]) -> dict[str, bytes]:
    """Every version of the scene as an image file, pixel by pixel."""
    versions = _versions(scene, names)
    return {
        f"figures/scene-{number}-{re.sub(r'[^A-Za-z0-9]+', '-', title)[:100]}.png": png_bytes(image)
        for title, image in {**versions, **maps}.items()
    }
