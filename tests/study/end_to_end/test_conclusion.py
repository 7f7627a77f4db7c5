"""The end of a study: numbers first, figures if they can be drawn, whatever the environment and the names."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.record import events as ev
from study.record.journal import read
from study.record.state import fold

ACUTE = os.fsdecode(b"caf\xe9")
BROKEN = "from study import plots\ndef broken(*_, **__): raise MemoryError('no room')\nplots.{} = broken\n"
WITHOUT_MATPLOTLIB = "import sys\nsys.modules['matplotlib'] = None\n"
WHOLE = {"best/config.json", "best/weights.safetensors", "comparison.png", "curves.png", "ranking.csv"}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "settings"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, b""),
        ({"MPLBACKEND": "nonsense"}, b"text.usetex: True\nfont.size: 40\nbackend: nonsense\n"),
        ({"MPLCONFIGDIR": "/proc/nowhere", "HOME": "/proc/nowhere"}, b"\xe9\n"),
    ],
)
def test_a_study_concludes_and_reports_whatever_matplotlib_is_told(
    environment: Mapping[str, str], settings: bytes, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(settings)
    argv = tiny.argv(tmp_path / "root", trials=3)
    ended = commands.start("study.run", *argv, env=environment, cwd=tmp_path).wait()
    assert (ended.status, ended.err) == (0, "")
    assert files_below(tmp_path / "root" / "tiny" / "results") >= WHOLE
    pages = []
    for place, told in ((tmp_path, environment), (tmp_path / "root", {})):
        where = ("--root", tmp_path / "root", "--study-name", "tiny")
        ended = commands.start("study.report", *where, env=told, cwd=place).wait()
        assert (ended.status, ended.err) == (0, "")
        pages.append((tmp_path / "root" / "tiny" / "report" / "report.html").read_bytes())
    assert pages[0] == pages[1], "the same journal gives the same page"


@pytest.mark.slow
def test_images_whose_names_are_not_utf8_are_concluded_reported_exported_and_published(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "data")
    for number, path in enumerate(sorted((data / "valid").iterdir())):
        path.rename(path.with_name(f"{ACUTE}{number}{path.suffix}"))
    first = min((data / "train").iterdir())
    first.rename(first.with_name(f"{ACUTE}\n$x_y${first.suffix}"))
    root = tmp_path / "root"
    argv = ["--experiment", tiny.experiment, "--data", data, "--root", root, "--trials", 3]
    where = ("--root", root, "--study-name", "tiny")
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    assert files_below(root / "tiny" / "results") >= WHOLE
    assert all(ACUTE in name for _, name, *_ in state_of(root).concluded.per_image), "the journal keeps the names"
    for command, more in (
        ("study.report", ()),
        ("study.status", ()),
        ("study.sync", ("--publish", tmp_path / "published")),
        ("study.reproduce", ("best", "--export", tmp_path / "exported")),
    ):
        ended = commands.run(command, *more, *where)
        assert (ended.status, ended.err) == (0, ""), command
    page = (root / "tiny" / "report" / "report.html").read_text("utf-8")
    assert "caf\\xe90" in page
    scenes = pd.read_csv(root / "tiny" / "report" / "figures" / "scenes.csv")
    assert scenes["picture"].str.contains("caf\\xe9", regex=False).all()
    assert "caf\\xe90" in (tmp_path / "exported" / "pictures.csv").read_text("utf-8")
    assert not any("mlflow" in line and "not up to date" in line for line in ended.out.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "gone"),
    [
        (BROKEN.format("learning_curves"), {"curves.png"}),
        (BROKEN.format("comparison"), {"comparison.png"}),
        (WITHOUT_MATPLOTLIB, {"curves.png", "comparison.png"}),
    ],
)
def test_a_figure_that_fails_is_a_warning_and_the_same_command_draws_it_later(
    first: str, gone: set[str], tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    argv = tiny.argv(tmp_path / "root", trials=3)
    results = tmp_path / "root" / "tiny" / "results"
    ended = commands.run("study.run", *argv, first=first)
    assert (ended.status, ended.err) == (0, "")
    warnings = [line for line in ended.out.splitlines() if "could not be made" in line]
    assert [line.split()[1] for line in warnings] == sorted(gone, reverse=True)
    assert all("MemoryError: no room" in line or "ModuleNotFoundError: " in line for line in warnings)
    concluded = state_of(tmp_path / "root").concluded
    assert files_below(results) >= WHOLE - gone and not files_below(results) & gone
    assert {f"results/{name}" for name in files_below(results)} == set(concluded.files)
    assert {f"results/{name}" for name in gone} == set(concluded.missing)

    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "") and "could not be made" not in ended.out
    assert files_below(results) >= WHOLE
    count = state_of(tmp_path / "root").count
    assert commands.run("study.run", *argv).status == 0
    assert state_of(tmp_path / "root").count == count, "a whole conclusion is not drawn again"


def test_without_matplotlib_the_report_is_a_page_whose_figures_are_lines(
    finished: Any, commands: Any, tmp_path: Path
) -> None:
    where = ("--root", finished.root, "--study-name", "tiny", "--out", tmp_path)
    ended = commands.run("study.report", *where, first=WITHOUT_MATPLOTLIB)
    assert ended.status == 0
    told = [line for line in ended.err.splitlines() if line.startswith("warning: The figure ")]
    assert len(told) >= 4 and len(ended.err.splitlines()) == len(told) + 1, "the error maps have a line of their own"
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "The figure history could not be drawn (ModuleNotFoundError: " in page
    assert (tmp_path / "figures" / "history.csv").is_file() and not (tmp_path / "figures" / "history.png").exists()
    assert "How to reproduce" in page


def test_importances_that_fail_are_a_warning(tiny: Any, commands: Any, tmp_path: Path) -> None:
    first = "from study.statistics import importance\nimportance.measure_importances = None\n"
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", trials=3), first=first)
    assert (ended.status, ended.err) == (0, "")
    assert "warning: importance.csv could not be made (TypeError: " in ended.out
    assert files_below(tmp_path / "root" / "tiny" / "results") >= WHOLE


def test_numbers_are_on_the_disk_before_a_figure_is_drawn(tiny: Any, commands: Any, tmp_path: Path) -> None:
    first = "import os\nfrom study import plots\nplots.learning_curves = lambda *_, **__: os._exit(9)\n"
    assert commands.run("study.run", *tiny.argv(tmp_path / "root", trials=3), first=first).status == 9
    assert files_below(tmp_path / "root" / "tiny" / "results") >= WHOLE - {"curves.png", "comparison.png"}


def test_a_conclusion_recorded_before_figures_could_be_missing_has_none_missing(finished: Any) -> None:
    concluded = fold(read(finished.folder.journal)).concluded
    assert concluded is not None
    stored = ev.to_json(concluded)
    assert "missing" not in stored
    assert ev.from_json(stored) == concluded
