"""A leak stops a study before there is anything of it; what was compared is known ever after."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sr_core.errors import SuiteError
from sr_core.images.files import Image as Pixels
from sr_core.images.files import read_image
from sr_core.leaks import overlap as leaks
from sr_core.leaks.overlap import Duplicate, Findings, Leak
from sr_core.store import known
from sr_core.store.sources import folder_images
from study.question.experiment import load_experiment
from study.session import leak_check, opening
from study.session.leak_check import check_leaks
from study.session.opening import ScannedImages, check_images, read_images

Look = Callable[[], ScannedImages]


@pytest.fixture
def look(image_folder: Path, tmp_path: Path) -> Look:
    """look() reads the folder's images as a session does."""

    def again() -> ScannedImages:
        benchmarks = [name for name in ("Set5",) if (image_folder / name).exists()]
        return read_images(tmp_path / "root", folder_images(image_folder, benchmarks))

    return again


@pytest.fixture
def leaky(image_folder: Path, look: Look) -> Look:
    """`look` for a folder that trains on a validation image, halved and saved as JPEG."""
    with Image.open(image_folder / "valid/valid1.png") as image:
        image.resize((40, 36)).save(image_folder / "train/copy.jpg")
    return look


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of training images of every comparison that is made."""
    counts: list[int] = []
    examine = leaks.examine

    def counting(train: tuple[object, ...], *rest: object, **more: object) -> Findings:
        counts.append(len(train))
        return examine(train, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "examine", counting)
    return counts


def kept(root: Path) -> list[Path]:
    return sorted((root / "stores").glob(".leaks-*.json"))


def test_a_leak_names_both_files_the_evidence_and_the_way_on(leaky: Look, tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as refusal:
        check_leaks(tmp_path / "root", leaky(), allowed=False)
    for word in ("train/copy.jpg", "valid/valid1.png of valid", "near duplicate: ", "--allow-leak"):
        assert word in str(refusal.value)
    assert {p.name for p in (tmp_path / "root/stores").iterdir()} == {".pictures.json", kept(tmp_path / "root")[0].name}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged, each line once, whether or not a study of this process has set up logging before."""
    monkeypatch.setattr(leak_check.logger, "propagate", False)
    monkeypatch.setattr(leak_check.logger, "handlers", [caplog.handler])
    return caplog


def test_a_leak_that_is_allowed_is_told_and_returned(
    leaky: Look, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    with told.at_level(logging.INFO, "study.session.leak_check"):
        (leak,) = check_leaks(tmp_path / "root", leaky(), allowed=True)
    assert (leak.training, leak.set_name, leak.held_out) == ("train/copy.jpg", "valid", "valid/valid1.png")
    (record,) = told.records
    assert record.levelname == "WARNING"
    assert (
        "training image train/copy.jpg and held-out image valid/valid1.png of valid show the same"
        in record.getMessage()
    )


@pytest.mark.parametrize("allowed", [False, True])
def test_images_without_a_leak_pass(allowed: bool, look: Look, tmp_path: Path) -> None:
    assert check_leaks(tmp_path / "root", look(), allowed=allowed) == ()


def test_what_was_compared_once_is_not_compared_again(leaky: Look, tmp_path: Path, compared: list[int]) -> None:
    first = check_leaks(tmp_path / "root", leaky(), allowed=True)
    assert check_leaks(tmp_path / "root", leaky(), allowed=True) == first
    with pytest.raises(SuiteError, match=r"copy\.jpg"):
        check_leaks(tmp_path / "root", leaky(), allowed=False)
    assert compared == [6]


def test_other_images_other_benchmarks_and_another_rule_are_compared_again(
    look: Look, image_folder: Path, tmp_path: Path, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    check_leaks(root, look(), allowed=False)
    shutil.copytree(image_folder / "valid", image_folder / "Set5/HR")
    check_leaks(root, look(), allowed=False)
    (image_folder / "Set5/HR/valid2.png").unlink()
    check_leaks(root, look(), allowed=False)
    (image_folder / "train/train0.png").unlink()
    check_leaks(root, look(), allowed=False)
    monkeypatch.setattr(leak_check, "RULE", 0)
    check_leaks(root, look(), allowed=False)
    assert compared == [5, 5, 5, 4, 4]
    assert len(kept(root)) == 5


def test_benchmarks_are_compared_too(look: Look, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "Set5/HR").mkdir(parents=True)
    shutil.copy(image_folder / "train/train3.png", image_folder / "Set5/HR/baby.png")
    with pytest.raises(
        SuiteError, match=r"train/train3\.png and held-out image Set5/HR/baby\.png of Set5 .*same pixels"
    ):
        check_leaks(tmp_path / "root", look(), allowed=False)


def test_a_new_study_reads_each_image_once_to_know_it_and_to_compare_it(
    look: Look, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: list[int]
) -> None:
    shutil.copytree(image_folder / "valid", image_folder / "Set5/HR")
    plain = look()
    read: list[Path] = []

    def counting(path: Path) -> Pixels:
        read.append(path)
        return read_image(path)

    for module in (leaks, known):
        monkeypatch.setattr(module, "read_image", counting)
    found = read_images(tmp_path / "root", plain.images, compare=True)
    check_images(replace(load_experiment("quickstart")[1], references={}), found)
    check_leaks(tmp_path / "root", found, allowed=True)
    assert found.manifest == plain.manifest
    members = (*found.images.train, *found.images.valid, *found.images.benchmarks["Set5"])
    assert sorted(read) == sorted(image.path for image in members)
    again = read_images(tmp_path / "root", plain.images, compare=True)
    check_leaks(tmp_path / "root", again, allowed=True)
    assert len(read) == len(members), "what is known is not read again"
    assert compared == [5]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"leaks": []}', b'{"leaks": [1], "duplicates": []}', b"\xff"])
def test_damaged_findings_are_made_again(content: bytes, look: Look, tmp_path: Path, compared: list[int]) -> None:
    root = tmp_path / "root"
    check_leaks(root, look(), allowed=False)
    (path,) = kept(root)
    whole = path.read_bytes()
    path.write_bytes(content)
    assert check_leaks(root, look(), allowed=False) == ()
    assert path.read_bytes() == whole
    assert compared == [5, 5]


def test_images_that_train_twice_are_told_and_stop_nothing(
    look: Look, image_folder: Path, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    shutil.copy(image_folder / "train/train2.png", image_folder / "train/train2_again.png")
    with told.at_level(logging.INFO, "study.session.leak_check"):
        assert check_leaks(tmp_path / "root", look(), allowed=False) == ()
    assert [(r.levelname, r.getMessage()) for r in told.records] == [
        ("INFO", "duplicate training images: train/train2_again.png is train/train2.png again")
    ]


def test_of_many_leaks_three_are_named_in_one_line(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuple(Leak("same pixels", f"{i}.png", "woman.png", "Set5", "SHA-256") for i in range(9))
    twice = (Duplicate("same pixels", "a.png", "b.png", "SHA-256"),)
    monkeypatch.setattr(opening, "examine", lambda *_, **__: Findings(found, twice))
    with pytest.raises(SuiteError) as refusal:
        check_leaks(tmp_path / "root", look(), allowed=False)
    message = str(refusal.value)
    assert "\n" not in message
    assert "training image 2.png" in message and "training image 3.png" not in message and "and 6 more" in message
