"""Figures as files and as parts of the page: SVG that follows a light or dark page, PNG, and their numbers."""

import base64
import csv
import io
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sr_core.data.images import Image
from study.plots import png
from study.report.markup import Html, element

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
    "text.parse_math": False,  # a user's $ is a dollar
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
class Drawn:
    """One figure of the report."""

    name: str
    """Of its files, without suffix."""
    image: bytes
    """As the page shows it: SVG, or PNG where that is smaller."""
    png: bytes
    csv: str
    """The numbers that it shows."""
    size: tuple[float, float]
    """Width and height in CSS pixels at which its text is as large as the page's."""

    @property
    def files(self) -> dict[str, bytes]:
        return {f"figures/{self.name}.png": self.png, f"figures/{self.name}.csv": self.csv.encode()}


def style() -> AbstractContextManager[None]:
    """Within this context figures look alike."""
    return mpl.rc_context(_SETTINGS)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of that many inches with one pair of axes; inside `style()`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(True)
    return figure, axes


def middle_colours() -> LinearSegmentedColormap:
    """Cividis without its ends, which are too near to dark and to light paper."""
    return LinearSegmentedColormap.from_list("middle", mpl.colormaps["cividis"](np.linspace(0.12, 0.88, 64)))


def drawn(name: str, figure: Figure, numbers: str) -> Drawn:
    """The figure as files."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # a name in a script that the font lacks
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not for each file
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        picture = png(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    svg = re.sub(r"^<svg[^>]*>", lambda opening: opening[0] + _STYLE, svg)
    width, height = figure.get_size_inches()
    small = len(svg) <= max(_LARGEST_SVG, len(picture))
    return Drawn(name, svg.encode() if small else picture, picture, numbers, (96 * width, 96 * height))


def shown(figure: Drawn, *, alt: str, caption: object, least_width: int = 0) -> Html:
    """The figure in the page, with what is seen on it in a sentence and its numbers to take away.

    Args:
        least_width: CSS pixels below which it scrolls rather than shrinks.
    """
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
    return element("figure", held, element("figcaption", caption, " ", download(f"{figure.name}.csv", figure.csv)))


def download(name: str, numbers: str) -> Html | None:
    """A link that saves the numbers from the page itself; none where they are too many for it."""
    if len(numbers) > 400_000:
        return None
    uri = f"data:text/csv;base64,{base64.b64encode(numbers.encode()).decode()}"
    return element("a", "CSV", href=uri, download=name, class_="download", aria_label=f"save {name}")


def data_uri(content: bytes) -> str:
    """A picture as an address that needs no network."""
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
    return np.asarray(mpl.colormaps["cividis"](np.clip(values, 0, 1), bytes=True)[..., :3], dtype=np.uint8)
