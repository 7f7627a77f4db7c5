"""The choice of training, validation and test images."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sr_core.errors import ImageError
from sr_core.images.files import read_image, write_png
from sr_core.store import sources
from sr_core.store.sources import SourceImage, embedded_images, folder_images, held_out


def add_images(folder: Path, *names: str) -> None:
    """Write small images whose content depends only on the name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        write_png(folder / f"{name}.png", rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))


def names(images: tuple[SourceImage, ...] | list[SourceImage]) -> list[str]:
    return [image.name for image in images]


def contents(images: tuple[SourceImage, ...] | list[SourceImage]) -> set[bytes]:
    return {image.path.read_bytes() for image in images}


def many(folder: Path, count: int) -> list[str]:
    found = [f"p{i:03}" for i in range(count)]
    add_images(folder, *found)
    return found


def test_embedded_images_are_eighteen_photographs_four_of_which_validate() -> None:
    images = embedded_images()
    assert names(images.valid) == ["chelsea", "coffee", "rocket", "camera"]
    assert len(images.train) == 14
    assert not set(names(images.train)) & set(names(images.valid))
    assert {"motorcycle_left", "motorcycle_right"} <= set(names(images.train))  # one scene, one side
    assert images.benchmarks == {}
    for image in images.train + images.valid:
        assert min(read_image(image.path).shape[:2]) >= 170


def test_an_embedded_image_that_scikit_image_no_longer_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "EMBEDDED_TRAIN", ("astronaut.png", "gone.png"))
    with pytest.raises(ImageError, match=r"expected the embedded image gone\.png, which scikit-image \d.*--data DIR"):
        embedded_images()


def test_without_scikit_image_the_embedded_images_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageError, match="pip install scikit-image"):
        embedded_images()


@pytest.mark.parametrize(
    ("train", "valid"), [("train", "valid"), ("DIV2K_train_HR", "DIV2K_valid_HR"), ("Train", "VALID")]
)
def test_train_and_valid_folders_are_taken_recursively_as_they_are(tmp_path: Path, train: str, valid: str) -> None:
    add_images(tmp_path / train, "b")
    add_images(tmp_path / train / "deep" / "er", "a")
    add_images(tmp_path / valid / "deep", "c")
    add_images(tmp_path, "stray")
    add_images(tmp_path / "Set5" / "HR", "woman")
    images = folder_images(tmp_path)
    assert names(images.train) == [f"{train}/b.png", f"{train}/deep/er/a.png"]
    assert names(images.valid) == [f"{valid}/deep/c.png"]
    assert images.origin == str(tmp_path.resolve())
    assert images.benchmarks == {}


def test_div2k_training_ends_at_0800(tmp_path: Path) -> None:
    add_images(tmp_path / "DIV2K_train_HR", "0001", "0800", "0801", "0900", "0901", "08010")
    add_images(tmp_path / "DIV2K_valid_HR", "0801", "0900")
    images = folder_images(tmp_path)
    assert [Path(name).stem for name in names(images.train)] == ["0001", "0800", "08010", "0901"]
    assert [Path(name).stem for name in names(images.valid)] == ["0801", "0900"]
    add_images(tmp_path / "DIV2K_train_HR", "0002", "0003")
    inside = folder_images(tmp_path / "DIV2K_train_HR")  # the folder itself was passed
    assert not {"0801", "0900"} & {Path(name).stem for name in names(inside.train + inside.valid)}


def test_other_folders_may_number_their_images_0801(tmp_path: Path) -> None:
    add_images(tmp_path / "train", "0001", "0801")
    add_images(tmp_path / "valid", "x")
    assert names(folder_images(tmp_path).train) == ["train/0001.png", "train/0801.png"]


def test_benchmarks_are_found_in_any_case_and_returned_under_the_name_asked_for(tmp_path: Path) -> None:
    many(tmp_path / "train", 6)
    add_images(tmp_path / "set5" / "HR", "woman", "baby")
    add_images(tmp_path / "set5" / "LR_bicubic" / "X2", "womanx2")
    images = folder_images(tmp_path, ["Set5"])
    assert {name: names(test) for name, test in images.benchmarks.items()} == {
        "Set5": ["set5/HR/baby.png", "set5/HR/woman.png"]
    }


def test_an_absent_benchmark_is_named_with_the_place_it_was_expected_at(tmp_path: Path) -> None:
    many(tmp_path / "train", 6)
    add_images(tmp_path / "Set5" / "HR", "woman")
    add_images(tmp_path / "Set14", "no_HR_folder")
    with pytest.raises(ImageError, match=r"Set14/HR, .*Urban100/HR, but there is no such folder"):
        folder_images(tmp_path, ["Set5", "Set14", "Urban100"])


def test_without_a_train_folder_every_image_trains_but_no_benchmark(tmp_path: Path) -> None:
    many(tmp_path / "photos" / "2019", 30)
    for benchmark in ("Set5", "bsd100", "deep/Urban100", "Mine"):
        add_images(tmp_path / benchmark / "HR", f"test_{benchmark.replace('/', '_')}")
        add_images(tmp_path / benchmark / "LR", f"small_{benchmark.replace('/', '_')}")
    images = folder_images(tmp_path, ["mine"])
    everything = names(images.train + images.valid)
    assert len(images.valid) == 4
    assert sorted(everything) == [f"photos/2019/p{i:03}.png" for i in range(30)]
    assert names(images.benchmarks["mine"]) == ["Mine/HR/test_Mine.png"]
    assert "Mine/HR/test_Mine.png" in names(folder_images(tmp_path).train + folder_images(tmp_path).valid)


def test_without_a_train_folder_a_valid_folder_still_validates_and_does_not_train(tmp_path: Path) -> None:
    many(tmp_path / "photos", 5)
    add_images(tmp_path / "valid", "v")
    images = folder_images(tmp_path)
    assert names(images.valid) == ["valid/v.png"]
    assert len(images.train) == 5 and "valid/v.png" not in names(images.train)


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (3, 2), (5, 4), (80, 4), (120, 6), (300, 10)])
def test_a_twentieth_is_held_out_but_at_least_4_at_most_10_and_one_is_left(
    tmp_path: Path, count: int, expected: int
) -> None:
    many(tmp_path / "train", count)
    images = folder_images(tmp_path)
    assert len(images.valid) == expected
    assert len(images.train) == count - expected
    assert not set(names(images.valid)) & set(names(images.train))


def test_the_held_out_part_depends_on_content_not_on_names_and_places(tmp_path: Path) -> None:
    many(tmp_path / "a" / "train", 50)
    renamed = tmp_path / "b" / "train" / "deep"
    renamed.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "a" / "train").iterdir(), reverse=True)):
        shutil.copy(path, renamed / f"{number:02}.png")
    assert contents(folder_images(tmp_path / "a").valid) == contents(folder_images(tmp_path / "b").valid)


def test_an_added_image_pushes_at_most_one_other_out_of_the_held_out_part(tmp_path: Path) -> None:
    many(tmp_path / "train", 50)
    held = contents(folder_images(tmp_path).valid)
    entered = 0
    for number in range(20):
        add_images(tmp_path / "train", f"new{number}")
        now = contents(folder_images(tmp_path).valid)
        assert len(held - now) <= 1
        assert now - held <= contents([SourceImage("", tmp_path / "train" / f"new{number}.png")])
        entered += bool(now - held)
        held = now
    assert 0 < entered < 10


def test_no_copy_of_a_held_out_image_trains(tmp_path: Path) -> None:
    many(tmp_path / "train", 12)
    for path in sorted((tmp_path / "train").iterdir()):
        shutil.copy(path, path.with_name(f"copy_of_{path.name}"))
    images = folder_images(tmp_path)
    assert len(images.valid) == 4
    assert len(images.train) == 2 * 8
    assert not contents(images.valid) & contents(images.train)


def test_one_image_alone_cannot_train_and_validate(tmp_path: Path) -> None:
    add_images(tmp_path / "train", "only")
    shutil.copy(tmp_path / "train" / "only.png", tmp_path / "train" / "copy.png")
    with pytest.raises(ImageError, match=r"cannot be used for both training and validation; .*valid"):
        folder_images(tmp_path)


def test_folders_that_hold_nothing_to_train_on_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        folder_images(tmp_path / "absent")
    add_images(tmp_path / "Set5" / "HR", "woman")
    with pytest.raises(ImageError, match=r"no image to train on; expected .*/train, .*/DIV2K_train_HR or images"):
        folder_images(tmp_path, ["Set5"])
    (tmp_path / "valid").mkdir()
    add_images(tmp_path / "train", "a")
    with pytest.raises(ImageError, match=r"valid: no image"):
        folder_images(tmp_path)


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ("train/HR", "valid/HR"),
        ("train", "val"),
        ("Train", "Validation"),
        ("train_HR", "val_HR"),
        ("DIV2K_train_HR", "validation_HR"),
        ("DIV2K_train_HR", "DIV2K_val_HR"),
        ("HR/train", "HR/val"),
        ("train/GT", "valid/GTmod12"),
    ],
)
def test_ground_truth_is_found_in_the_usual_layouts_and_lr_is_named(tmp_path: Path, train: str, valid: str) -> None:
    many(tmp_path / train, 6)
    add_images(tmp_path / valid, "v1", "v2")
    lr = train.replace("HR", "LR_bicubic").replace("GT", "LQ")
    lr = "train_LR" if lr.lower() == "train" else lr
    many(tmp_path / lr, 6)
    images = folder_images(tmp_path)
    assert names(images.train) == [f"{train}/p{i:03}.png" for i in range(6)]
    assert names(images.valid) == [f"{valid}/v1.png", f"{valid}/v2.png"]
    named = "LR_bicubic" if lr == "LR_bicubic/train" else lr
    assert images.left_out.line() == f"left out: 1 LR folder ({named})"


def test_two_folders_that_may_validate_are_both_named(tmp_path: Path) -> None:
    many(tmp_path / "train", 6)
    (tmp_path / "valid").mkdir()
    add_images(tmp_path / "val", "v")
    assert names(folder_images(tmp_path).valid) == ["val/v.png"]  # an empty one has no say
    add_images(tmp_path / "valid", "w")
    with pytest.raises(ImageError, match=r"expected one of the folders valid, val, .*, found valid and val; rename"):
        folder_images(tmp_path)


def test_what_lies_next_to_the_folders_that_are_used_is_counted(tmp_path: Path) -> None:
    many(tmp_path / "train", 6)
    add_images(tmp_path / "valid", "v")
    add_images(tmp_path / "test" / "deep", "t")
    add_images(tmp_path / "foo", "f")
    add_images(tmp_path / "Set5" / "HR", "woman")  # benchmarks are expected there
    (tmp_path / "documents").mkdir()
    (tmp_path / "train" / "x.gif").touch()
    add_images(tmp_path, "stray")
    assert folder_images(tmp_path).left_out.line() == (
        "left out: 1 GIF file (train/x.gif), 2 unused folders (foo, test), 1 unused image (stray.png)"
    )


def test_without_a_train_folder_lr_folders_do_not_train(tmp_path: Path) -> None:
    many(tmp_path / "photos", 6)
    many(tmp_path / "photos" / "LR_bicubic" / "X2", 6)
    add_images(tmp_path / "lrwatches", "w1", "w2")
    images = folder_images(tmp_path)
    assert len(images.train + images.valid) == 6 + 2
    assert images.left_out.names()["LR folder"] == ["photos/LR_bicubic"]
    assert len(folder_images(tmp_path / "photos" / "LR_bicubic" / "X2").train) == 2  # asked for by name


def test_a_benchmark_may_be_in_gt_folders_and_its_lr_is_left_out(tmp_path: Path) -> None:
    many(tmp_path / "train", 6)
    for folder in ("GTmod12", "LRbicx2", "original"):
        add_images(tmp_path / "Set5" / folder, "woman")
    add_images(tmp_path / "Set14" / "HR", "zebra")
    images = folder_images(tmp_path, ["Set5", "Set14"])
    assert {name: names(test) for name, test in images.benchmarks.items()} == {
        "Set5": ["Set5/GTmod12/woman.png"], "Set14": ["Set14/HR/zebra.png"]
    }  # fmt: skip
    assert images.left_out.line() == ("left out: 1 LR folder (Set5/LRbicx2), 1 unused folder (Set5/original)")


@pytest.mark.parametrize("where", ["train", "valid", "Set5/HR"])
def test_an_entry_that_cannot_be_used_is_refused_in_each_part_that_is_used(tmp_path: Path, where: str) -> None:
    many(tmp_path / "train", 6)
    for folder in ("valid", "Set5/HR", "unused"):
        add_images(tmp_path / folder, "a")
    (tmp_path / "unused" / "b.png").symlink_to("gone.png")
    assert len(folder_images(tmp_path, ["Set5"]).train) == 6
    (tmp_path / where / "b.png").symlink_to("gone.png")
    with pytest.raises(ImageError, match=rf"{where}/b\.png: is a link to gone\.png"):
        folder_images(tmp_path, ["Set5"])


def test_div2k_s_validation_images_and_copies_of_held_out_ones_are_counted(tmp_path: Path) -> None:
    add_images(tmp_path / "DIV2K_train_HR", *(f"{i:04}" for i in (1, 2, 3, 801, 900)))
    for path in sorted((tmp_path / "DIV2K_train_HR").iterdir())[:3]:
        shutil.copy(path, path.with_name(f"copy_of_{path.name}"))
    line = folder_images(tmp_path).left_out.line()
    assert "2 DIV2K validation images (DIV2K_train_HR/0801.png, …)" in line
    assert "2 copies of a validation image (DIV2K_train_HR/copy_of_000" in line


def test_an_unreadable_image_is_named_when_the_held_out_part_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read"):
        held_out([SourceImage("gone", tmp_path / "gone.png"), SourceImage("too", tmp_path / "too.png")])


def test_shared_trains_on_380_images_and_validates_on_10(shared: Path) -> None:
    images = folder_images(shared / "data", ["Set5", "Set14"])
    assert (len(images.train), len(images.valid)) == (380, 10)
    assert {name: len(test) for name, test in images.benchmarks.items()} == {"Set5": 5, "Set14": 14}
