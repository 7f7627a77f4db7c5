"""Studies of folders in which some images have nothing to score: blank pages, black skies, margins."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_core.images.files import write_png

AS_VERSION_0_1 = """
from study.session.goal import Search
Search.max_bicubic_psnr = lambda self, experiment: None
"""
"""What a process runs first for its new study to know no bound for crops."""


def flat(path: Path, *, height: int = 80, dust: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((height, 80, 3), 200, np.uint8)
    if dust:
        image[np.random.default_rng(1).random(image.shape) < 0.01] += 1
    write_png(path, image)


@pytest.fixture
def data(tiny: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.data, tmp_path / "data"))


@pytest.mark.slow
@pytest.mark.parametrize("dust", [False, True])
def test_a_blank_validation_image_gives_no_crop_and_the_study_says_so_and_concludes(
    tiny: Any, data: Path, commands: Any, state_of: Any, tmp_path: Path, dust: bool
) -> None:
    flat(data / "valid/blank.png", dust=dust)
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, trials=3))
    assert (ended.status, ended.err) == (0, "")
    assert "validation images left out, without detail to score: 1 (valid/blank.png)" in ended.out
    state = state_of(tmp_path / "root")
    opened, trial = state.opened, state.trials[0]
    assert opened.data["without_detail"] == ["valid/blank.png"]
    assert opened.data["crops"] == {"count": 4, "pictures": 3, "lr_side": 24, "max_bicubic_psnr": 50.0}
    assert opened.data["baseline"]["val/psnr"] < 50
    assert "valid/blank.png" not in {name for name, _, _ in trial.end.per_image}
    whole = {name: psnr for set_name, name, psnr, _ in state.concluded.per_image if set_name == "valid"}
    assert len(whole) == 4
    assert all(psnr <= 100 for psnr in whole.values())


def test_where_every_validation_image_is_blank_it_is_one_line_before_anything_is_written(
    tiny: Any, data: Path, commands: Any, tmp_path: Path
) -> None:
    shutil.rmtree(data / "valid")
    for number in range(3):
        flat(data / f"valid/{number}.png", height=80 + 2 * number)
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, trials=1))
    assert (ended.status, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("error: no validation image has enough detail (valid/0.png, ")
    assert not (tmp_path / "root").exists()


def test_a_blank_page_in_a_benchmark_does_not_keep_a_study_from_concluding(
    tiny: Any, data: Path, commands: Any, state_of: Any, tmp_path: Path
) -> None:
    flat(data / "pages/HR/blank.png")
    shutil.copy(data / "valid/valid1.png", data / "pages/HR/photo.png")
    experiment = tmp_path / "tiny.py"
    experiment.write_text(tiny.experiment.read_text().replace("replicates=0,", 'replicates=0, benchmarks=("pages",),'))
    argv = ["--experiment", experiment, "--data", data]
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", *argv, trials=3))
    assert (ended.status, ended.err) == (0, "")
    concluded = state_of(tmp_path / "root").concluded
    assert all(np.isfinite(value) for value in concluded.scores.values())
    (blank,) = (psnr for set_name, name, psnr, _ in concluded.per_image if set_name == "pages" and "blank" in name)
    assert blank <= 100


@pytest.mark.slow
def test_a_study_that_recorded_no_bound_goes_on_with_the_crops_that_it_began_with(
    tiny: Any, data: Path, commands: Any, state_of: Any, tmp_path: Path
) -> None:
    """In this process, in processes of their own, when a trial is reproduced, and when it is trained for longer."""
    flat(data / "valid/blank.png", dust=True)
    root = tmp_path / "root"
    where = ("--root", root)
    for trials, more in ((1, {"first": AS_VERSION_0_1}), (3, {}), (4, {})):
        placed = ("--executor", "processes") if trials == 4 else ()
        ended = commands.run("study.run", *tiny.argv(root, "--data", data, *placed, trials=trials), **more)
        assert (ended.status, ended.err) == (0, "")
    state = state_of(root)
    assert "max_bicubic_psnr" not in state.opened.data["crops"]
    names = [[name for name, _, _ in t.end.per_image] for t in state.trials.values() if t.status == "finished"]
    assert len(names) > 1
    assert all("valid/blank.png" in each for each in names)
    assert all(each == names[0] for each in names)
    best = state.best()
    reproduced = commands.run("study.reproduce", best.number, *where)
    assert reproduced.status == 0, reproduced.out + reproduced.err
    trained = commands.run("study.train", best.number, "--patches", 480, *where, "--tracking-uri", "none")
    assert trained.status == 0, trained.err
    journal = root / f"tiny/trainings/{best.number:04d}-480/journal.jsonl"
    opened = json.loads(journal.read_text().splitlines()[0])
    assert "max_bicubic_psnr" not in opened["data"]["crops"]
    assert opened["data"]["baseline"] == state.opened.data["baseline"]


def test_the_question_of_a_study_is_the_same_with_and_without_a_bound(
    tiny: Any, finished: Any, commands: Any, state_of: Any, tmp_path: Path
) -> None:
    argv = tiny.argv(tmp_path / "root", trials=1)
    assert commands.run("study.run", *argv, first=AS_VERSION_0_1).status == 0
    before, now = state_of(tmp_path / "root").opened, finished.state.opened
    assert before.digest == now.digest
    assert before.question == now.question
