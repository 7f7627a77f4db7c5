"""Draws figures into files with Matplotlib's default settings, independent of the user's environment.

Colab and Jupyter set MPLBACKEND for every command, and users may have a `matplotlibrc`. Neither may stop a study at its
end or change the bytes of its report. A figure that fails is only a warning, because numbers and tables matter more.
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
"""Characters that a name may have in a title or a legend; longer names are shortened."""
_MAX_CAUSE_LENGTH = 200
"""Characters that the message of an error may have."""
_WINDOW_SETTINGS = ("backend", "backend_fallback")
"""Settings that file backends do not read. They stay as they are, because a notebook may have chosen them."""
_USER_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")
"""Environment variables with a user's settings for Matplotlib."""


def name_in_figure(name: str) -> str:
    """The name as figures show it: printable, on one line, and shortened to `LONGEST_TITLE`.

    A name that begins with an underscore gets a space in front, because Matplotlib would leave it out of legends.
    """
    text = visible(name, LONGEST_TITLE)
    return f" {text}" if text.startswith("_") else text


def cause(exc: BaseException) -> str:
    """The error's class and message in one line."""
    message = visible(" ".join(str(exc).split()), _MAX_CAUSE_LENGTH)
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def matplotlib() -> ModuleType:
    """Matplotlib, imported even if the environment names a missing backend or a damaged `matplotlibrc`.

    Its settings are those of a plain `import matplotlib`, except illegal ones, so that notebooks keep theirs.

    Raises:
        ImportError: Matplotlib is not installed, or its installation is broken.
    """
    if "matplotlib" in sys.modules:
        return importlib.import_module("matplotlib")  # the module, or the error of a blocked one
    with _quiet():
        with _without_users_choices():
            loaded = importlib.import_module("matplotlib")
        with suppress(Exception):  # the file cannot be read, or has illegal settings
            loaded.rcParams.update(loaded.rc_params_from_file(loaded.matplotlib_fname(), use_default_template=False))
        if backend := os.environ.get("MPLBACKEND"):
            with suppress(Exception):
                loaded.rcParams["backend"] = backend
    return loaded


@contextmanager
def drawing(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw and save figures with Matplotlib's defaults, overridden by `settings`, within this context.

    The previous settings return afterwards. A glyph that the font lacks is drawn as a box, without a warning.
    """
    mpl = matplotlib()
    with _quiet(), np.errstate(all="ignore"), warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore", UserWarning)  # missing glyphs, and labels that need too much room
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # settings that Matplotlib has deprecated
            defaults = {key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if key not in _WINDOW_SETTINGS}
            mpl.rcParams.update(defaults)
        mpl.rcParams["text.parse_math"] = False  # a $ in a user's text is a dollar sign
        mpl.rcParams.update(settings or {})
        yield


def png(figure: "Figure", settings: Mapping[str, Any] | None = None) -> bytes:
    """The figure as a PNG file."""
    with drawing(settings):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, backend="agg")
        return buffer.getvalue()


def svg(figure: "Figure", settings: Mapping[str, Any] | None = None) -> str:
    """The figure as an SVG file, with a transparent background and without its time of creation."""
    with drawing(settings):
        buffer = io.StringIO()
        no_metadata = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata, backend="svg")
        return buffer.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Matplotlib's log within this context: fonts, an unwritable home folder, unused settings."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _without_users_choices() -> Iterator[None]:
    """Hide the user's backend and `matplotlibrc` from Matplotlib while it is imported.

    Matplotlib looks for a `matplotlibrc` in the working directory first. No variable turns that off, and this process
    must not change its directory while other threads run, so `os.path.exists` hides that file.
    """
    spec = importlib.util.find_spec("matplotlib")
    before = {name: os.environ.pop(name, None) for name in _USER_VARIABLES}
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
    """Remove modules of a Matplotlib import that failed earlier, because their settings are out of date.

    Extension modules stay, because they cannot be loaded twice.
    """
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        spec = getattr(sys.modules[name], "__spec__", None)
        if not isinstance(getattr(spec, "loader", None), ExtensionFileLoader):
            del sys.modules[name]
