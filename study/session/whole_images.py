"""Scores of the winner on whole images, cached so that repeated conclusions do not compute an image twice."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sr_core.config import EvaluationConfig
from sr_core.errors import ImageError
from sr_core.images.files import Image, read_image
from sr_core.metrics.evaluate import Score, bicubic_baseline, capped, lr_hr_pair, mean_score, require_finite, score
from sr_core.model.inference import super_resolve
from sr_core.model.network import A2N
from sr_core.process.durable import write_durably
from sr_core.process.names import visible
from sr_core.store.manifest import pixel_digest
from sr_core.store.sources import ImageSet, SourceImage
from study.question.config import short_digest

ScoreRow = tuple[str, str, float, float]
"""One image's scores: set, image, PSNR [dB], SSIM."""


@dataclass(frozen=True, slots=True)
class UpscaledImage:
    """One image as the winner upscales it, with what it is compared with; images are (H, W, 3), uint8."""

    lr: Image
    bicubic: Image
    sr: Image
    hr: Image
    of_bicubic: Score
    of_sr: Score


def upscale_and_score(
    model: A2N, image: Image, evaluation: EvaluationConfig, *, name: object, progress: Callable[[float], None]
) -> UpscaledImage:
    """The image downscaled and then upscaled by the network and by bicubic interpolation, with scores of both.

    A PSNR is capped at 100 dB.

    Args:
        image: HR image, (H, W, 3), uint8 RGB.
        evaluation: downscaling kernel and scoring protocol.
        name: name of the image in error messages.
        progress: called with the fraction of the image that is done.
    Raises:
        ImageError: the network's output is not finite.
    """
    scale = model.scale
    lr, hr = lr_hr_pair(image, scale, evaluation.kernel, evaluation.protocol)
    raw = super_resolve(model, lr, progress=progress)
    require_finite(raw, name)
    bicubic = bicubic_baseline(lr, scale)
    return UpscaledImage(
        lr=lr,
        bicubic=bicubic,
        sr=np.clip(np.rint(raw), 0, 255).astype(np.uint8),
        hr=hr,
        of_bicubic=capped(score(bicubic.astype(np.float64), hr, scale=scale, protocol=evaluation.protocol)),
        of_sr=capped(score(raw, hr, scale=scale, protocol=evaluation.protocol)),
    )


@dataclass(slots=True)
class WholeImages:
    """The winner's scores on whole images."""

    scores: dict[str, float] = field(default_factory=dict)
    """Mean scores by set, e.g. "valid/psnr" [dB], and bicubic's, e.g. "valid/psnr_bicubic"."""
    rows: list[ScoreRow] = field(default_factory=list)
    median: SourceImage | None = None
    """The validation image with the median gain over bicubic, a typical one; None if no image has scores."""
    warnings: list[str] = field(default_factory=list)
    """One line per image that could not be scored; the means leave it out."""


def score_whole_images(
    model: A2N,
    weights: str,
    images: ImageSet,
    evaluation: EvaluationConfig,
    *,
    device: str,
    cache: "ScoreCache",
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> WholeImages:
    """The network's and bicubic's scores on every validation and benchmark image.

    Args:
        model: the network, on the device.
        weights: digest of its weights.
        images: validation and benchmark images.
        evaluation: downscaling kernel and scoring protocol.
        device: kind and model of the device; on another one the last bits of scores differ.
        cache: scores of earlier conclusions; new scores are added.
        tell: called with the progress in words, before each image.
        check: called often. It may raise to end the work; scores that were computed stay in the cache.
    """
    result = WholeImages()
    gains: list[tuple[float, str, SourceImage]] = []
    sets: Mapping[str, tuple[SourceImage, ...]] = {"valid": tuple(images.valid), **images.benchmarks}
    total = sum(map(len, sets.values()))
    done = 0
    for name, members in sets.items():
        network_scores: list[Score] = []
        bicubic_scores: list[Score] = []
        for image in members:
            done += 1
            tell(f"image {done} of {total}")
            check()
            pixels = read_image(image.path)
            key = short_digest([weights, pixel_digest(pixels), evaluation.kernel, evaluation.protocol, device])
            pair = cache.get(key)
            if pair is None:
                try:
                    upscaled = upscale_and_score(model, pixels, evaluation, name=image.path, progress=lambda _: check())
                except ImageError as exc:
                    result.warnings.append(f"warning: the means leave out {name} {visible(image.name)}: {exc}")
                    continue
                pair = (upscaled.of_sr, upscaled.of_bicubic)
                cache.put(key, pair)

            of_sr, of_bicubic = pair
            network_scores.append(of_sr)
            bicubic_scores.append(of_bicubic)
            result.rows.append((name, image.name, of_sr.psnr, of_sr.ssim))
            if name == "valid":
                gains.append((of_sr.psnr - of_bicubic.psnr, image.name, image))

        if network_scores:
            result.scores |= _means(name.lower(), network_scores, "")
            result.scores |= _means(name.lower(), bicubic_scores, "_bicubic")
    if gains:
        _, _, result.median = sorted(gains, key=lambda gain: gain[:2])[len(gains) // 2]
    return result


def _means(set_name: str, scores: list[Score], suffix: str) -> dict[str, float]:
    """The mean PSNR [dB] and SSIM of a set by metric name."""
    mean = mean_score(scores)
    return {f"{set_name}/psnr{suffix}": mean.psnr, f"{set_name}/ssim{suffix}": mean.ssim}


class ScoreCache:
    """A file that caches scores on whole images, by a digest of everything that they depend on.

    A study that is continued in many short sessions has a conclusion in each. The cache saves it from scoring the same
    winner again.
    """

    def __init__(self, path: Path) -> None:
        """Read the cache; a missing or damaged file counts as empty."""
        self._path = path
        self._scores: dict[str, list[float]] = {}
        self._used: set[str] = set()
        try:
            stored = json.loads(path.read_text("utf-8"))
            self._scores = {str(key): _four_numbers(row) for key, row in dict(stored).items()}
        except (OSError, ValueError, TypeError):  # the first conclusion, or a damaged file: compute the scores again
            pass

    def get(self, key: str) -> tuple[Score, Score] | None:
        """The network's and bicubic's score from the cache; None if they are not there."""
        self._used.add(key)
        row = self._scores.get(key)
        return None if row is None else (Score(row[0], row[1]), Score(row[2], row[3]))

    def put(self, key: str, pair: tuple[Score, Score]) -> None:
        """Add scores to the cache, and write it to the disk."""
        self._used.add(key)
        self._scores[key] = [pair[0].psnr, pair[0].ssim, pair[1].psnr, pair[1].ssim]
        self._write()

    def sweep(self) -> None:
        """Remove the scores that have not been used since this object was created."""
        if not self._scores.keys() <= self._used:
            self._scores = {key: row for key, row in self._scores.items() if key in self._used}
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, json.dumps(self._scores).encode())


def _four_numbers(row: object) -> list[float]:
    """The row, if it is a list of four finite numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(row, list) or len(row) != 4 or not all(isinstance(n, float) and math.isfinite(n) for n in row):
        raise ValueError("expected four finite numbers")
    return row
