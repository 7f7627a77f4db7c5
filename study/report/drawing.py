"""Writes figures as SVG for the page, which adapts to its light or dark theme, as PNG, and as CSV."""

import base64
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sr_core.images.files import Image
from sr_core.process.names import utf8
from study.plots.figures import cause, drawing, matplotlib, png, svg
from study.report.markup import Html, element, missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

INK = "#1b1f24"
"""Colour of text and axes, replaced by the page's text colour."""
PAPER = "#fdfdfd"
"""Colour of the background, replaced by the page's background."""
GREY = "#83898f"
"""Visible on a light and on a dark background."""
BEST = "#0072b2"
REFERENCES = ("#d55e00", "#cc79a7", "#e69f00")
FINALISTS = ("#009e73", "#56b4e9")
GROUPS = (("#0072b2", "o"), ("#e69f00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#d55e00", "v"), ("#56b4e9", "P"))
"""The colours of Okabe and Ito, which colour-blind readers can distinguish, each with a marker for grey print."""
_MAX_SVG_BYTES = 600_000
"""A larger SVG is replaced by the PNG in the page, if the PNG is smaller."""
_MAX_CSV_LETTERS = 400_000
"""Longer tables of numbers are not embedded in the page."""
_STYLE = (
    f"<style>svg{{color:{INK};--paper:{PAPER}}}"
    "@media (prefers-color-scheme:dark){svg{color:#e4e6e9;--paper:#15181c}}</style>"
)
_SETTINGS = {
    "svg.hashsalt": "study.report",  # makes the ids within a figure reproducible
    "font.size": 9.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """One figure of the report."""

    name: str
    """Name of its files, without suffix."""
    image: bytes
    """What the page shows: SVG, or PNG if the SVG is too large; empty if drawing failed."""
    png: bytes
    csv: str
    """The numbers that it shows."""
    size: tuple[float, float]
    """Width and height in CSS pixels at which its text is as large as the page's."""
    fault: str = ""
    """Why drawing failed, as a sentence; empty if it did not."""

    @property
    def files(self) -> dict[str, bytes]:
        """The PNG and CSV files, by their path in the report's folder."""
        images = {f"figures/{self.name}.png": self.png} if self.png else {}
        return images | {f"figures/{self.name}.csv": utf8(self.csv)}

    @property
    def faults(self) -> tuple[str, ...]:
        return (self.fault,) if self.fault else ()


def canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    """Return an empty figure of `width` x `height` inches with one pair of axes; for use within `draw_figure`."""
    figure = sheet(width, height)
    axes = figure.subplots()
    axes.grid(True)
    return figure, axes


def sheet(width: float, height: float) -> "Figure":
    """Return an empty figure of `width` x `height` inches; for use within `draw_figure`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def middle_colours() -> "LinearSegmentedColormap":
    """Return the colour map cividis without its ends, which are too close to a dark or light background."""
    from matplotlib.colors import LinearSegmentedColormap

    mpl = matplotlib()
    return LinearSegmentedColormap.from_list("middle", mpl.colormaps["cividis"](np.linspace(0.12, 0.88, 64)))


def draw_figure(
    name: str, numbers: str, draw: "Callable[[], Figure]", settings: Mapping[str, object] | None = None
) -> DrawnFigure:
    """Draw a figure and return its files. If drawing fails, return its numbers and a sentence that says why.

    Args:
        numbers: what the figure shows, as CSV.
        draw: draws the figure; called with the Matplotlib settings that all figures of the report share.
        settings: additional Matplotlib settings of this figure.
    """
    all_settings = _SETTINGS | dict(settings or {})
    try:
        with drawing(all_settings):
            figure = draw()
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # lay out once, not again for each file
            text = svg(figure, all_settings)
            image = png(figure, all_settings)
            width, height = figure.get_size_inches()
    except Exception as exc:  # any error of the plotting library: the rest of the page is still written
        return DrawnFigure(name, b"", b"", numbers, (0, 0), f"The figure {name} could not be drawn ({cause(exc)}).")
    page = _following_the_page(text)

    small = len(page) <= max(_MAX_SVG_BYTES, len(image))
    return DrawnFigure(name, page.encode() if small else image, image, numbers, (96 * width, 96 * height))


def _following_the_page(svg: str) -> str:
    """Return the SVG with the page's text and background colours, light or dark."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return re.sub(r"^<svg[^>]*>", lambda opening: opening[0] + _STYLE, svg)


def figure_html(figure: DrawnFigure, *, alt: str, caption: object, least_width: int = 0) -> Html:
    """Return a figure as HTML with its caption and a link to its numbers. If drawing failed, say so instead.

    Args:
        alt: describes the figure for readers who cannot see it.
        least_width: width in CSS pixels below which the figure scrolls instead of shrinking.
    """
    numbers = download(f"{figure.name}.csv", figure.csv)
    if figure.fault:
        return missing(figure.fault, numbers)
    width, height = figure.size
    image = element(
        "img",
        src=data_uri(figure.image),
        alt=alt,
        width=round(width),
        height=round(height),
        style=f"min-width:{least_width}px" if least_width else None,
    )
    label = f"{figure.name}, a figure that scrolls sideways"
    content = image
    if least_width:
        content = element("div", image, class_="scroll", tabindex=0, role="region", aria_label=label)
    return element("figure", content, element("figcaption", caption, " ", numbers))


def download(name: str, numbers: str) -> Html | None:
    """Return a link that saves a CSV file embedded in the page; None if the file is too large to embed."""
    if len(numbers) > _MAX_CSV_LETTERS:
        return None
    uri = f"data:text/csv;base64,{base64.b64encode(utf8(numbers)).decode()}"
    return element("a", "CSV", href=uri, download=name, class_="download", aria_label=f"save {name}")


def data_uri(content: bytes) -> str:
    """Return an image as a data URI, which needs no network."""
    if content.startswith(b"\x89PNG"):
        kind = "png"
    elif content.startswith(b"RIFF"):
        kind = "webp"
    else:
        kind = "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a CSV file. Floats have all their digits, so that they equal those in the journal."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


def coloured(values: NDArray[np.floating]) -> Image:
    """Return values in [0, 1] as colours of cividis from dark to bright, (H, W, 3) uint8; other values are clipped."""
    return np.asarray(matplotlib().colormaps["cividis"](np.clip(values, 0, 1), bytes=True)[..., :3], dtype=np.uint8)
