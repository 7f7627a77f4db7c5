"""Figures of results. Each function takes data and returns a Matplotlib figure; none reads or writes a study."""

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

# From the palette of Okabe and Ito, which can be distinguished by colour-blind readers and in grey.
_REFERENCE_COLOURS = ("#D55E00", "#CC79A7", "#E69F00")
_BEST_COLOUR = "#0072B2"


def learning_curves(curves: "pd.DataFrame", *, best: int, bicubic_psnr: float) -> "Figure":
    """A figure of validation PSNR over training patches; it marks the winner, references, and pruned or failed trials.

    Args:
        curves: table that `study.results.curves` returns.
        best: number of the winning trial.
        bicubic_psnr: PSNR of bicubic enlargement on the same crops [dB].
    """
    with drawing():
        return _learning_curves(curves, best, bicubic_psnr)


def _learning_curves(curves: "pd.DataFrame", best: int, bicubic_psnr: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colours = itertools.cycle(_REFERENCE_COLOURS)
    for number, rows in curves.groupby("trial", sort=False):
        name = rows["name"].iloc[0]
        state = rows["state"].iloc[0]
        patches = rows["patches"].to_numpy()
        psnr = rows["val/psnr"].to_numpy()
        if number == best:
            axes.plot(patches, psnr, color=_BEST_COLOUR, linewidth=2.5, zorder=3, label=f"best: trial {best}")
        elif name:
            axes.plot(
                patches,
                psnr,
                color=next(colours),
                linewidth=1.8,
                linestyle="--",
                zorder=2,
                label=f"reference: {name_in_figure(name)}",
            )
        else:
            axes.plot(patches, psnr, color="0.65" if state == "finished" else "0.82", linewidth=0.8, zorder=1)
            if state != "finished":
                axes.plot(patches[-1], psnr[-1], "x", color="0.6", markersize=5, zorder=1)
    axes.axhline(bicubic_psnr, color="0.2", linestyle=":", label=f"bicubic, {bicubic_psnr:.2f} dB")
    axes.plot([], [], "x", color="0.6", label="pruned or failed")
    axes.set(xlabel="training patches", ylabel="PSNR on the validation crops (Y) [dB]", title="Learning curves")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    axes.grid(alpha=0.25)
    return figure


def comparison(images: Mapping[str, tuple[Image, float | None]], *, box: tuple[int, int, int], title: str) -> "Figure":
    """A figure that shows versions of one image side by side: whole images above, one detail below.

    Args:
        images: by caption, an image (H, W, 3), uint8, and its PSNR [dB] or None; all images have the same size.
        box: (y, x, side) of the detail, in pixels.
        title: title of the figure.
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
    """(y, x, side) of the square in which `better` reduces the summed squared error of `worse` most.

    Squares lie on a grid with steps of a quarter side.

    Args:
        hr, worse, better: (H, W, 3), uint8.
        side: side of the square in pixels.
    """

    def error(image: Image) -> NDArray[np.float64]:
        return np.asarray(((image.astype(np.float64) - hr) ** 2).sum(axis=2))

    return strongest(error(worse) - error(better), side, 1)[0]


def strongest(strength: NDArray[np.float64], side: int, count: int) -> list[tuple[int, int, int]]:
    """(y, x, side) of at most `count` squares with the largest sums of strength, none overlapping, strongest first.

    Squares lie on a grid with steps of a quarter side, and flush with the far edges.

    Args:
        strength: strength of each pixel, (H, W).
        side: side of a square in pixels; reduced if the image is smaller.
        count: largest number of squares.
    """
    side = min(side, *strength.shape)
    sums = np.pad(strength.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    step = max(1, side // 4)
    ys, xs = (np.unique([*range(0, free, step), free - 1]) for free in inside.shape)
    coarse = inside[np.ix_(ys, xs)]
    squares: list[tuple[int, int, int]] = []
    while len(squares) < count and np.isfinite(coarse).any():
        row, column = np.unravel_index(int(coarse.argmax()), coarse.shape)
        y = int(ys[row])
        x = int(xs[column])
        squares.append((y, x, side))
        coarse[np.ix_(abs(ys - y) < side, abs(xs - x) < side)] = -np.inf
    return squares
