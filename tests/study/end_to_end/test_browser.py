"""A real browser on a real MLflow server over a finished study: what people see, without one error or failed request.

Screenshots go to the folder that SCREENSHOTS names, else to the test's own. With STUDY_ROOT (and STUDY_NAME) another
finished study is looked at, such as a quickstart.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from study.dashboards import free_port, pages, serving, serving_optuna
from study.databases import default_storage, default_tracking_uri
from study.folder import StudyFolder
from study.journal import read
from study.state import fold

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
    pytest.mark.skipif(sys.platform != "linux", reason="Debian's Chromium"),
]
PATIENCE_MS = 90_000


class Window:
    """A browser page that remembers what went wrong on it."""

    def __init__(self, page: Any, screenshots: Path) -> None:
        self.page, self._screenshots = page, screenshots
        self.wrong: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", lambda said: self.wrong.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("response", lambda got: self.wrong.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.on("requestfailed", self._failed)

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself gave it up, as when it moves on
            self.wrong.append(f"{request.failure} {request.url}")

    def open(self, url: str) -> None:
        """Go there, anew even where only the part behind # differs, and wait until all has come."""
        self.page.goto("about:blank")
        self.page.goto(url)
        self.page.wait_for_load_state("networkidle")

    def sees(self, text: str | re.Pattern[str]) -> None:
        self.page.get_by_text(text).first.wait_for(state="visible")

    def keep(self, name: str) -> None:
        """A screenshot, with no banner of an error on it."""
        for banner in ("Something went wrong", "Error loading", "Failed to", "Internal Server Error"):
            assert self.page.get_by_text(banner).count() == 0, banner
        self._screenshots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._screenshots / f"{name}.png")


@contextmanager
def browser(screenshots: Path) -> Iterator[Window]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = Window(chromium.new_page(viewport={"width": 1440, "height": 900}), screenshots)
        yield window
        chromium.close()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> StudyFolder:
    if "STUDY_ROOT" in os.environ:
        return StudyFolder(Path(os.environ["STUDY_ROOT"]).resolve(), os.environ.get("STUDY_NAME", "quickstart"))
    copied: StudyFolder = request.getfixturevalue("finished_copy").folder
    return copied


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS", tmp_path / "screenshots"))


def test_a_browser_shows_runs_comparison_pictures_and_champion_without_an_error(
    folder: StudyFolder, screenshots: Path
) -> None:
    state = fold(read(folder.journal))
    best, count = state.best(), len(state.trials)
    assert best is not None
    uri = default_tracking_uri(folder.root)
    with (
        serving(folder.root, uri, "127.0.0.1", free_port("127.0.0.1", None)) as address,
        browser(screenshots) as window,
    ):
        links, page = pages(address, folder), window.page
        assert list(links) == [
            f"study {folder.study}",
            "the best 3 compared",
            "their curves and pictures",
            "the champion",
        ]
        window.open(links[f"study {folder.study}"])
        window.sees(f"trial {best.number:04d}")
        window.sees(re.compile(rf"^{count + 1} matching runs$|^{count + 1} runs$"))
        window.keep("mlflow-runs")
        shown = page.inner_text("body")
        assert "study.rank" in shown and "val/psnr" in shown and folder.study in shown

        window.open(links["the best 3 compared"])
        window.sees("Comparing 3 Runs")
        window.sees("model.temperature")
        window.keep("mlflow-comparison")

        window.open(links["their curves and pictures"])
        window.sees("Image grid")
        page.get_by_text("Image grid").first.scroll_into_view_if_needed()
        images = page.locator("img[src*='images'], img[src^='blob:']")
        images.first.wait_for(state="visible")
        window.keep("mlflow-pictures")
        assert images.count() >= 3

        window.open(links["the champion"])
        window.sees("champion")
        window.keep("mlflow-champion")
        assert window.wrong == []


def test_a_browser_shows_the_study_in_optuna_dashboard(folder: StudyFolder, screenshots: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs Optuna Dashboard: pip install -e '.[dashboard]'")
    storage = default_storage(folder.root)
    with (
        serving_optuna(storage, "127.0.0.1", free_port("127.0.0.1", None)) as address,
        browser(screenshots) as window,
    ):
        window.open(address)
        window.sees(re.compile(folder.study))
        window.keep("optuna-dashboard")
        assert window.wrong == []
