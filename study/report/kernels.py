"""Scores networks trained on one downsampling kernel on LR images made by other kernels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from sr_core.config import Kernel
from sr_core.errors import CheckpointError, SuiteError
from sr_core.images.color import BT601_STUDIO, rgb_to_y
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import Image
from sr_core.metrics.evaluate import PSNR_CAP, bicubic_baseline
from sr_core.metrics.psnr import psnr
from sr_core.model.inference import super_resolve
from sr_core.patches.validation import Crop, Squares, choose_squares
from sr_core.process.progress import ProgressBar
from study.plots.figures import name_in_figure
from study.record.events import max_bicubic_psnr
from study.report.cache import Cache
from study.report.drawing import INK, DrawnFigure, canvas, csv_text, draw_figure, figure_html, middle_colours
from study.report.markup import Html, missing, table
from study.report.material import WEIGHTS_NEEDED, Network, Setting, settings_of, validation_images
from study.report.page import Section
from study.report.record import StudyRecord
from study.statistics.stats import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLE = "Train kernel × evaluation kernel"


@dataclass(frozen=True, slots=True)
class KernelRow:
    """The scores of one setting on the LR of every kernel."""

    title: str
    train_kernel: str
    scores: tuple[Estimate, ...]
    """For each kernel: the mean PSNR over the validation crops [dB], estimated over the seeds."""


def kernels(record: StudyRecord, data: Path | None, cache: Cache) -> Section:
    """Return the section with the matrix of finalists, references and the best trial of each other training kernel."""
    if record.base.evaluation.protocol != "canonical":
        text = "There is no matrix: the blog's protocol makes LR by Pillow's bicubic, whatever the kernel."
        return Section("kernels", _TITLE, missing(text))
    settings = settings_of(record, kernels=True)
    if not settings:
        return Section("kernels", _TITLE, missing(WEIGHTS_NEEDED))
    names = kernels_of(record)
    try:
        bicubic, rows = matrix(record, settings, names, data, cache)
    except (SuiteError, CheckpointError) as exc:
        return Section("kernels", _TITLE, missing(f"{str(exc)[:1].upper()}{str(exc)[1:]}."))
    figure = _matrix(record, names, bicubic, rows)
    crops = record.opened.data.get("crops", {})
    caption = (
        "Each row is a setting trained on one kernel (framed). Each column is the kernel that made the validation LR "
        f"({crops.get('count', 'the')} crops). Colour and numbers are the gain over bicubic enlargement of the same LR "
        "[dB]. With several seeds, ± is half the 95% confidence interval. The study itself scores on "
        f"{record.base.evaluation.kernel} (arrow)."
    )
    alt = "Matrix of gains over bicubic: " + "; ".join(
        f"{row.title}: best on {names[int(np.argmax([e.mean - b for e, b in zip(row.scores, bicubic, strict=True)]))]}"
        for row in rows
    )
    cells = [(row.title, row.train_kernel, *(_cell(e) for e in row.scores)) for row in rows]
    cells.insert(0, ("bicubic", "none", *(f"{b:.2f}" for b in bicubic)))
    numbers = table(("setting", "trained on", *names), cells, caption="PSNR [dB] by evaluation kernel", class_="small")
    body = Html(figure_html(figure, alt=alt, caption=caption, least_width=760) + numbers)
    return Section("kernels", _TITLE, body, figure.files, figure.faults)


def _cell(score: Estimate) -> str:
    half_interval = (score.high - score.low) / 2
    return f"{score.mean:.2f} ± {half_interval:.2f}" if math.isfinite(half_interval) else f"{score.mean:.2f}"


def kernels_of(record: StudyRecord) -> list[Kernel]:
    """Return the evaluation kernel and all training kernels of the study; all known kernels if these are only one."""
    swept = []
    for dimension in record.space.dimensions:
        if "data.train_kernel" in dimension.names:
            swept += [dimension.settings(value)["data.train_kernel"] for value in dimension.listed or ()]
    own = {record.base.evaluation.kernel, *(swept or [record.base.data.train_kernel])}
    own |= {t.config.data.train_kernel for t in record.references}
    return [kernel for kernel in get_args(Kernel) if kernel in own or len(own) == 1]


def matrix(
    record: StudyRecord, settings: Sequence[Setting], names: Sequence[Kernel], data: Path | None, cache: Cache
) -> tuple[list[float], list[KernelRow]]:
    """Return bicubic's mean PSNR [dB] on the LR of each kernel, and the scores of every setting.

    Networks are scored on the validation crops of the study, with LR made by each kernel from whole images. Scores
    are kept in the cache by the digest of the network.

    Raises:
        SuiteError: the images or a network are missing.
        CheckpointError: a file does not hold the recorded weights.
    """
    crops = _Crops(record, data)
    base = record.base
    ruler = [
        record.opened.data["fingerprint"],
        base.data.scale,
        base.evaluation.protocol,
        base.evaluation.crops,
        base.evaluation.lr_crop_size,
    ]
    bound = max_bicubic_psnr(record.opened)
    if bound is not None:
        ruler.append(bound)
    networks = {network.digest: network for setting in settings for network in setting.networks}
    scale = base.data.scale

    def of_bicubic() -> list[list[float]]:
        return [crops.scores(kernel, lambda lr: bicubic_baseline(lr, scale).astype(np.float64)) for kernel in names]

    def of_network(network: Network) -> list[list[float]]:
        model = network.load()
        return [crops.scores(kernel, lambda lr: super_resolve(model, lr)) for kernel in names]

    bicubic = [fmean(row) for row in cache.value("kernels", ["bicubic", 1, ruler, names], of_bicubic)]
    means: dict[str, list[float]] = {}
    with ProgressBar("networks on every kernel's LR", text="{:.0f} networks".format) as progress:
        for done, (digest, network) in enumerate(networks.items()):
            progress.at(done, len(networks))
            key = ["network", 1, digest, ruler, names]
            scores = cache.value("kernels", key, lambda network=network: of_network(network))  # type: ignore[misc]
            means[digest] = [fmean(row) for row in scores]

    rows = [
        KernelRow(
            s.title,
            s.trial.config.data.train_kernel,
            tuple(map(estimate, zip(*(means[n.digest] for n in s.networks), strict=True))),
        )
        for s in settings
    ]
    return bicubic, rows


class _Crops:
    """The study's validation crops with the LR of any kernel. Images are read when they are first needed."""

    def __init__(self, record: StudyRecord, data: Path | None) -> None:
        self._record = record
        self._data = data
        self._images: list[tuple[str, Image]] = []
        self._squares: Squares | None = None
        self._crops: dict[Kernel, list[Crop]] = {}

    def scores(self, kernel: Kernel, enlarge: Callable[[Image], NDArray[np.floating]]) -> list[float]:
        """Return the PSNR [dB] of each crop.

        Args:
            enlarge: makes SR from the LR of a crop.
        """
        scale = self._record.base.data.scale
        return [_psnr(enlarge(crop.lr), crop.hr, scale) for crop in self.of(kernel)]

    def of(self, kernel: Kernel) -> list[Crop]:
        """Return the crops with the LR of this kernel."""
        if not self._images:
            count = self._record.base.evaluation.crops
            self._images = validation_images(self._record, self._data, at_most=count)
        if kernel not in self._crops:
            scale = self._record.base.data.scale
            names = [name for name, _ in self._images]
            hr = [crop_to_multiple(image, scale) for _, image in self._images]
            if self._squares is None:
                self._squares = self._as_scored(names, hr)
            lr = [downsample(image, scale, kernel) for image in hr]
            self._crops[kernel] = self._squares.cut(names, lr, hr, scale)
        return self._crops[kernel]

    def _as_scored(self, names: Sequence[str], hr: Sequence[Image]) -> Squares:
        """Return the positions of the study's crops, which depend on the LR of its evaluation kernel."""
        base = self._record.base
        opened = self._record.opened
        scale = base.data.scale
        return choose_squares(
            names,
            [downsample(image, scale, base.evaluation.kernel) for image in hr],
            hr,
            scale=scale,
            crops=base.evaluation.crops,
            # As recorded: with more images than crops, an image that is not read may have the shortest side.
            lr_crop_size=opened.data["crops"]["lr_side"],
            max_bicubic_psnr=max_bicubic_psnr(opened),
        )


def _psnr(sr: NDArray[np.floating], hr: Image, scale: int) -> float:
    """Return the PSNR of the canonical protocol in dB, without the SSIM, which takes as long as a small network."""
    clipped = np.rint(np.clip(sr.astype(np.float64), 0, 255))
    return min(PSNR_CAP, psnr(rgb_to_y(clipped, BT601_STUDIO), rgb_to_y(hr, BT601_STUDIO), border=scale))


def _matrix(
    record: StudyRecord, names: Sequence[Kernel], bicubic: Sequence[float], rows: Sequence[KernelRow]
) -> DrawnFigure:
    gains = np.array([[e.mean - b for e, b in zip(row.scores, bicubic, strict=True)] for row in rows])
    numbers = [
        (row.title, row.train_kernel, kernel, e.mean, _finite(e.low), _finite(e.high), e.count, b, e.mean - b)
        for row in rows
        for kernel, e, b in zip(names, row.scores, bicubic, strict=True)
    ]
    columns = ("setting", "train_kernel", "evaluation_kernel", "psnr", "low", "high", "seeds", "psnr_bicubic", "gain")
    return draw_figure("kernels", csv_text(columns, numbers), lambda: _draw_matrix(record, names, bicubic, rows, gains))


def _draw_matrix(
    record: StudyRecord,
    names: Sequence[Kernel],
    bicubic: Sequence[float],
    rows: Sequence[KernelRow],
    gains: NDArray[np.float64],
) -> "Figure":
    """Draw the matrix of gains.

    Args:
        gains: (rows, kernels), in dB over bicubic.
    """
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    figure, axes = canvas(2.6 + 1.05 * len(names), 1.9 + 0.62 * len(rows))
    axes.grid(False)
    low = float(np.quantile(gains, 0.1))
    norm, colours = Normalize(low, float(gains.max()) + 1e-9, clip=True), middle_colours()
    axes.imshow(gains, cmap=colours, norm=norm, aspect="auto")
    for y, row in enumerate(rows):
        for x, (kernel, score) in enumerate(zip(names, row.scores, strict=True)):
            gain = gains[y, x]
            half_interval = (score.high - score.low) / 2
            dark = norm(gain) < 0.55
            text = f"{gain:+.2f}"
            if math.isfinite(half_interval):
                text += f"\n±{half_interval:.2f}"
            axes.text(
                x,
                y,
                text,
                ha="center",
                va="center",
                fontsize=8.5,
                color="#ffffff" if dark else "#000000",
                linespacing=1,
            )
            if kernel == row.train_kernel:
                axes.add_patch(
                    Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor="#ffffff", linewidth=3)
                )
                axes.add_patch(
                    Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor="#d55e00", linewidth=2)
                )
    own = record.base.evaluation.kernel
    marks = [f"{'▸ ' if k == own else ''}{k}\n{b:.2f} dB" for k, b in zip(names, bicubic, strict=True)]
    axes.set_xticks(range(len(names)), marks, fontsize=8, rotation=20)
    axes.set_yticks(
        range(len(rows)), [f"{name_in_figure(row.title)}\n{row.train_kernel}" for row in rows], fontsize=8.5
    )
    axes.set(
        xlabel="kernel that made the validation LR, and PSNR of bicubic enlargement on it",
        ylabel="setting and its training kernel",
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.label.set_color(INK)
    return figure


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else ""
