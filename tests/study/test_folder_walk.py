"""One folder that holds what users' folders hold, walked by every command that takes one."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.quickstart import EXPERIMENT
from sr_core import evaluate, prepare, upscale
from sr_core.errors import ImageError
from sr_core.images.files import write_png
from sr_core.store.hdf5 import load_store
from study.session.opening import find_images, read_images

WEIGHTS = Path(__file__).parents[2] / "experiments/released/a2n_small_x2/weights.safetensors"


def pixels(name: str, height: int = 26, width: int = 22) -> np.ndarray:
    return np.random.default_rng(list(os.fsencode(name))).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(path: Path, height: int = 26, width: int = 22) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, pixels(path.name, height, width))


def saved_as(suffix: str, kind: str) -> Callable[[Path], None]:
    return lambda folder: PIL.Image.fromarray(pixels(suffix)).save(folder / f"as_{kind}{suffix}", kind)


def linked_folder(folder: Path) -> None:
    png(folder.parents[1] / "elsewhere" / "seen_twice.png")
    (folder / "linked").symlink_to(folder.parents[1] / "elsewhere")


def linked_file(folder: Path) -> None:
    png(folder.parents[1] / "elsewhere2" / "target.png")
    (folder / "link.png").symlink_to(folder.parents[1] / "elsewhere2" / "target.png")


def truncated(folder: Path) -> None:
    png(folder / "m_truncated.png")
    (folder / "m_truncated.png").write_bytes((folder / "m_truncated.png").read_bytes()[:-60])


def transparent(folder: Path) -> None:
    write_png(folder / "n_transparent.png", np.dstack([pixels("n"), np.full((26, 22), 9, np.uint8)]))


def pair(folder: Path) -> None:
    png(folder / "s_SRF_2_HR.png")
    png(folder / "s_SRF_2_LR.png", 13, 11)


def lr_beside(folder: Path) -> None:
    png(folder / "ax2.png", 13, 11)


# Each case: what makes it, the images it adds for evaluation and training, for upscale, and what is left out there.
GOOD: dict[str, tuple[Callable[[Path], None], int]] = {
    "jfif": (saved_as(".jfif", "JPEG"), 1),
    "jpe": (saved_as(".JPE", "MPO"), 1),
    "webp": (saved_as(".webp", "WEBP"), 1),
    "tiff": (saved_as(".tif", "TIFF"), 1),
    "folder named as an image": (lambda folder: png(folder / "x.png" / "y.png"), 1),
    "name that is not UTF-8": (lambda folder: png(folder / "caf\udce9.png"), 1),
    "linked file": (linked_file, 1),
    "documents": (lambda folder: (folder / "notes.txt").touch(), 0),
    "empty folder": (lambda folder: (folder / "nothing.png").mkdir(), 0),
    "Finder's file": (lambda folder: (folder / "._a.png").touch(), 0),
}
LEFT_OUT: dict[str, tuple[Callable[[Path], None], str]] = {
    "GIF": (lambda folder: (folder / "g.GIF").touch(), "GIF file"),
    "HEIC": (lambda folder: (folder / "h.heic").touch(), "HEIC file"),
    "hidden": (lambda folder: png(folder / ".hidden.png"), "hidden image"),
    "hidden folder": (lambda folder: png(folder / ".cache" / "i.png"), "hidden image"),
    "linked folder": (linked_folder, "linked folder"),
    "dangling link of no image": (lambda folder: (folder / "disk").symlink_to("gone"), "broken link"),
}
PAIRED: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "LR folder": (lambda folder: png(folder / "LR_bicubic" / "X2" / "ax2.png", 13, 11), 0, "LR folder"),
    "pair": (pair, 1, "LR or result image"),
    "LR next to an image": (lr_beside, 0, "LR or result image"),
}
UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "dangling link": (lambda folder: (folder / "j_dangling.png").symlink_to("gone.png"), "j_dangling.png"),
    "pipe": (lambda folder: os.mkfifo(folder / "k_pipe.png"), "k_pipe.png"),
}
UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (lambda folder: (folder / "l_empty.png").touch(), "l_empty.png"),
    "truncated": (truncated, "m_truncated.png"),
    "transparent": (transparent, "n_transparent.png"),
}
CASES = [*GOOD, *LEFT_OUT, *PAIRED, *UNUSABLE, *UNREADABLE]


def run(main: Callable[[list[str]], int], *argv: object) -> tuple[int, str, list[str]]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([*map(str, argv)])
    return status, out.getvalue(), err.getvalue().splitlines()


def counts(line: str) -> Counter[str]:
    """What a line says is left out, by kind in the singular."""
    assert line.startswith("left out: ")
    found = re.findall(r"(\d+) ([^(]+?)s? \(", line)
    return Counter({noun: int(count) for count, noun in found})


def score(folder: Path) -> float:
    """The mean of single evaluations, each of a folder with one image."""
    status, out, _ = run(evaluate.main, "--weights", "bicubic", "--scale", 2, "--benchmark", folder, "--json")
    assert status == 0
    return float(json.loads(out)["mean"]["psnr"])


class Walk:
    """A folder with some cases in it, next to a copy of its good images alone."""

    def __init__(self, place: Path, cases: set[str]) -> None:
        self.folder, self.place = place / "data" / "train", place
        for name in ("a.png", "b.png"):
            png(self.folder / name)
        png(place / "data" / "valid" / "v.png")
        for case in sorted(cases & {*GOOD, *PAIRED, *LEFT_OUT}):
            {**GOOD, **PAIRED, **LEFT_OUT}[case][0](self.folder)
        lr = ("ax2.png", "s_SRF_2_LR.png")
        self.good = [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.startswith((".", "g.", "h.", "notes")) and path.name not in lr
            and ".cache" not in path.parts and "linked" not in path.parts
        ]  # fmt: skip
        for case in sorted(cases & {*UNUSABLE, *UNREADABLE}):
            {**UNUSABLE, **UNREADABLE}[case][0](self.folder)
        self.unusable = sorted(UNUSABLE[case][1] for case in cases & set(UNUSABLE))
        self.unreadable = sorted(UNREADABLE[case][1] for case in cases & set(UNREADABLE))
        self.paired = Counter(PAIRED[case][2] for case in sorted(cases & set(PAIRED)))
        self.left_out = Counter(LEFT_OUT[case][1] for case in sorted(cases & set(LEFT_OUT)))
        assert len(self.good) == 2 + sum(GOOD[c][1] for c in cases & set(GOOD)) + ("pair" in cases)

    def first_bad(self) -> list[str]:
        """Names that a refusal may be for: the first entry that is no file, or one that cannot be read."""
        return self.unusable[:1] or self.unreadable

    def evaluated(self) -> None:
        table = self.place / "scores.csv"
        argv = ("--weights", "bicubic", "--scale", 2, "--benchmark", self.folder, "--json", "--csv", table)
        status, out, err = run(evaluate.main, *argv)
        if self.first_bad():
            self.refused(status, err)
            assert out == "" and not table.exists()
            return
        assert status == 0
        self.told(err, self.left_out + self.paired)
        result = json.loads(out)
        assert len(result["images"]) == len(self.good)
        plain = self.place / "plain"
        plain.mkdir()
        for number, path in enumerate(self.good):
            (plain / f"{number:02}{path.suffix}").write_bytes(path.read_bytes())
        assert result["mean"]["psnr"] == pytest.approx(score(plain), abs=1e-9)
        with table.open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == 1 + len(self.good) + 1

    def upscaled(self) -> None:
        out = self.place / "out"
        status, _, err = run(upscale.main, "--weights", WEIGHTS, "--device", "cpu", "--out", out, self.folder)
        bad = [*self.unusable, *(name for name in self.unreadable if not name.startswith("n_"))]
        assert status == (2 if bad else 0)
        errors = [line for line in err if line.startswith("error: ")]
        assert sorted(name for name in bad for line in errors if name in line) == sorted(bad)
        assert len(errors) == len(bad)
        self.told([line for line in err if line not in errors], self.left_out)
        made = len(list(out.rglob("*_x2.png")))
        transparent = "n_transparent.png" in self.unreadable
        assert made == len(self.good) + sum(self.paired.values()) + transparent

    def prepared(self) -> None:
        store = self.place / "s.h5"
        status, _, err = run(prepare.main, "--images", self.place / "data", "--out", store, "--workers", 1)
        if self.first_bad():
            self.refused(status, err)
            assert not store.exists()
            return
        assert status == 0
        self.told(err, self.left_out + self.paired)
        assert len(load_store(store).records("train")) == len(self.good)

    def opened(self) -> None:
        """As study.run and its --dry-run do it."""
        try:
            images = find_images(self.place / "data", EXPERIMENT)
            manifest = read_images(self.place / "root", images).manifest
        except ImageError as exc:
            assert any(name in str(exc) for name in self.first_bad())
            return
        assert not self.first_bad()
        assert len([record for record in manifest if record.split == "train"]) == len(self.good)
        assert bool(images.left_out) == bool(self.left_out + self.paired)
        if images.left_out:
            assert counts(images.left_out.line()) == self.left_out + self.paired

    def refused(self, status: int, err: list[str]) -> None:
        assert status == 2
        assert len(err) == 1 and err[0].startswith("error: ")
        assert any(name in err[0] for name in self.first_bad())

    def told(self, err: list[str], expected: Counter[str]) -> None:
        assert len(err) == bool(expected)
        if expected:
            assert counts(err[0]) == expected


def walk(cases: set[str]) -> None:
    with TemporaryDirectory() as place:
        found = Walk(Path(place), cases)
        found.evaluated()
        found.upscaled()
        found.prepared()
        found.opened()


@pytest.mark.parametrize("case", CASES)
def test_each_oddity_of_a_folder_is_told_or_refused_by_every_command(case: str) -> None:
    walk({case})


harmless = st.sets(st.sampled_from([*GOOD, *LEFT_OUT, *PAIRED]), min_size=3)
harmful = st.sets(st.sampled_from([*UNUSABLE, *UNREADABLE]))


@settings(max_examples=4, deadline=None)
@given(cases=harmless)
def test_the_mean_is_that_of_the_good_images_alone_whatever_else_lies_there(cases: set[str]) -> None:
    walk(cases)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(cases=harmless, bad=harmful)
def test_every_mixture_is_scored_right_or_refused(cases: set[str], bad: set[str]) -> None:
    walk(cases | bad)
