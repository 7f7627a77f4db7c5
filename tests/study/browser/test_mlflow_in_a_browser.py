"""MLflow's own pages over a finished study, as users see them: their content, without errors and failed requests.

The last test looks at a quickstart of 50 trials: at that of SR_STUDY (as .ci/run does), or at one that it trains.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import StudyState, fold
from study.tracking.dashboards import free_port, pages, serving, serving_optuna
from study.tracking.databases import default_storage, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow.content import run_name
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.optuna import OptunaSink

pytestmark = pytest.mark.slow

TALL = {"width": 1440, "height": 2700}
"""A window large enough for all rows of MLflow's list, because MLflow renders visible rows only."""
LINES = ".js-line"
"""A curve of Plotly. MLflow draws each twice, once for the mouse pointer."""


@pytest.fixture
def small(story: Callable[..., Any], empty_store: Path) -> StudyFolder:
    """A reference and trials that finished, were pruned and failed. Nothing is trained."""
    told = story().whole()
    folder: StudyFolder = told.folder
    shutil.copy(empty_store, folder.root / "mlflow.db")
    sync(folder.journal, MlflowSink(default_tracking_uri(folder.root), folder))
    return folder


@pytest.fixture
def quickstart(tmp_path: Path) -> StudyFolder:
    """A study of 50 trained trials, with its views."""
    if "SR_STUDY" in os.environ:
        given = Path(os.environ["SR_STUDY"]).resolve()
        return StudyFolder(given.parent, given.name)
    command = [sys.executable, "-m", "study.run", "--trials", "50", "--root", str(tmp_path / "mlruns")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=3600)
    return StudyFolder(tmp_path / "mlruns", "quickstart")


@pytest.fixture
def served() -> Iterator[Callable[[StudyFolder], dict[str, str]]]:
    """served(folder): the links that study.ui prints, on a server that runs as long as the test."""
    with ExitStack() as servers:

        def serve(folder: StudyFolder) -> dict[str, str]:
            uri = default_tracking_uri(folder.root)
            port = free_port("127.0.0.1", None, 6100)
            return pages(servers.enter_context(serving(folder.root, uri, "127.0.0.1", port)), folder)

        yield serve


def rows_of(window: Any) -> list[str]:
    """Returns the text of each row of MLflow's list of runs, from the top."""
    found: list[str] = window.page.evaluate(
        """() => {
            const rows = {};
            const of = (where) => document.querySelectorAll(`.ag-${where}-cols-container .ag-row`);
            for (const part of [...of('pinned-left'), ...of('center')]) {
                const row = part.getAttribute('row-index');
                rows[row] = (rows[row] ?? '') + ' ' + part.innerText.replace(/\\s+/g, ' ');
            }
            const texts = Object.entries(rows).sort(([a], [b]) => a - b).map(([_, text]) => text.trim());
            return texts.map((text) => text.replace(/^#[0-9a-f]{6} /, ''));  // a run's colour comes first
        }"""
    )
    return found


def widths_of_images(window: Any) -> list[int]:
    """Returns the widths of trials' images on the page in pixels, 0 for one that did not load."""
    script = "all => all.map(image => image.complete ? image.naturalWidth : 0)"
    found: list[int] = window.page.locator("img[src*='crop']").evaluate_all(script)
    return found


def look_at_runs(window: Any, links: dict[str, str], study: str, state: StudyState) -> None:
    """Sorted by PSNR, each run shows its rank and study. Sorted by time, the trials lie below their parent."""
    window.page.set_viewport_size(TALL)
    ranking, count = state.ranking(), len(state.trials) + 1
    window.open(links[f"study {study}"])
    window.until(lambda: len(rows_of(window)) == count)
    listed = [row for row in rows_of(window) if " Rank " in row]
    expected = [f"{run_name(trial)} " for trial in ranking]
    told = [f"Rank {rank} of {len(ranking)} in {study}: " for rank in range(1, len(ranking) + 1)]
    assert len(listed) == len(ranking)
    for trial, name, rank in zip(ranking, expected, told, strict=True):
        (row,) = [row for row in listed if row.startswith(name)]
        assert rank in row, f"trial {trial.number}"
    best = state.best()
    assert best is not None
    in_search = [row for row in listed if row.startswith("trial ")]
    assert in_search[0].startswith(run_name(best)), "sorted by PSNR"
    window.page.set_viewport_size({"width": 1440, "height": 900})
    window.keep("mlflow-runs")

    window.page.set_viewport_size(TALL)
    window.page.get_by_text("Sort: val/psnr").click()
    window.page.get_by_role("menuitemcheckbox", name="Created").click()
    window.until(lambda: [row.startswith(f"{study} ") for row in rows_of(window)] == [True])  # closed
    window.page.locator(".ag-row", has_text=study).get_by_role("button").first.click()
    window.until(lambda: len(rows_of(window)) == count)
    for name, rank in zip(expected, told, strict=True):
        assert [row for row in rows_of(window) if row.startswith(name) and rank in row], f"{name}: {rank}"
    window.keep("mlflow-nested")


def look_at_comparison(window: Any, links: dict[str, str], state: StudyState) -> None:
    """The comparison of the best trials shows every param, and the curves of a metric behind its name."""
    window.page.set_viewport_size({"width": 1440, "height": 1300})
    best = [t for t in state.ranking() if t.status == "finished" and not t.is_reference][:3]
    window.open(links[f"the best {len(best)} compared"])
    window.sees(f"Comparing {len(best)} Runs")
    page = window.page
    page.locator(".parcoords").first.wait_for()
    window.keep("mlflow-comparison")
    configs = [trial.config.dotted() for trial in best]
    for name in configs[0]:
        row = page.get_by_role("row", name=re.compile(rf"^{re.escape(name)}\b"))
        assert row.get_by_role("cell").all_inner_texts() == [str(config[name]) for config in configs], name
    page.get_by_role("link", name="val/psnr", exact=True).click()
    window.until(lambda: page.locator(LINES).count() == 2 * len(best))
    for trial in best:
        window.sees(run_name(trial))
    window.keep("mlflow-metric")


def look_at_images(window: Any, links: dict[str, str], state: StudyState) -> None:
    """The curves page shows the ten best trials and loads the same crop of each after the whole training."""
    page = window.page
    page.set_viewport_size({"width": 1440, "height": 1700})
    searched = [t for t in state.ranking() if not t.is_reference][:10]
    window.open(links["curves and images"])
    window.until(lambda: page.locator(LINES).count() == 5 * 2 * len(searched))
    whole = [t for t in searched if t.status == "finished"]
    window.until(lambda: len(widths_of_images(window)) == len(whole) and all(widths_of_images(window)))
    assert len(set(widths_of_images(window))) == 1, "the same crop"
    window.keep("mlflow-pictures")


def look_at_a_run(window: Any, links: dict[str, str], state: StudyState) -> None:
    """A trial's own page draws its curves, and its image grid opens with the image before the training."""
    page = window.page
    best = state.best()
    assert best is not None
    page.set_viewport_size(TALL)
    window.open(links[next(iter(links))])
    page.get_by_role("link", name=run_name(best), exact=True).click()
    page.get_by_role("tab", name="Model metrics").click()
    window.until(lambda: page.locator(LINES).count() >= 5)
    window.until(lambda: widths_of_images(window) and all(widths_of_images(window)))
    assert "step+0+" in page.locator("img[src*='crop']").first.evaluate("image => decodeURIComponent(image.src)")
    window.keep("mlflow-run")


def look_at_the_champion(window: Any, links: dict[str, str], state: StudyState) -> None:
    """The registered model has the alias, and its version links to the winner's run."""
    page = window.page
    page.set_viewport_size({"width": 1440, "height": 900})
    best = state.best()
    assert best is not None
    window.open(links["the champion"])
    window.sees("@ champion")
    window.keep("mlflow-champion")
    page.get_by_role("link", name=re.compile(r"^Version \d+$")).first.click()
    window.sees("Source Run")
    window.sees(run_name(best))
    window.sees("@ champion")


def look_through(window: Any, links: dict[str, str], study: str, state: StudyState) -> None:
    assert len(links) == 4
    look_at_runs(window, links, study, state)
    look_at_comparison(window, links, state)
    look_at_images(window, links, state)
    look_at_a_run(window, links, state)
    look_at_the_champion(window, links, state)
    assert window.wrong == []


def test_a_browser_finds_runs_comparison_images_and_champion_of_a_small_study(
    window: Any, small: StudyFolder, served: Any
) -> None:
    look_through(window, served(small), small.study, fold(read(small.journal)))


def test_a_browser_finds_runs_comparison_images_and_champion_of_a_quickstart(
    window: Any, quickstart: StudyFolder, served: Any
) -> None:
    state = fold(read(quickstart.journal))
    assert state.counted == 50
    look_through(window, served(quickstart), quickstart.study, state)


def test_a_page_with_a_failed_request_does_not_pass(window: Any, small: StudyFolder, served: Any) -> None:
    address = served(small)["the champion"].partition("/#/")[0]
    window.open(f"{address}/#/experiments/999/runs")
    window.until(lambda: any(line.startswith("404 ") for line in window.wrong))


def test_a_browser_finds_the_study_in_optuna_dashboard(window: Any, small: StudyFolder) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs Optuna Dashboard: pip install -e '.[dashboard]'")
    sync(small.journal, OptunaSink(default_storage(small.root)))
    port = free_port("127.0.0.1", None, 6200)
    with serving_optuna(default_storage(small.root), "127.0.0.1", port) as address:
        window.open(address)
        window.page.get_by_text(small.study).first.click()
        window.sees("Hyperparameter Importance")
        window.keep("optuna-dashboard")
        assert window.wrong == []
