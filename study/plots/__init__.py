"""Images of results. Each takes data and returns a figure; nothing here reads or writes a study."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sr_core.images.files import Image
from study.plots.figures import drawing, name_in_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_REFERENCE_COLOURS = ("#D55E00", "#CC79A7", "#E69F00")  # of Okabe and Ito: told apart by colour-blind eyes and in grey
_BEST_COLOUR = "#0072B2"


def learning_curves(curves: "pd.DataFrame", *, best: int, bicubic_psnr: float) -> "Figure":
    """Validation PSNR over training patches, pruned and failed trials visible, winner and references marked.

    Args:
        curves: as `study.results.curves` gives it.
        best: trial number of the winner.
        bicubic_psnr: dB, on the same crops.
    """
    with drawing():
        return _learning_curves(curves, best, bicubic_psnr)


def _learning_curves(curves: "pd.DataFrame", best: int, bicubic_psnr: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colours = itertools.cycle(_REFERENCE_COLOURS)
    for number, rows in curves.groupby("trial", sort=False):
        name, state = rows["name"].iloc[0], rows["state"].iloc[0]
        points = rows["patches"].to_numpy(), rows["val/psnr"].to_numpy()
        if number == best:
            axes.plot(*points, color=_BEST_COLOUR, linewidth=2.5, zorder=3, label=f"best: trial {best}")
        elif name:
            axes.plot(
                *points,
                color=next(colours),
                linewidth=1.8,
                linestyle="--",
                zorder=2,
                label=f"reference: {name_in_figure(name)}",
            )
        else:
            axes.plot(*points, color="0.65" if state == "finished" else "0.82", linewidth=0.8, zorder=1)
            if state != "finished":
                axes.plot(points[0][-1], points[1][-1], "x", color="0.6", markersize=5, zorder=1)
    axes.axhline(bicubic_psnr, color="0.2", linestyle=":", label=f"bicubic, {bicubic_psnr:.2f} dB")
    axes.plot([], [], "x", color="0.6", label="pruned or failed")
    axes.set(xlabel="training patches", ylabel="PSNR on the validation crops (Y) [dB]", title="Learning curves")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    axes.grid(alpha=0.25)
    return figure


def comparison(images: Mapping[str, tuple[Image, float | None]], *, box: tuple[int, int, int], title: str) -> "Figure":
    """Images of one scene beside each other: whole ones above, one detail below.

    Args:
        images: caption -> (image (H, W, 3) uint8, its PSNR in dB or None), all of one size.
        box: (y, x, side) of the detail, in pixels.
    """
    with drawing():
        return _comparison(images, box, title)


def _comparison(images: Mapping[str, tuple[Image, float | None]], box: tuple[int, int, int], title: str) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    y, x, side = box
    figure = Figure(figsize=(3.2 * len(images), 5.6), layout="constrained")
    rows = figure.subplots(2, len(images))
    for (caption, (image, psnr)), whole, detail in zip(images.items(), rows[0], rows[1], strict=True):
        whole.imshow(image)
        whole.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor="#F0E442", linewidth=1.5))
        whole.set_title(caption if psnr is None else f"{caption}, {psnr:.2f} dB", fontsize=10)
        detail.imshow(image[y : y + side, x : x + side], interpolation="nearest")
        for axes in (whole, detail):
            axes.set_axis_off()
    figure.suptitle(title, fontsize=11)
    return figure


def most_gained(hr: Image, worse: Image, better: Image, side: int) -> tuple[int, int, int]:
    """(y, x, side) of the square in which `better` lies closest to `hr` compared with `worse`.

    The one with the largest fall of the summed squared error, on a grid of a quarter side.
    """

    def error(image: Image) -> NDArray[np.float64]:
        return np.asarray(((image.astype(np.float64) - hr) ** 2).sum(axis=2))

    return strongest(error(worse) - error(better), side, 1)[0]


def strongest(strength: NDArray[np.float64], side: int, count: int) -> list[tuple[int, int, int]]:
    """(y, x, side) of at most `count` squares, none over another, with the largest sums; the strongest first.

    Args:
        strength: (H, W), of each pixel. Squares lie on a grid of a quarter side, and flush with the far edges.
        side: less where the image is smaller.
    """
    side = min(side, *strength.shape)
    sums = np.pad(strength.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    step = max(1, side // 4)
    ys, xs = (np.unique([*range(0, free, step), free - 1]) for free in inside.shape)
    coarse = inside[np.ix_(ys, xs)]
    found: list[tuple[int, int, int]] = []
    while len(found) < count and np.isfinite(coarse).any():
        row, column = np.unravel_index(int(coarse.argmax()), coarse.shape)
        y, x = int(ys[row]), int(xs[column])
        found.append((y, x, side))
        coarse[np.ix_(abs(ys - y) < side, abs(xs - x) < side)] = -np.inf
    return found
