"""Shows validation images as each network enlarges them, with a divider, a zoom, details and error maps."""

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
_MAX_PAGE_BYTES = 5_500_000
"""Scenes that would bring the images in the page above this size are omitted, except the first."""


def images(record: StudyRecord, data: Path | None, cache: Cache, *, show: bool = True) -> Section:
    """Return the section with scores on whole images, and the scenes in which finalists and references differ most.

    Args:
        data: where the study's images are now, if they were moved.
        show: False omits every image.
    """
    whole = _on_whole_images(record)
    best = record.best
    if best is None:
        return Section("pictures", _TITLE, joined([missing("Needs a finished trial of the search.")]))
    if not show:
        return Section("pictures", _TITLE, joined([whole, missing("The images were left out by --no-pictures.")]))
    if network_of(record, best) is None:
        return Section("pictures", _TITLE, joined([whole, missing(WEIGHTS_NEEDED)]))
    try:
        chosen_scenes = scenes(record, data, cache)
    except SuiteError as exc:
        return Section("pictures", _TITLE, joined([whole, missing(f"{str(exc)[:1].upper()}{str(exc)[1:]}.")]))

    reference = record.best_reference
    candidates = (reference.proposed.name if reference else "", f"trial {best.number}")
    names = [name for name in candidates if name in chosen_scenes[0].networks]
    parts: list[object] = [whole, _words(record, names)]
    files: dict[str, bytes] = {}
    rows: list[tuple[object, ...]] = []
    faults: list[str] = []
    size = 0
    for number, scene in enumerate(chosen_scenes, start=1):
        maps, top, fault = _errors(scene, names)
        if fault and fault not in faults:
            faults.append(fault)
            parts.append(missing(fault))
        html = _scene(scene, number, names, maps, top)
        size += len(html) * 3 // 4  # base64 takes 4 characters for 3 bytes
        if number > 1 and size > _MAX_PAGE_BYTES:
            break
        parts.append(html)
        files |= _files(scene, number, names, maps)
        rows += [(number, scene.name, title, psnr) for title, psnr in scene.psnr.items()]
    files["figures/scenes.csv"] = utf8(csv_text(("scene", "picture", "version", "psnr"), rows))
    return Section("pictures", _TITLE, joined(parts), files, faults)


def _words(record: StudyRecord, names: list[str]) -> Html:
    compared = "finalists and references" if len(names) > 1 else "the network and bicubic"
    return paragraph(
        f"Parts of validation images at x{record.base.data.scale}, with LR by {record.base.evaluation.kernel}. They "
        f"are sorted by how much {compared} differ, largest difference first. PSNR is on the Y channel of the part "
        "shown. Details are the squares with the largest differences."
    )


def _on_whole_images(record: StudyRecord) -> Html | None:
    """Return the table of the winner's scores on whole images; None before the study is concluded."""
    if record.state.concluded is None:
        return None

    scores = record.state.concluded.scores
    rows = []
    for name in dict.fromkeys(key.partition("/")[0] for key in scores):
        row = [name]
        for what, digits in (("psnr", 3), ("psnr_bicubic", 3), ("ssim", 4), ("ssim_bicubic", 4)):
            score = scores.get(f"{name}/{what}")
            row.append("" if score is None else f"{score:.{digits}f}")
        rows.append(row)
    columns = ("set", "PSNR [dB]", "PSNR of bicubic [dB]", "SSIM", "SSIM of bicubic")
    return table(columns, rows, caption=f"Trial {record.state.concluded.best} on whole images")


def _versions(scene: Scene, names: list[str]) -> dict[str, Image]:
    """Return the versions of a scene by title, LR in its own size."""
    networks = {name: scene.networks[name] for name in names}
    return {"LR": scene.lr, "bicubic": scene.bicubic, **networks, "HR": scene.hr}


def _errors(scene: Scene, names: list[str]) -> tuple[dict[str, Image], float, str]:
    """Return error maps of bicubic and the networks on one scale, the error at its bright end, and a fault if any.

    The error is in grey levels of 255. The fault is a sentence that says why Matplotlib could not colour the maps.
    """
    all_errors = errors(scene)
    selected = {name: all_errors[name] for name in ("bicubic", *names)}
    top = float(max(4.0, np.ceil(np.quantile(selected["bicubic"], 0.99))))
    try:
        return {f"error of {name}": coloured(error / top) for name, error in selected.items()}, top, ""
    except Exception as exc:  # any error of the plotting library: the rest of the page is still written
        return {}, top, f"The error maps could not be drawn ({cause(exc)})."


def _scene(scene: Scene, number: int, names: list[str], maps: Mapping[str, Image], top: float) -> Html:
    versions = _versions(scene, names)
    height, width = scene.hr.shape[:2]
    whole = [_version(scene, title, webp_bytes(image)) for title, image in versions.items()]
    whole += [_version(scene, title, webp_bytes(image, 85)) for title, image in maps.items()]
    details = [_detail(scene, box, place, versions, maps) for place, box in enumerate(scene.details, start=1)]
    boxes = ";".join(f"{x},{y},{side}" for y, x, side in scene.details)
    scale = paragraph(
        f"Error maps show the absolute error of Y, from 0 (dark) to {top:.0f} or more of 255 levels (bright).",
        class_="hint",
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
    label = f"{title}, {psnr:.2f} dB" if psnr is not None else title
    image = element("img", src=data_uri(content), alt=f"{scene.name}: {label}", data_version=label)
    return element("figure", image, element("figcaption", label))


def _detail(scene: Scene, box: Box, place: int, versions: Mapping[str, Image], maps: Mapping[str, Image]) -> Html:
    y, x, side = box
    scale = scene.hr.shape[0] // scene.lr.shape[0]
    figures = []
    for title, version in {**versions, **maps}.items():
        step = scale if title == "LR" else 1
        cut = version[y // step : (y + side) // step, x // step : (x + side) // step]
        alt = f"{scene.name}, detail {place}: {title}"
        image = element("img", src=data_uri(webp_bytes(np.ascontiguousarray(cut))), alt=alt)
        figures.append(element("figure", image, element("figcaption", title)))
    head = element("h4", f"Detail {place}: {side} x {side} pixels at ({x}, {y})")
    return joined([head, element("div", *figures, class_="details", style=f"--count:{len(figures)}")])


def _files(scene: Scene, number: int, names: list[str], maps: Mapping[str, Image]) -> dict[str, bytes]:
    """Return every version of a scene as a lossless image file."""
    versions = _versions(scene, names)
    return {
        f"figures/scene-{number}-{re.sub(r'[^A-Za-z0-9]+', '-', title)[:100]}.png": png_bytes(image)
        for title, image in {**versions, **maps}.items()
    }
