"""A real browser that remembers what went wrong on the pages it saw, and the studies it is shown.

SR_STUDY names the folder of a finished study of 50 trials, such as mlruns/quickstart, that is to be looked at;
SR_SCREENSHOTS names a folder for the images of its pages, else they stay in the test's own.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_MS = 120_000
CHROMIUM = shutil.which("chromium")
NOT_OURS = (
    # MLflow asks who is logged in, even if its server has no users (mlflow.server.auth).
    re.compile(r"404 .*/mlflow/users/current$"),
    # Chromium's remark that a page laid itself out once more; it is not an error.
    re.compile(r"ResizeObserver loop completed"),
)


class Window:
    """A page of the browser, and the errors on it."""

    def __init__(self, page: Any, screenshots: Path) -> None:
        self.page, self._screenshots = page, screenshots
        self.wrong: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self._note(f"error: {error}"))
        page.on("console", self._said)
        page.on("response", lambda got: self._note(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.on("requestfailed", self._failed)

    def _note(self, what: str) -> None:
        if not any(known.search(what) for known in NOT_OURS):
            self.wrong.append(what)

    def _said(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):  # a response tells more
            self._note(f"console: {message.text}")

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself gave it up, as when it moves on
            self._note(f"{request.failure} {request.url}")

    def open(self, url: str) -> None:
        """Opens an address. Loads the page again even if only the fragment differs."""
        self.page.goto("about:blank")
        self.page.goto(url)

    def sees(self, text: str | re.Pattern[str]) -> None:
        """Waits until a text is visible."""
        self.page.get_by_text(text).filter(visible=True).first.wait_for()

    def until(self, holds: Callable[[], object]) -> None:
        """Waits until a condition holds on the page."""
        for _ in range(PATIENCE_MS // 200):
            if holds():
                return
            self.page.wait_for_timeout(200)
        pytest.fail(f"waited {PATIENCE_MS // 1000} s in vain; on the page: {self.page.inner_text('body')[:2000]}")

    def keep(self, name: str) -> None:
        """Takes a screenshot. The page must not show an error banner."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._screenshots / f"{name}.png")
        said = self.page.inner_text("body")
        for banner in ("Something went wrong", "Error loading", "Failed to", "Internal Server Error", "Page Not Found"):
            assert banner not in said


@contextmanager
def browser(screenshots: Path) -> Iterator[Window]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[test]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = chromium.new_page(viewport={"width": 1440, "height": 1000})
            # MLflow's assistant covers a third of the page when it is shown for the first time.
            opened = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
            page.add_init_script(f"if (location.protocol !== 'about:') {opened}")
            yield Window(page, screenshots)
        finally:
            chromium.close()


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    """A browser of 1440 by 1000 pixels."""
    screenshots = os.environ.get("SR_SCREENSHOTS")
    with browser(Path(screenshots).resolve() if screenshots else tmp_path / "screenshots") as made:
        yield made
