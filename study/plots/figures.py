"""The one place that draws: figures come from Matplotlib's own defaults and go to files, whatever the environment says.

Colab and Jupyter set MPLBACKEND for every command, and people keep a `matplotlibrc`. Neither may stop a study at its
end, nor change the bytes of its report. And a figure that fails is a warning: numbers and tables matter more.
"""

import importlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_core.process.names import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_TITLE = 60
"""Characters of a name in a title or a legend."""
_LONGEST_CAUSE = 200
_OF_THE_WINDOW = ("backend", "backend_fallback")
"""Settings that no file backend reads; setting them would touch a notebook's choice."""
_USERS_CHOICES = ("MPLBACKEND", "MATPLOTLIBRC")


def name_in_figure(name: str) -> str:
    """A name as figures show it: printable, on one line, not too long.

    It begins with a space if it begins with an underscore, because Matplotlib leaves such a name out of legends.
    """
    text = visible(name, LONGEST_TITLE)
    return f" {text}" if text.startswith("_") else text


def cause(exc: BaseException) -> str:
    """What went wrong, in one line: the error's class and message."""
    message = visible(" ".join(str(exc).split()), _LONGEST_CAUSE)
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def matplotlib() -> ModuleType:
    """Matplotlib, imported even if the environment names a backend that is not there or a damaged `matplotlibrc`.

    Its settings are those of a plain `import matplotlib` as far as they are legal, so that notebooks keep theirs.

    Raises:
        ImportError: it is not installed, or its installation is broken.
    """
    if "matplotlib" in sys.modules:
        return importlib.import_module("matplotlib")  # as it is, or the error of one that is blocked
    with _quiet():
        with _without_users_choices():
            loaded = importlib.import_module("matplotlib")
        with suppress(Exception):  # a file that cannot be read, or that says what is not legal
            loaded.rcParams.update(loaded.rc_params_from_file(loaded.matplotlib_fname(), use_default_template=False))
        if backend := os.environ.get("MPLBACKEND"):
            with suppress(Exception):
                loaded.rcParams["backend"] = backend
    return loaded


@contextmanager
def drawing(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within this context figures are made and saved from Matplotlib's own defaults, and then from `settings`.

    Afterwards its settings are what they were. A glyph that the font lacks is a box, and no warning.
    """
    mpl = matplotlib()
    with _quiet(), np.errstate(all="ignore"), warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", UserWarning)  # glyphs that are not there, labels that need too much room
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # settings that Matplotlib is about to drop
            defaults = {key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if key not in _OF_THE_WINDOW}
            mpl.rcParams.update(defaults)
        mpl.rcParams["text.parse_math"] = False  # a user's $ is a dollar
        mpl.rcParams.update(settings or {})
        yield


def png(figure: "Figure", settings: Mapping[str, Any] | None = None) -> bytes:
    """The figure as a PNG file."""
    with drawing(settings):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, backend="agg")
        return buffer.getvalue()


def svg(figure: "Figure", settings: Mapping[str, Any] | None = None) -> str:
    """The figure as an SVG file without the time at which it was made, its background left out."""
    with drawing(settings):
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, backend="svg")
        return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """No line from Matplotlib's log: about fonts, a home that cannot be written, settings that are not used."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _without_users_choices() -> Iterator[None]:
    """For the import alone: no backend from the environment, and no `matplotlibrc` but Matplotlib's own.

    It looks for one in the working directory first, and no variable turns that off; nor may this process change its
    directory while other threads run.
    """
    spec = importlib.util.find_spec("matplotlib")
    before = {name: os.environ.pop(name, None) for name in _USERS_CHOICES}
    if spec is not None and spec.origin is not None:
        os.environ["MATPLOTLIBRC"] = str(Path(spec.origin).with_name("mpl-data") / "matplotlibrc")
    _forget_half_imported()
    exists = os.path.exists
    os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
    try:
        yield
    finally:
        os.path.exists = exists
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _forget_half_imported() -> None:
    """Remove what an import that failed earlier left: its modules know settings that nothing else knows."""
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        spec = getattr(sys.modules[name], "__spec__", None)
        if not isinstance(getattr(spec, "loader", None), ExtensionFileLoader):  # those cannot be loaded twice
            del sys.modules[name]
