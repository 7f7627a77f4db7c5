"""The winner on whole images: scores that a conclusion needs, kept so that no image is computed twice."""

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
"""(set, image, PSNR in dB, SSIM)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One image as the winner makes it, and what it is compared with."""

    lr: Image
    bicubic: Image
    sr: Image
    hr: Image
    of_bicubic: Score
    of_sr: Score


def look(
    model: A2N, image: Image, evaluation: EvaluationConfig, *, name: object, progress: Callable[[float], None]
) -> Seen:
    """An HR image reduced and enlarged again, with its scores, each PSNR at most 100 dB.

    Raises:
        ImageError: the network's output is not finite.
    """
    scale = model.scale
    lr, hr = lr_hr_pair(image, scale, evaluation.kernel, evaluation.protocol)
    raw = super_resolve(model, lr, progress=progress)
    require_finite(raw, name)
    bicubic = bicubic_baseline(lr, scale)
    return Seen(
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
    """Means by set, e.g. "valid/psnr", and bicubic's, e.g. "valid/psnr_bicubic"."""
    rows: list[ScoreRow] = field(default_factory=list)
    median: SourceImage | None = None
    """The validation image with the median gain over bicubic, which is not the luckiest."""
    warnings: list[str] = field(default_factory=list)
    """Images that could not be scored, one line each; they are in no mean."""


def score_whole_images(
    model: A2N,
    weights: str,
    images: ImageSet,
    evaluation: EvaluationConfig,
    *,
    device: str,
    kept: "KeptScores",
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> WholeImages:
    """Score the network on every validation and benchmark image.

    Args:
        model: on the device.
        weights: their digest.
        device: its kind and model; scores of another one have other last bits.
        kept: scores from before, and where new ones go.
        tell: told now and then how far this is.
        check: called often; may raise to end the work, which then continues from there.
    """
    result = WholeImages()
    gains: list[tuple[float, str, SourceImage]] = []
    sets: Mapping[str, tuple[SourceImage, ...]] = {"valid": tuple(images.valid), **images.benchmarks}
    total, done = sum(map(len, sets.values())), 0
    for name, members in sets.items():
        ours, bicubic = [], []
        for image in members:
            done += 1
            tell(f"image {done} of {total}")
            check()
            pixels = read_image(image.path)
            key = short_digest([weights, pixel_digest(pixels), evaluation.kernel, evaluation.protocol, device])
            pair = kept.get(key)
            if pair is None:
                try:
                    seen = look(model, pixels, evaluation, name=image.path, progress=lambda _: check())
                except ImageError as exc:
                    result.warnings.append(f"warning: {name} {visible(image.name)} is in no mean: {exc}")
                    continue
                pair = seen.of_sr, seen.of_bicubic
                kept.put(key, pair)
            ours.append(pair[0])
            bicubic.append(pair[1])
            result.rows.append((name, image.name, pair[0].psnr, pair[0].ssim))
            if name == "valid":
                gains.append((pair[0].psnr - pair[1].psnr, image.name, image))
        for suffix, scores in (("", ours), ("_bicubic", bicubic)) if ours else ():
            mean = mean_score(scores)
            result.scores |= {f"{name.lower()}/psnr{suffix}": mean.psnr, f"{name.lower()}/ssim{suffix}": mean.ssim}
    if gains:
        _, _, result.median = sorted(gains, key=lambda gain: gain[:2])[len(gains) // 2]
    return result


class KeptScores:
    """Scores on whole images in a file, by a digest of all that they depend on.

    A study that is continued in many short sessions concludes in each; the same winner is not scored again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scores: dict[str, list[float]] = {}
        self._asked: set[str] = set()
        try:
            stored = json.loads(path.read_text("utf-8"))
            self._scores = {str(key): _four_numbers(row) for key, row in dict(stored).items()}
        except (OSError, ValueError, TypeError):  # the first conclusion, or a damaged file: computed again
            pass

    def get(self, key: str) -> tuple[Score, Score] | None:
        """The network's score and bicubic's, if they are known."""
        self._asked.add(key)
        row = self._scores.get(key)
        return None if row is None else (Score(row[0], row[1]), Score(row[2], row[3]))

    def put(self, key: str, pair: tuple[Score, Score]) -> None:
        """Keep the scores, on the disk too."""
        self._asked.add(key)
        self._scores[key] = [pair[0].psnr, pair[0].ssim, pair[1].psnr, pair[1].ssim]
        self._write()

    def sweep(self) -> None:
        """Forget the scores that were not asked for since this object was made."""
        if not self._scores.keys() <= self._asked:
            self._scores = {key: row for key, row in self._scores.items() if key in self._asked}
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, json.dumps(self._scores).encode())


def _four_numbers(row: object) -> list[float]:
    """Raises ValueError unless it is a list of four finite numbers."""
    if not isinstance(row, list) or len(row) != 4 or not all(isinstance(n, float) and math.isfinite(n) for n in row):
        raise ValueError("expected four finite numbers")
    return row
