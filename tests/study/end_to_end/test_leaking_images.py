"""`study.run` on images that train and are held out too."""

import shutil
from pathlib import Path
from typing import Any

from PIL import Image


def leaking(data: Path, to: Path) -> Path:
    shutil.copytree(data, to)
    with Image.open(to / "valid/valid2.png") as image:
        image.save(to / "train/once_more.jpg", quality=75)
    return to


def test_a_leak_stops_the_study_before_anything_of_it_is_there(
    tiny: Any, commands: Any, tree_of: Any, tmp_path: Path
) -> None:
    root, data = tmp_path / "root", leaking(tiny.data, tmp_path / "leaking")
    argv = tiny.argv(root, "--data", data, trials=1)
    for _ in range(2):  # the second time it is known
        ended = commands.run("study.run", *argv)
        assert (ended.status, ended.out) == (2, "")
        (line,) = ended.err.splitlines()
        assert line.startswith("error: ")
        for word in ("train/once_more.jpg", "valid/valid2.png", "--allow-leak"):
            assert word in line
        names = [Path(name).name for name in tree_of(root)]
        assert len(names) == 2 and names[0].startswith(".leaks-") and names[1] == ".pictures.json"
        assert not (root / "tiny").exists()


def test_an_allowed_leak_is_recorded_told_once_and_does_not_stop_the_study_again(
    tiny: Any, commands: Any, state_of: Any, tmp_path: Path
) -> None:
    root, data = tmp_path / "root", leaking(tiny.data, tmp_path / "leaking")
    first = commands.run("study.run", *tiny.argv(root, "--data", data, "--allow-leak", trials=1))
    assert first.status == 0, first.err
    assert (
        first.out.count(
            "warning: training image train/once_more.jpg and held-out image valid/valid2.png of valid show the same"
        )
        == 1
    )
    recorded = ["near duplicate", "train/once_more.jpg", "valid", "valid/valid2.png"]
    assert state_of(root).opened.data["leaks"] == [recorded]
    for kept in (root / "stores").glob(".leaks-*.json"):
        kept.unlink()
    on = commands.run("study.run", *tiny.argv(root, "--data", data, trials=2))
    assert on.status == 0, on.err
    assert "warning" not in on.out
    assert not list((root / "stores").glob(".leaks-*.json")), "an open study compares nothing"


def test_a_study_without_leaks_records_that_there_are_none(finished: Any) -> None:
    assert finished.state.opened.data["leaks"] == []
    assert len(list((finished.root / "stores").glob(".leaks-*.json"))) == 1
