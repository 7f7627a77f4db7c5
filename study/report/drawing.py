"""Figures as files and as parts of the page: SVG that follows a light or dark page, PNG, and their numbers."""

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
"""Text and axes: becomes the page's own colour of text."""
PAPER = "#fdfdfd"
"""What lies behind: becomes the page's background."""
GREY = "#83898f"
"""Seen on light and on dark paper."""
BEST = "#0072b2"
REFERENCES = ("#d55e00", "#cc79a7", "#e69f00")
FINALISTS = ("#009e73", "#56b4e9")
GROUPS = (("#0072b2", "o"), ("#e69f00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#d55e00", "v"), ("#56b4e9", "P"))
"""Colours of Okabe and Ito, told apart by colour-blind eyes, each with a marker of its own for eyes that see grey."""
_LARGEST_SVG = 600_000
_STYLE = (
    f"<style>svg{{color:{INK};--paper:{PAPER}}}"
    "@media (prefers-color-scheme:dark){svg{color:#e4e6e9;--paper:#15181c}}</style>"
)
_SETTINGS = {
    "svg.hashsalt": "study.report",  # ids within a figure are derived from it, not drawn by lot
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
    """Of its files, without suffix."""
    image: bytes
    """As the page shows it: SVG, or PNG where that is smaller; empty if it could not be drawn."""
    png: bytes
    csv: str
    """The numbers that it shows."""
    size: tuple[float, float]
    """Width and height in CSS pixels at which its text is as large as the page's."""
    fault: str = ""
    """Why it could not be drawn, as a sentence; empty if it was."""

    @property
    def files(self) -> dict[str, bytes]:
        images = {f"figures/{self.name}.png": self.png} if self.png else {}
        return images | {f"figures/{self.name}.csv": utf8(self.csv)}

    @property
    def faults(self) -> tuple[str, ...]:
        return (self.fault,) if self.fault else ()


def canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure of that many inches with one pair of axes; for use within `draw_figure`."""
    figure = sheet(width, height)
    axes = figure.subplots()
    axes.grid(True)
    return figure, axes


def sheet(width: float, height: float) -> "Figure":
    """An empty figure of that many inches; for use within `draw_figure`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def middle_colours() -> "LinearSegmentedColormap":
    """Cividis without its ends, which are too near to dark and to light paper."""
    from matplotlib.colors import LinearSegmentedColormap

    mpl = matplotlib()
    return LinearSegmentedColormap.from_list("middle", mpl.colormaps["cividis"](np.linspace(0.12, 0.88, 64)))


def draw_figure(
    name: str, numbers: str, draw: "Callable[[], Figure]", settings: Mapping[str, object] | None = None
) -> DrawnFigure:
    """The figure as files; if it cannot be drawn, its numbers and a sentence that says why.

    Args:
        numbers: what it shows, as CSV.
        draw: called within the settings that all figures of the report share.
        settings: Matplotlib's, of this figure alone.
    """
    its = _SETTINGS | dict(settings or {})
    try:
        with drawing(its):
            figure = draw()
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not for each file
            text = svg(figure, its)
            image = png(figure, its)
            width, height = figure.get_size_inches()
    except Exception as exc:  # whatever a library of figures raises: the rest of the page stands
        return DrawnFigure(name, b"", b"", numbers, (0, 0), f"The figure {name} could not be drawn ({cause(exc)}).")
    page = _following_the_page(text)
    small = len(page) <= max(_LARGEST_SVG, len(image))
    return DrawnFigure(name, page.encode() if small else image, image, numbers, (96 * width, 96 * height))


def _following_the_page(svg: str) -> str:
    """The SVG with the page's own colours of text and paper, dark or light."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return re.sub(r"^<svg[^>]*>", lambda opening: opening[0] + _STYLE, svg)


def figure_html(figure: DrawnFigure, *, alt: str, caption: object, least_width: int = 0) -> Html:
    """The figure in the page, with what is seen on it in a sentence and its numbers to take away.

    A figure that could not be drawn is a line that says so, with its numbers.

    Args:
        least_width: CSS pixels below which it scrolls rather than shrinks.
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
    held = element("div", image, class_="scroll", tabindex=0, role="region", aria_label=label) if least_width else image
    return element("figure", held, element("figcaption", caption, " ", numbers))


def download(name: str, numbers: str) -> Html | None:
    """A link that saves the numbers from the page itself; none where they are too many for it."""
    if len(numbers) > 400_000:
        return None
    uri = f"data:text/csv;base64,{base64.b64encode(utf8(numbers)).decode()}"
    return element("a", "CSV", href=uri, download=name, class_="download", aria_label=f"save {name}")


def data_uri(content: bytes) -> str:
    """An image as an address that needs no network."""
    if content.startswith(b"\x89PNG"):
        kind = "png"
    elif content.startswith(b"RIFF"):
        kind = "webp"
    else:
        kind = "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file; floats in full, so that they are the journal's own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return file.getvalue()


def coloured(values: NDArray[np.floating]) -> Image:
    """Numbers of 0..1 as colours of cividis, from dark to bright, (H, W, 3) uint8; values beyond are clipped."""
    return np.asarray(matplotlib().colormaps["cividis"](np.clip(values, 0, 1), bytes=True)[..., :3], dtype=np.uint8)
