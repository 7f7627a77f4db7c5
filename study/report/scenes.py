"""Parts of validation images as everybody makes them: LR, bicubic, references, finalists; and where these differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""Of the part of an image that is shown, in HR pixels: larger ones would make a page of more than 10 MB."""
DETAIL = 64
"""Side of a detail in HR pixels."""
DETAILS = 2
_SHOWN = 4
_LOOKED_AT = 8
_CONTEXT = 32
"""LR pixels around that part which the network sees too, so that its edges look as in the whole image."""

Box = tuple[int, int, int]
"""(y, x, side) in HR pixels of the part."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One part of a validation image."""

    name: str
    """Of the image."""
    lr: Image
    bicubic: Image
    hr: Image
    networks: Mapping[str, Image]
    """What each finalist's and reference's network makes of it."""
    psnr: Mapping[str, float]
    """dB on this part, of bicubic and of each network."""
    details: Sequence[Box]
    """Where networks differ most, the strongest first."""
    difference: float
    """Mean over pixels of the standard deviation between networks [levels of Y]."""


def scenes(record: StudyRecord, data: Path | None, cache: Cache) -> list[Scene]:
    """Those parts of the validation images on which finalists and references differ most, the strongest first.

    Raises:
        SuiteError: the images are not to be had, or a file does not hold the weights of its trial.
    """
    named = {name if t.is_reference else f"trial {t.number}": network_of(record, t) for name, t in _compared(record)}
    networks = {name: network for name, network in named.items() if network is not None}
    images = validation_images(record, data, at_most=_LOOKED_AT)
    models: dict[str, A2N] = {}
    found = []
    with ProgressBar("looking at validation images", text="{:.0f} images".format) as progress:
        for done, (name, image) in enumerate(images):
            progress.at(done, len(images))
            found.append(_scene(record, name, image, networks, models, cache))
    return sorted(found, key=lambda scene: -scene.difference)[:_SHOWN]


def _compared(record: StudyRecord) -> list[tuple[str, TrialState]]:
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
    scale, ruler = record.base.data.scale, record.base.evaluation
    lr, hr = lr_hr_pair(image, scale, ruler.kernel, ruler.protocol)
    y, x, height, width = _part(hr, SIDE // scale, scale)
    top, left = max(0, y - _CONTEXT), max(0, x - _CONTEXT)
    seen = lr[top : y + height + _CONTEXT, left : x + width + _CONTEXT]

    def cut(enlarged: Image) -> Image:
        rows = slice((y - top) * scale, (y - top + height) * scale)
        return enlarged[rows, (x - left) * scale : (x - left + width) * scale].copy()

    def through(network: Network) -> Image:
        if network.digest not in models:
            models[network.digest] = network.load()
        raw = super_resolve(models[network.digest], seen)
        return cut(np.clip(np.rint(raw), 0, 255).astype(np.uint8))

    where = ["scene", 1, pixel_digest(image), y, x, height, width, scale, ruler.kernel, ruler.protocol]
    made = {title: cache.image("scene", [*where, n.digest], lambda n=n: through(n)) for title, n in networks.items()}  # type: ignore[misc]
    bicubic = cut(bicubic_baseline(seen, scale))
    part = hr[y * scale : (y + height) * scale, x * scale : (x + width) * scale]
    strength = detail_differences(list(made.values()) if len(made) > 1 else [*made.values(), bicubic])
    psnr = {
        title: score(enlarged.astype(np.float64), part, scale=scale, protocol=ruler.protocol).psnr
        for title, enlarged in {"bicubic": bicubic, **made}.items()
    }
    return Scene(
        name=name,
        lr=lr[y : y + height, x : x + width],
        bicubic=bicubic,
        hr=part,
        networks=made,
        psnr=psnr,
        details=plots.strongest(strength, DETAIL, DETAILS),
        difference=float(np.sqrt(strength).mean()),
    )


def _part(hr: Image, side: int, scale: int) -> tuple[int, int, int, int]:
    """(y, x, height, width) in LR pixels of the part with the most detail."""
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if height <= side and width <= side:
        return 0, 0, height, width
    luma = rgb_to_y(hr, BT601_STUDIO)
    steps = np.zeros(luma.shape)
    steps[1:] += np.abs(np.diff(luma, axis=0))
    steps[:, 1:] += np.abs(np.diff(luma, axis=1))
    per_lr = steps[: height * scale, : width * scale].reshape(height, scale, width, scale).sum(axis=(1, 3))
    # An image may be narrower than the part: then the part is as narrow, and its place is sought along the other side.
    part_height, part_width = min(side, height), min(side, width)
    sums = np.pad(per_lr.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = (
        sums[part_height:, part_width:] - sums[:-part_height, part_width:] - sums[part_height:, :-part_width]
        + sums[:-part_height, :-part_width]
    )  # fmt: skip
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(y), int(x), part_height, part_width


def detail_differences(images: Sequence[Image]) -> NDArray[np.float64]:
    """(H, W): how far images of one scene lie apart at each pixel, as the variance of their luma."""
    return np.asarray(np.var([rgb_to_y(image, BT601_STUDIO) for image in images], axis=0), dtype=np.float64)


def errors(scene: Scene) -> dict[str, NDArray[np.float64]]:
    """(H, W): the absolute error of luma [levels] of bicubic and of each network."""
    hr = rgb_to_y(scene.hr, BT601_STUDIO)
    return {
        title: np.abs(rgb_to_y(image, BT601_STUDIO) - hr)
        for title, image in {"bicubic": scene.bicubic, **scene.networks}.items()
    }
