"""The report as a colleague opens it: in a real browser, from the disk, with the network off."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason='needs playwright: pip install -e ".[test]"')
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium, or set CHROMIUM"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(made: Path) -> str:
    return (made / "report.html").as_uri()


class Visit:
    """The report in a window of some width, with all that went wrong."""

    def __init__(self, browser: Browser, address: str, width: int, **settings: Any) -> None:
        self._context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **settings)
        self.page: Page = self._context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url[:80]}"))
        self.page.on("request", lambda request: self.requests.append(request.url[:40]))
        self.page.goto(address)

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Any]:
    made: list[Visit] = []

    def open_(width: int, **settings: Any) -> Visit:
        made.append(Visit(browser, address, width, **settings))
        return made[-1]

    yield open_
    for one in made:
        one.close()


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_drawn_and_nothing_goes_wrong(visit: Any, width: int, scheme: str) -> None:
    seen = visit(width, color_scheme=scheme)
    images = seen.page.evaluate("[...document.images].map((i) => [i.alt, i.complete && i.naturalWidth, i.clientWidth])")
    assert len(images) > 20
    assert [alt for alt, natural, shown in images if not natural or not shown] == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width  # the page itself never scrolls sideways
    assert seen.problems == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []


def test_dark_and_light_pages_have_readable_text_in_their_figures(visit: Any) -> None:
    pixel = """async () => {
      const image = document.querySelector("#history figure img"), canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const data = context.getImageData(0, 0, canvas.width, canvas.height).data, shades = [];
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) shades.push(data[i] + data[i + 1] + data[i + 2]);
      return [Math.min(...shades), Math.max(...shades)];
    }"""
    light, dark = visit(1440, color_scheme="light"), visit(1440, color_scheme="dark")
    assert light.page.evaluate(pixel)[0] < 120  # ink is nearly black on light paper
    assert dark.page.evaluate(pixel)[1] > 640  # and nearly white on dark
    for seen in (light, dark):
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(253, 253, 253)" if seen is light else "rgb(21, 24, 28)"
        )


def test_the_slider_moves_the_divider_by_keyboard_and_by_pointer(visit: Any) -> None:
    page = visit(1440).page
    scene = page.locator(".scene").first
    slider, over = scene.locator("input[type=range]"), scene.locator(".stage img").nth(1)

    def covered() -> float:
        clip = over.evaluate("(image) => image.style.clipPath")  # inset(0px 0px 0px 96px), or inset(0px)
        return float(re.findall(r"[\d.]+", clip)[-1])

    middle = covered()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert covered() > middle
    page.keyboard.press("Home")
    assert covered() == 0
    scene.locator(".window").scroll_into_view_if_needed()
    divider = scene.locator(".divider").bounding_box()
    window = scene.locator(".window").bounding_box()
    page.mouse.move(divider["x"] + divider["width"] / 2 + 2, window["y"] + 40)
    page.mouse.down()
    page.mouse.move(window["x"] + window["width"] / 2, window["y"] + 40, steps=4)
    page.mouse.up()
    assert abs(covered() - middle) <= 4
    assert abs(float(slider.input_value()) - 50) <= 1


def test_the_zoom_enlarges_pixels_and_goes_to_the_details(visit: Any) -> None:
    page = visit(1440).page
    scene = page.locator(".scene").first
    width = int(scene.get_attribute("data-width"))
    stage = scene.locator(".stage")
    for factor in (1, 4, 8):
        scene.get_by_role("button", name=f"{factor}×").click()
        assert stage.bounding_box()["width"] == width * factor
    assert stage.locator("img").first.evaluate("(i) => getComputedStyle(i).imageRendering") == "pixelated"
    x, y, side = (int(n) for n in scene.get_attribute("data-boxes").split(";")[0].split(","))
    scene.get_by_role("button", name="detail 1").click()
    view = scene.locator(".window").evaluate("(w) => [w.scrollLeft, w.scrollTop, w.clientWidth, w.clientHeight]")
    assert view[0] <= 4 * x + 1 and 4 * (x + side) <= view[0] + view[2] + 1
    assert view[1] <= 4 * y + 1 and 4 * (y + side) <= view[1] + view[3] + 1


def test_any_two_versions_can_be_compared(visit: Any) -> None:
    page = visit(1440).page
    scene = page.locator(".scene").first
    left = scene.get_by_role("combobox", name="left image")
    assert left.locator("option").first.inner_text() == "LR"
    left.select_option(label="HR")
    under = scene.locator(".stage img").first
    assert under.get_attribute("alt") == "left: HR"
    assert under.get_attribute("src") == scene.locator(".versions img[data-version=HR]").get_attribute("src")


def test_the_divider_follows_a_finger(visit: Any) -> None:
    page = visit(390, has_touch=True, is_mobile=True).page
    scene = page.locator(".scene").first
    scene.scroll_into_view_if_needed()
    moved = scene.locator(".divider").evaluate("""(divider) => {
      const frame = divider.closest(".window").getBoundingClientRect(), y = frame.top + 20;
      const send = (kind, x) => divider.dispatchEvent(new PointerEvent(kind, {
        pointerId: 1, pointerType: "touch", isPrimary: true, clientX: x, clientY: y, bubbles: true }));
      divider.setPointerCapture = () => {};
      divider.hasPointerCapture = () => true;
      send("pointerdown", frame.left + frame.width / 2);
      send("pointermove", frame.left + frame.width / 4);
      return divider.closest(".scene").querySelector("input[type=range]").value;
    }""")
    assert abs(float(moved) - 25) <= 2
    assert scene.locator(".divider").evaluate("(d) => getComputedStyle(d).touchAction") == "none"  # the page stays


def test_a_heading_sorts_the_ranking_and_settings_can_be_shown(visit: Any) -> None:
    page = visit(1440).page
    rows = page.locator("#ranking tbody tr")

    def column(name: str) -> list[str]:
        heads = page.locator("#ranking thead th").all_inner_texts()
        place = next(i for i, head in enumerate(heads) if head.startswith(name))
        return [row.locator("> *").nth(place).inner_text() for row in rows.all()]

    best = column("PSNR")
    page.get_by_role("button", name="PSNR [dB]").click()
    ascending = [float(v) for v in column("PSNR") if v]
    assert ascending == sorted(ascending)
    page.get_by_role("button", name="PSNR [dB]").click()
    assert [float(v) for v in column("PSNR") if v] == ascending[::-1]
    assert sorted(best) == sorted(column("PSNR"))
    page.get_by_role("button", name="loss", exact=True).click()
    assert column("loss") == sorted(column("loss"), key=lambda loss: (loss == "", loss))


def test_the_page_reads_without_its_script(visit: Any) -> None:
    page = visit(390, java_script_enabled=False).page
    assert page.locator("h1").inner_text().startswith("Which loss")
    assert page.locator(".scene .versions img").count() >= 5
    assert not page.get_by_text("Click a heading to sort").is_visible()


def test_a_link_of_the_contents_leads_to_its_section(visit: Any) -> None:
    page = visit(1440).page
    page.get_by_role("link", name="Cost", exact=True).click()
    section = page.locator("#cost")
    for _ in range(50):  # the page scrolls smoothly
        top = section.evaluate("(s) => s.getBoundingClientRect().top")
        if abs(top) < 60:
            break
        page.wait_for_timeout(100)
    assert abs(top) < 60


def test_the_numbers_of_a_figure_are_saved_from_the_page(visit: Any, made: Path) -> None:
    page = visit(1440).page
    with page.expect_download() as download:
        page.get_by_role("link", name="save history.csv").click()
    assert download.value.suggested_filename == "history.csv"
    assert Path(download.value.path()).read_bytes() == (made / "figures" / "history.csv").read_bytes()
