"""Cuts parts out of validation images as LR, bicubic, references and finalists show them, and finds differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sr_core.images.color import BT601_STUDIO, rgb_to_y
from sr_core.images.files import Image
from sr_core.metrics.evaluate import bicubic_baseline, lr_hr_pair, score
from sr_core.model.inference import super_resolve
from sr_core.model.network import A2N
from sr_core.process.progress import ProgressBar
from sr_core.store.manifest import pixel_digest
from study import plots
from study.record.state import TrialState
from study.report.cache import Cache
from study.report.material import Network, network_of, validation_images
from study.report.record import StudyRecord
from study.search.replicates import finalists

SIDE = 384
"""Largest side of a scene in HR pixels. Larger scenes would make a page of more than 10 MB."""
DETAIL = 64
"""Side of a detail in HR pixels."""
DETAILS = 2
"""Number of details per scene."""
_MAX_SCENES = 4
_MAX_IMAGES_EXAMINED = 8
_CONTEXT = 32
"""LR pixels around a scene that the network also sees, so that the edges look as in the whole image."""

Box = tuple[int, int, int]
"""(y, x, side) in HR pixels of the part."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of a validation image in all versions."""

    name: str
    """Name of the image."""
    lr: Image
    bicubic: Image
    hr: Image
    networks: Mapping[str, Image]
    """SR by the network of each finalist and reference."""
    psnr: Mapping[str, float]
    """PSNR [dB] on this part, of bicubic and of each network."""
    details: Sequence[Box]
    """The squares in which networks differ most, largest difference first."""
    difference: float
    """Standard deviation between networks, averaged over pixels [levels of Y]."""


def scenes(record: StudyRecord, data: Path | None, cache: Cache) -> list[Scene]:
    """Return the parts of validation images in which finalists and references differ most, largest difference first.

    Raises:
        SuiteError: the images are missing or have changed.
        CheckpointError: a file does not hold the recorded weights.
    """
    named = {name if t.is_reference else f"trial {t.number}": network_of(record, t) for name, t in _compared(record)}
    networks = {name: network for name, network in named.items() if network is not None}
    images = validation_images(record, data, at_most=_MAX_IMAGES_EXAMINED)
    models: dict[str, A2N] = {}
    candidates = []
    with ProgressBar("comparing networks on validation images", text="{:.0f} images".format) as progress:
        for done, (name, image) in enumerate(images):
            progress.at(done, len(images))
            candidates.append(_scene(record, name, image, networks, models, cache))
    return sorted(candidates, key=lambda scene: -scene.difference)[:_MAX_SCENES]


def _compared(record: StudyRecord) -> list[tuple[str, TrialState]]:
    """Return the trials to compare by name: finalists, references and the winner."""
    best = record.best
    named = dict(finalists(record.state))
    if best is not None and best.number not in {t.number for t in named.values()}:
        named[f"trial {best.number}"] = best
    return list(named.items())


def _scene(
    record: StudyRecord,
    name: str,
    image: Image,
    networks: Mapping[str, Network],
    models: dict[str, A2N],
    cache: Cache,
) -> Scene:
    """Return the part of an image with the most detail in all versions; SR comes from the cache if possible."""
    scale = record.base.data.scale
    ruler = record.base.evaluation
    lr, hr = lr_hr_pair(image, scale, ruler.kernel, ruler.protocol)
    y, x, height, width = _part(hr, SIDE // scale, scale)
    top = max(0, y - _CONTEXT)
    left = max(0, x - _CONTEXT)
    with_context = lr[top : y + height + _CONTEXT, left : x + width + _CONTEXT]

    def cut(sr: Image) -> Image:
        rows = slice((y - top) * scale, (y - top + height) * scale)
        columns = slice((x - left) * scale, (x - left + width) * scale)
        return sr[rows, columns].copy()

    def enlarge(network: Network) -> Image:
        if network.digest not in models:
            models[network.digest] = network.load()
        raw = super_resolve(models[network.digest], with_context)
        return cut(np.clip(np.rint(raw), 0, 255).astype(np.uint8))

    key = ["scene", 1, pixel_digest(image), y, x, height, width, scale, ruler.kernel, ruler.protocol]
    enlarged: dict[str, Image] = {}
    for title, network in networks.items():
        enlarged[title] = cache.image("scene", [*key, network.digest], partial(enlarge, network))
    bicubic = cut(bicubic_baseline(with_context, scale))
    part = hr[y * scale : (y + height) * scale, x * scale : (x + width) * scale]

    compared = list(enlarged.values())
    if len(compared) < 2:
        compared.append(bicubic)
    variance = detail_differences(compared)
    psnr = {
        title: score(sr.astype(np.float64), part, scale=scale, protocol=ruler.protocol).psnr
        for title, sr in {"bicubic": bicubic, **enlarged}.items()
    }
    return Scene(
        name=name,
        lr=lr[y : y + height, x : x + width],
        bicubic=bicubic,
        hr=part,
        networks=enlarged,
        psnr=psnr,
        details=plots.strongest(variance, DETAIL, DETAILS),
        difference=float(np.sqrt(variance).mean()),
    )


def _part(hr: Image, side: int, scale: int) -> tuple[int, int, int, int]:
    """Return (y, x, height, width) in LR pixels of the part with the most detail."""
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if height <= side and width <= side:
        return 0, 0, height, width
    luma = rgb_to_y(hr, BT601_STUDIO)
    steps = np.zeros(luma.shape)
    steps[1:] += np.abs(np.diff(luma, axis=0))
    steps[:, 1:] += np.abs(np.diff(luma, axis=1))
    per_lr = steps[: height * scale, : width * scale].reshape(height, scale, width, scale).sum(axis=(1, 3))
    # If the image is narrower than the part, the part is as narrow, and only its place along the other side varies.
    part_height, part_width = min(side, height), min(side, width)
    sums = np.pad(per_lr.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = (
        sums[part_height:, part_width:] - sums[:-part_height, part_width:] - sums[part_height:, :-part_width]
        + sums[:-part_height, :-part_width]
    )  # fmt: skip
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(y), int(x), part_height, part_width


def detail_differences(images: Sequence[Image]) -> NDArray[np.float64]:
    """Return the variance of luma between versions of one scene at each pixel, (H, W)."""
    return np.asarray(np.var([rgb_to_y(image, BT601_STUDIO) for image in images], axis=0), dtype=np.float64)


def errors(scene: Scene) -> dict[str, NDArray[np.float64]]:
    """Return the absolute error of luma [levels] of bicubic and of each network, (H, W) each."""
    hr = rgb_to_y(scene.hr, BT601_STUDIO)
    return {
        title: np.abs(rgb_to_y(image, BT601_STUDIO) - hr)
        for title, image in {"bicubic": scene.bicubic, **scene.networks}.items()
    }
