"""Figures: the same whatever the environment says, whatever a name holds, and never the end of anything."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.dom import minidom

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study import plots
from study.plots import figures
from study.report import drawing as report_drawing
from study.report.drawing import canvas, coloured, draw_figure, figure_html
from study.report.markup import element

HOSTILE = [
    "caf\udce9.png",
    "$x_y$ \\alpha % {x} ^",
    "two\nlines\r\x00\x01\x1b[31m",
    "日本 😀",
    "\u202eשלום",
    "_hidden",
    "x" * 5000,
    "\ufffe\uffff\ud800",
]
LOAD = """
import os, sys
before = dict(os.environ)
if sys.argv[1:] == ["after a failed import"]:
    try:
        import matplotlib
    except ValueError:
        pass
from study.plots import figures
with figures.drawing():
    from matplotlib.figure import Figure
    figure = Figure()
    figure.subplots().plot([1, 2])
    print(len(figures.png(figure)))
import matplotlib
print(matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"], "matplotlib.pyplot" in sys.modules)
print({name for name in os.environ if before.get(name) != os.environ[name]} <= {"MPLCONFIGDIR"})
"""


def curves(name: str) -> pd.DataFrame:
    rows = [(0, "", "finished", 10 * i, 20.0 + i) for i in (1, 2)] + [(1, name, "finished", 10, 20.0)]
    table = pd.DataFrame(rows, columns=["trial", "name", "state", "patches", "val/psnr"], dtype=object)
    return table.astype({"patches": int, "val/psnr": float})


def a_line() -> Figure:
    figure, axes = canvas(4, 3)
    axes.plot([1, 2], [3, 4], label="a $ and a _")
    axes.set_title("日本")
    figure.legend()
    return figure


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_any_characters_is_drawn_without_a_warning_in_png_and_svg(name: str) -> None:
    figure = plots.learning_curves(curves(name), best=0, bicubic_psnr=19.0)
    assert figures.png(figure).startswith(b"\x89PNG")
    minidom.parseString(figures.svg(figure))
    (text,) = [t.get_text() for t in figure.legends[0].get_texts() if t.get_text().startswith("reference: ")]
    assert text.isprintable() and len(text) < 100


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_any_characters_stands_in_a_page_that_utf8_can_hold(name: str) -> None:
    html = element("p", name, title=name)
    html.encode()
    assert not any(ord(c) < 32 and c not in "\n\t" for c in html)


def test_more_references_than_colours_are_drawn() -> None:
    rows = [(number, f"r{number}", "finished", 10, 20.0) for number in range(40)]
    table = pd.DataFrame(rows, columns=["trial", "name", "state", "patches", "val/psnr"])
    figure = plots.learning_curves(table, best=0, bicubic_psnr=19.0)
    assert len(figure.axes[0].lines) == 40 + 2


@pytest.mark.parametrize("shape", [(2, 2), (2, 300), (300, 2), (96, 96)])
def test_images_of_any_shape_are_compared(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    box = plots.most_gained(image, image, image, 96)
    figure = plots.comparison({"a": (image, float("inf")), "b": (image, None)}, box=box, title=HOSTILE[0][:3])
    assert figures.png(figure).startswith(b"\x89PNG")


def test_settings_of_the_process_change_no_byte_of_a_figure_and_stay_as_they_are() -> None:
    expected = draw_figure("line", "", a_line)
    mine = {"font.size": 31, "text.usetex": True, "savefig.bbox": "tight", "savefig.format": "pdf", "figure.dpi": 17,
            "axes.grid": True, "lines.linewidth": 9, "svg.fonttype": "none"}  # fmt: skip
    with mpl.rc_context(mine):
        before = dict(mpl.rcParams)
        found = draw_figure("line", "", a_line)
        assert dict(mpl.rcParams) == before
    assert found == expected and found.image.startswith(b"<svg") and not found.fault


def test_an_experiment_that_makes_numpy_raise_does_not_stop_a_figure() -> None:
    with np.errstate(all="raise"), figures.drawing():
        assert np.float64(1) / np.float64(0) == np.inf


@pytest.mark.parametrize(
    ("backend", "settings", "before"),
    [
        ("module://matplotlib_inline.backend_inline", b"", ""),
        ("nonsense", b"", "after a failed import"),
        ("nonsense", b"\xe9", ""),
        ("tkagg", b"text.usetex: True\nfont.size: 31\nbackend: nonsense\nbroken\n", ""),
    ],
)
def test_matplotlib_is_loaded_whatever_the_environment_says(
    backend: str, settings: bytes, before: str, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(settings)
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(Path(figures.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-c", LOAD, *filter(None, [before])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    size, mine, untouched = done.stdout.splitlines()
    assert int(size) > 1000
    expected = "31.0 True False" if settings.startswith(b"text") else "10.0 False False"
    assert (mine, untouched) == (expected, "True"), "a notebook keeps its own settings"


@pytest.mark.parametrize("error", [ValueError("no\nroom"), MemoryError(), ImportError("no ft2font")])
def test_a_figure_that_cannot_be_drawn_is_a_line_with_its_numbers(error: Exception) -> None:
    def broken() -> Figure:
        raise error

    found = draw_figure("line", "a,b\n1,2\n", broken)
    assert found.files == {"figures/line.csv": b"a,b\n1,2\n"}
    assert f"The figure line could not be drawn ({figures.cause(error)})." in figure_html(found, alt="", caption="")
    assert "text/csv" in figure_html(found, alt="", caption="")


def test_without_matplotlib_a_figure_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = draw_figure("line", "a\n", a_line)
    assert "could not be drawn (ModuleNotFoundError: " in found.fault
    with pytest.raises(ImportError):
        coloured(np.zeros((2, 2)))


def test_a_cause_is_one_short_line() -> None:
    assert figures.cause(ValueError("a\n  b\x00")) == "ValueError: a b\\x00"
    assert figures.cause(MemoryError()) == "MemoryError"
    assert len(figures.cause(OSError("x" * 9000))) < 300


def test_the_report_draws_with_the_same_function_as_everything_else() -> None:
    used: Any = vars(report_drawing)
    assert used["png"] is figures.png and used["svg"] is figures.svg and used["drawing"] is figures.drawing
