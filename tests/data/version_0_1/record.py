"""Record these data again: `python record.py CHECKOUT_OF_0.1`, whose `.venv` has version 0.1 installed (README.md)."""

import argparse
import gzip
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SIDES = {"train": (64, 64, 72, 72), "valid": (56, 64), "Tiny/HR": (48, 50)}

KILLED_AFTER = """
import os, runpy, signal, sys
from study.journal import Journal
append, seen = Journal.append, []
def dying(self, event):
    append(self, event)
    seen.append(type(event).__name__)
    if seen.count({kind!r}) == {count}:
        os.kill(os.getpid(), {signal})
Journal.append = dying
sys.argv = ["study.run", *sys.argv[1:]]
runpy.run_module("study.run", run_name="__main__")
"""


def make_images() -> None:
    """Grey clouds with the spectrum of photographs, tinted, behind rectangles."""
    for place, (split, sides) in enumerate(SIDES.items()):
        folder = HERE / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        for number, side in enumerate(sides):
            generator = np.random.default_rng([place, number])
            frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
            noise = np.fft.rfft2(generator.standard_normal((side, side)))
            clouds = np.fft.irfft2(noise / np.maximum(frequency, 1 / side), (side, side))
            clouds = 128 + 40 * (clouds - clouds.mean()) / clouds.std()
            pixels = clouds[..., None] * generator.uniform(0.7, 1.2, 3)
            for _ in range(6):
                y, x = generator.integers(0, side - 16, 2)
                h, w = generator.integers(6, 28, 2)
                pixels[y : y + h, x : x + w] += generator.uniform(-70, 70, 3)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png", optimize=True)


class Old:
    """Version 0.1, run as its users run it."""

    def __init__(self, checkout: Path, work: Path) -> None:
        self._python = str(checkout / ".venv/bin/python")
        self._checkout, self._work = checkout, work
        self._environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def __call__(self, *argv: object, expected: int = 0) -> None:
        command = [self._python, *map(str, argv)]
        ended = subprocess.run(command, cwd=self._checkout, env=self._environment)
        assert ended.returncode == expected, (command, ended.returncode)

    def run(self, root: Path, name: str, trials: int, *more: object, **ending: int) -> None:
        self("-m", "study.run", *self._arguments(root, name, trials), *more, **ending)

    def run_until(self, root: Path, name: str, trials: int, kind: str, count: int, number: signal.Signals) -> None:
        code = KILLED_AFTER.format(kind=kind, count=count, signal=int(number))
        expected = -signal.SIGKILL if number is signal.SIGKILL else 75
        self("-c", code, *self._arguments(root, name, trials), expected=expected)

    def _arguments(self, root: Path, name: str, trials: int) -> list[object]:
        data = self._work / "images"
        return ["--experiment", self._work / f"{name}.py", "--data", data, "--root", root, "--trials", trials]


def pack(roots: Path) -> None:
    """Both roots in one file, which saves what they share, and without the large figures."""

    def small(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        figure = Path(member.name).name in ("comparison.png", "curves.png")
        member.uname = member.gname = ""
        member.uid = member.gid = 0
        return None if figure else member

    with (
        lzma.open(HERE / "roots.tar.xz", "w", preset=9 | lzma.PRESET_EXTREME) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for root in ("finished", "unfinished"):
            archive.add(roots / root, arcname=root, filter=small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "a2n-study-0.1")
    given = parser.parse_args()
    work = given.work
    work.mkdir()
    make_images()
    shutil.copytree(HERE / "images", work / "images")
    for name in ("searched", "begun"):
        shutil.copy(HERE / f"{name}.py", work)
    old = Old(given.checkout.resolve(), work)

    finished = work / "finished"
    old.run_until(finished, "searched", 10, "Checkpointed", 6, signal.SIGKILL)
    old.run_until(finished, "searched", 10, "Progress", 9, signal.SIGTERM)
    old.run(finished, "searched", 10)
    old("-m", "study.train", "best", "--patches", 480, "--root", finished, "--study-name", "searched")
    shutil.copytree(finished, work / "as_left/finished")
    old.run(finished, "searched", 12)
    keep(finished / "searched/journal.jsonl", "finished_searched_on")

    unfinished = work / "unfinished"
    old.run_until(unfinished, "begun", 9, "Checkpointed", 14, signal.SIGKILL)
    shutil.copytree(unfinished, work / "as_left/unfinished")
    pack(work / "as_left")
    old.run(unfinished, "begun", 9)
    keep(unfinished / "begun/journal.jsonl", "unfinished_ended")


def keep(journal: Path, name: str) -> None:
    (HERE / f"{name}.jsonl.gz").write_bytes(gzip.compress(journal.read_bytes(), mtime=0))


if __name__ == "__main__":
    sys.exit(main())
