"""Preparing a store gives the same result for any number of workers, resumes after any kill, and repeats no work."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sr_core.errors import StoreError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import read_image, write_png
from sr_core.prepare import main
from sr_core.store import parts, preparation
from sr_core.store.hdf5 import load_store, verify
from sr_core.store.known import KnownImages
from sr_core.store.layers import HR, Layer, Lr
from sr_core.store.parts import PartTask
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage, folder_images

X2: list[Lr] = [("train", 2, "matlab_bicubic"), ("valid", 2, "matlab_bicubic")]
X3: list[Lr] = [("train", 3, "pillow_bicubic")]


def write_images(folder: Path, count: int, side: int = 40) -> Path:
    for number in range(count):
        size = (side + number, side, 3)
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        folder.joinpath("train" if number % 4 else "valid").mkdir(parents=True, exist_ok=True)
        write_png(folder / ("train" if number % 4 else "valid") / f"{number:03}.png", pixels)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", 12)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, Layer]]:
    """The number of times that each layer of each image is made in this process."""
    counted: Counter[tuple[str, Layer]] = Counter()

    def counting(task: PartTask) -> object:
        counted.update((task.image.name, layer) for layer in task.layers)
        return parts.make_part(task)

    monkeypatch.setattr(preparation, "make_part", counting)
    return counted


def contents(path: Path) -> bytes:
    assert verify(path) == []
    return path.read_bytes()


def test_many_workers_write_the_same_bytes_as_one(tmp_path: Path, folder: Path) -> None:
    images = folder_images(folder)
    prepare_store(tmp_path / "one.h5", images, X2 + X3, workers=1)
    prepare_store(tmp_path / "two.h5", images, X2 + X3, workers=2)
    assert contents(tmp_path / "one.h5") == contents(tmp_path / "two.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.h5", "photos", "two.h5"]


def test_another_kernel_computes_that_alone(tmp_path: Path, folder: Path, made: Counter[tuple[str, Layer]]) -> None:
    path, images, known = tmp_path / "s.h5", folder_images(folder), KnownImages()
    prepare_store(path, images, X2, known=known, workers=1)
    made.clear()
    prepare_store(path, images, X3, known=known, workers=1)
    assert made == {(image.name, Layer(3, "pillow_bicubic")): 1 for image in images.train}
    prepare_store(tmp_path / "at_once.h5", images, X2 + X3, workers=1)
    assert contents(path) == contents(tmp_path / "at_once.h5")


def test_what_is_there_is_not_made_again(tmp_path: Path, folder: Path, made: Counter[tuple[str, Layer]]) -> None:
    path = tmp_path / "s.h5"
    prepare_store(path, folder_images(folder), X2, workers=1)
    before = path.stat()
    made.clear()
    prepare_store(path, folder_images(folder), X2, workers=1)
    assert not made and path.stat().st_mtime_ns == before.st_mtime_ns


def test_images_that_come_move_change_or_go_are_followed(
    tmp_path: Path, folder: Path, made: Counter[tuple[str, Layer]]
) -> None:
    path, known = tmp_path / "s.h5", KnownImages(tmp_path / "known.json")
    prepare_store(path, folder_images(folder), X2, known=known, workers=1)
    train = sorted((folder / "train").iterdir())
    train[0].unlink()
    train[1].rename(folder / "train" / "renamed.png")
    write_png(train[2], np.full((50, 50, 3), 7, np.uint8))
    write_png(folder / "train" / "new.png", np.full((44, 44, 3), 9, np.uint8))
    made.clear()
    store = prepare_store(path, folder_images(folder), X2, known=KnownImages(tmp_path / "known.json"), workers=1)
    assert {name for name, _ in made} == {f"train/{train[2].name}", "train/new.png"}
    prepare_store(tmp_path / "fresh.h5", folder_images(folder), X2, workers=1)
    assert store.fingerprint == load_store(tmp_path / "fresh.h5").fingerprint
    assert contents(path) == contents(tmp_path / "fresh.h5")


def test_a_file_is_read_again_exactly_if_it_changed(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "known.json"
    images = folder_images(folder)
    known = KnownImages(path)
    first = known.manifest_of(images)
    assert not path.exists()
    known.save()
    changed = images.train[0].path
    write_png(changed, np.zeros((41, 40, 3), np.uint8))
    again = KnownImages(path)
    assert [p.name for p in (*images.train, *images.valid) if again.record("train", p) is None] == ["train/001.png"]
    second = again.manifest_of(images)
    assert [a.name for a, b in zip(first, second, strict=True) if a != b] == ["train/001.png"]
    path.write_text("[1, 2")
    assert KnownImages(path).manifest_of(images) == second


def test_a_damaged_part_is_removed_and_made_again(tmp_path: Path, folder: Path) -> None:
    path, images = tmp_path / "s.h5", folder_images(folder)
    images.valid[-1].path.write_bytes(b"no image")
    with pytest.raises(Exception, match="cannot be decoded"):
        prepare_store(path, images, X2, workers=1)
    damaged = sorted((tmp_path / "s.h5.parts").glob("*.part"))
    damaged[0].write_bytes(damaged[0].read_bytes()[:-1])
    data = bytearray(damaged[1].read_bytes())
    data[-1] ^= 1
    damaged[1].write_bytes(data)
    write_png(images.valid[-1].path, np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(StoreError, match="was damaged and has been deleted; run again"):
        prepare_store(path, images, X2, workers=1)
    prepare_store(path, images, X2, workers=1)
    assert contents(path) and not (tmp_path / "s.h5.parts").exists()


def kill_and_resume(command: list[str], out: Path, seconds: float, times: int) -> int:
    """Start the command and kill it at a random moment, `times` times, then let it finish. Returns the kills."""
    choose, killed = random.Random(5), 0
    for _ in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(choose.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if out.exists():
            assert verify(out) == []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return killed


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_twenty_times_it_ends_as_if_never_killed(tmp_path: Path) -> None:
    folder, out = write_images(tmp_path / "many", 40, side=200), tmp_path / "out" / "s.h5"
    command = [sys.executable, "-m", "sr_core.prepare", "--images", str(folder), "--out", str(out), "--workers", "2"]
    begun = time.monotonic()
    subprocess.run([*command[:-3], str(tmp_path / "whole.h5"), *command[-2:]], check=True, stdout=subprocess.DEVNULL)
    assert kill_and_resume(command, out, time.monotonic() - begun, 20) >= 5
    assert contents(out) == contents(tmp_path / "whole.h5")
    assert sorted(p.name for p in out.parent.iterdir()) == ["s.h5", "s.h5.pictures.json"]


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_all_training_images_killed_twenty_times_give_the_same_store(tmp_path: Path, shared: Path) -> None:
    out = tmp_path / "out" / "s.h5"
    command = [sys.executable, "-m", "sr_core.prepare", "--images", str(shared / "data" / "train"), "--out", str(out)]
    command += ["--scale", "2", "3", "--kernel", "matlab_bicubic", "pillow_bicubic"]
    whole = [*command]
    whole[whole.index(str(out))] = str(tmp_path / "whole.h5")
    subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
    assert kill_and_resume(command, out, 4.0, 20) >= 5
    assert contents(out) == contents(tmp_path / "whole.h5")


def test_the_command_prepares_several_folders_and_says_what_is_there(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = write_images(tmp_path / "other", 9, side=33), tmp_path / "s.h5"
    argv = [
        "--images",
        str(folder),
        "--images",
        str(other),
        "--scale",
        "2",
        "4",
        "--kernel",
        "nearest",
        "--out",
        str(out),
    ]
    assert main([*argv, "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "15 training and 6 validation images" in shown and "x2 nearest, x4 nearest" in shown
    store = load_store(out)
    names = [record.name for record in store.manifest]
    assert names[0] == "photos/train/001.png" and names[-1] == "other/valid/008.png"
    for layer in (HR, Layer(4, "nearest")):
        image = next(store.images("valid", layer, [0]))
        hr = read_image(folder / "valid" / "000.png")
        expected = hr if layer == HR else downsample(crop_to_multiple(hr, 4), 4, "nearest")
        np.testing.assert_array_equal(image, expected)
    assert main(["--images", str(folder), "--images", str(folder), "--out", str(out)]) == 2
    assert "two folders are named photos" in capsys.readouterr().err


def test_verify_names_what_is_damaged(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.h5"
    assert main(["--images", str(folder), "--out", str(out)]) == 0
    assert main(["--verify", "--out", str(out)]) == 0
    capsys.readouterr()
    data = bytearray(out.read_bytes())
    data[data.index(read_image(folder / "train" / "003.png").tobytes()) + 5] ^= 16
    out.write_bytes(data)
    assert main(["--verify", "--out", str(out)]) == 2
    assert "1 images do not match their checksums: train/003.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected --images DIR, or --verify"),
        (["--images", ".", "--workers", "0"], "--workers must be at least 1"),
        (["--images", ".", "--scale", "5"], "invalid choice: 5"),
        (["--images", ".", "--kernel", "bicubic"], "invalid choice: 'bicubic'"),
    ],
)
def test_bad_usage_is_one_line(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--out", str(tmp_path / "s.h5")])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_out_that_was_never_a_store_is_refused_and_nothing_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "thesis.txt").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    for name, said in (("a folder", "expected a file, got a folder"), ("thesis.txt", "choose another name")):
        assert main(["--images", str(folder), "--out", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("verify_alone", [False, True])
def test_a_name_that_is_too_long_is_told_in_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], verify_alone: bool
) -> None:
    out = tmp_path / ("n" * 300)
    assert main([*(["--verify"] if verify_alone else ["--images", str(folder)]), "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_out_that_may_not_be_read_is_told_in_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.h5"
    out.write_bytes(b"")

    def refuse(path: Path, mode: str = "r") -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert main(["--images", str(folder), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {out}: cannot be written (Permission denied)")


def test_workers_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "many", 60, side=400)
    out = tmp_path / "s.h5"
    command = [sys.executable, "-m", "sr_core.prepare", "--images", str(folder), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("s.h5.parts/*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    time.sleep(0.1)
    deadline = time.monotonic() + 5
    alive = [child for child in children if Path(f"/proc/{child}").exists()]
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = [child for child in alive if Path(f"/proc/{child}").exists()]
    assert children and not alive


def test_a_store_is_prepared_by_one_process_at_a_time(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "s.h5"
    command = [sys.executable, "-m", "sr_core.prepare", "--images", str(folder), "--out", str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert contents(out) and not (tmp_path / "s.h5.parts").exists()


def test_the_images_of_a_set_keep_their_order(tmp_path: Path, folder: Path) -> None:
    images = folder_images(folder)
    backwards = ImageSet("b", tuple(SourceImage(p.name, p.path) for p in reversed(images.train)), images.valid)
    store = prepare_store(tmp_path / "s.h5", backwards, X2, workers=2)
    assert [record.name for record in store.records("train")] == [image.name for image in backwards.train]


def test_without_locks_a_store_is_made_in_a_folder_of_its_own(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    images = folder_images(folder)
    prepare_store(tmp_path / "one.h5", images, X2, workers=1)
    monkeypatch.setattr(fcntl, "flock", flock)
    prepare_store(tmp_path / "two.h5", images, X2, workers=1)
    assert contents(tmp_path / "two.h5") == contents(tmp_path / "one.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.h5", "photos", "two.h5"]
