"""Detection of the ground truth in a folder, and matching of LR images to HR images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_core.errors import ImageError
from sr_core.images.files import write_png
from sr_core.store.ground_truth import ground_truth, is_lr_folder, scales_named
from sr_core.store.lr_pairs import matched


def image(path: Path, height: int = 48, width: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    write_png(path, pixels)
    return path


def images(folder: Path, *names: str, height: int = 48, width: int = 40) -> None:
    for name in names:
        image(folder / f"{name}.png", height, width)


def truth(folder: Path, scale: int | None = None) -> tuple[list[str], str]:
    """The ground truth with its relative path, and the line about the entries that are left out."""
    found = ground_truth(folder, scale=scale)
    return [path.relative_to(folder).with_suffix("").as_posix() for path in found.paths], found.left_out.line()


LR_FOLDERS = (
    "LR lr LQ lq LRBI LRBI_rcan LR_bicubic LRbicx2 LRbicx3 LRBIx4 LRx8 LR2 x2 X4 X2_sub 4x DIV2K_train_LR_bicubic "
    "DIV2K_valid_LR_x8 DIV2K_train_LR_wild my_lr_images LRImages lowres low_res LowResolution low-resolution "
    "BIx4 BDx3 train_sharp_bicubic vimeo_septuplet_matlabLRx4"
)
OTHER_FOLDERS = (
    "HR GT GTmod12 lrwatches Lroom LRoom slow_results flow BMW_X3 x22 alright 2019 HR_LR_pairs train SRF_2 lract "
    "qualrun x1 max2 photos.x bi input train_sharp cubic"
)


@pytest.mark.parametrize("name", LR_FOLDERS.split())
def test_names_of_lr_folders_are_known(name: str) -> None:
    assert is_lr_folder(name)


@pytest.mark.parametrize("name", OTHER_FOLDERS.split())
def test_names_that_only_resemble_those_of_lr_folders_are_not_taken_for_them(name: str) -> None:
    assert not is_lr_folder(name)


def test_the_scale_is_read_from_a_folder_s_name() -> None:
    named = {"BIx4": {4}, "X2": {2}, "4x": {4}, "LRbicx3": {3}, "DIV2K_train_LR_bicubic_X2": {2}, "image_SRF_4": {4}}
    assert {name: scales_named(name) for name in named} == named
    assert not any(map(scales_named, ("box3", "1920x1080", "000", "x22", "LR_bicubic", "2019")))


def test_hr_files_are_told_from_what_others_made_of_their_scenes(tmp_path: Path) -> None:
    for scene in ("img_001", "img_002"):
        images(tmp_path, f"{scene}_SRF_2_HR", *(f"{scene}_SRF_2_{m}" for m in ("A+", "SRCNN", "bicubic", "glasner")))
        images(tmp_path, f"{scene}_SRF_2_LR", height=24, width=20)
    kept, line = truth(tmp_path)
    assert kept == ["img_001_SRF_2_HR", "img_002_SRF_2_HR"]
    assert line == "left out: 10 LR or result images (img_001_SRF_2_A+.png, …)"


def test_of_hr_images_cropped_for_each_scale_those_for_this_one_count(tmp_path: Path) -> None:
    for scale in (2, 3, 4):
        images(tmp_path / f"image_SRF_{scale}", f"img_001_SRF_{scale}_HR", f"img_001_SRF_{scale}_bicubic")
    assert truth(tmp_path, 3)[0] == ["image_SRF_3/img_001_SRF_3_HR"]
    assert "2 images of another scale (image_SRF_2/img_001_SRF_2_HR.png, …)" in truth(tmp_path, 3)[1]
    assert truth(tmp_path)[0] == ["image_SRF_2/img_001_SRF_2_HR"]


def test_folders_of_hr_images_for_each_scale_are_no_lr_folders(tmp_path: Path) -> None:
    for scale in (2, 3, 4):
        images(tmp_path / "HR" / f"x{scale}", f"baby_HR_x{scale}", f"bird_HR_x{scale}")
        images(tmp_path / "LR" / f"x{scale}", f"baby_LRBI_x{scale}")
    assert truth(tmp_path, 4)[0] == ["HR/x4/baby_HR_x4", "HR/x4/bird_HR_x4"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_images_and_results_next_to_an_image_are_known_by_name_and_size(scale: int, tmp_path: Path) -> None:
    images(tmp_path, "a", "b", height=50, width=41)
    lr = ("ax{}", "a_x{}", "a_LRBI_x{}", "ax{}m", "a_lr", "a_LR", "a-lq")
    images(tmp_path, *(form.format(scale) for form in lr), height=50 // scale, width=41 // scale)
    images(tmp_path / "large", f"b_x{scale}", height=50 * scale, width=41 * scale)
    kept, line = truth(tmp_path)
    assert kept == ["a", "b"]
    assert line.startswith("left out: 8 LR or result images (")


def test_the_name_alone_makes_no_lr_image(tmp_path: Path) -> None:
    images(tmp_path, "a", "ax2", "a_x4", "a_lr", "2x2", "2", "a_night")  # all of one size
    images(tmp_path, "bx2", "c_lr", height=24, width=20)  # no b, no c
    assert len(truth(tmp_path)[0]) == 9


def test_a_photograph_marked_hr_leaves_numbered_and_other_photographs_alone(tmp_path: Path) -> None:
    images(tmp_path, "IMG_HR", "IMG_0001", "IMG_0002")
    images(tmp_path, "IMG_harbour", height=31, width=77)
    images(tmp_path, "Ford_GT", "Ford", "Ford_Mustang", "Porsche_GT", "Porsche_Targa")
    assert len(truth(tmp_path)[0]) == 9
    images(tmp_path, "Ford_bicubic")
    assert truth(tmp_path)[0] == ["Ford_GT", "IMG_0001", "IMG_0002", "IMG_HR", "IMG_harbour", "Porsche_GT"]


def test_marks_may_come_first(tmp_path: Path) -> None:
    images(tmp_path, "HR_1", "HR_2")
    images(tmp_path, "LR_1", "LR_2", height=24, width=20)
    assert truth(tmp_path)[0] == ["HR_1", "HR_2"]


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        (["HR", "LR_bicubic", "other"], "HR"),
        (["hr", "lr"], "hr"),
        (["GT", "LQ"], "GT"),
        (["GTmod12", "LRbicx2", "LRbicx3", "original"], "GTmod12"),
        (["GTmod4", "GTmod12", "GTmod3"], "GTmod12"),
        (["original", "LRbicx4"], "original"),
        (["GT", "HR", "original"], "HR"),
        (["GT", "BIx4", "BDx4"], "GT"),
        (["target", "input"], "target"),
    ],
)
def test_the_folder_of_hr_images_is_known_by_its_name_and_the_others_are_named(
    folders: list[str], chosen: str, tmp_path: Path
) -> None:
    for folder in folders:
        images(tmp_path / folder, "baby", "bird")
    kept, line = truth(tmp_path)
    assert kept == [f"{chosen}/baby", f"{chosen}/bird"]
    assert all(folder in line for folder in folders if folder != chosen)
    assert ground_truth(tmp_path).names == ("baby.png", "bird.png")


def test_inputs_of_targets_are_lr_also_further_down(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images(tmp_path / name / "target", "1")
        images(tmp_path / name / "input", "1")
    images(tmp_path / "c" / "input", "1")
    assert truth(tmp_path)[0] == ["a/target/1", "b/target/1", "c/input/1"]


def test_an_hr_folder_may_be_a_link_and_an_empty_one_does_not_count(tmp_path: Path) -> None:
    images(tmp_path / "elsewhere", "baby")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "GT").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "HR").mkdir()
    assert truth(tmp_path / "set")[0] == ["GT/baby"]


def test_sets_side_by_side_are_each_judged(tmp_path: Path) -> None:
    for name in ("Set5", "Set14"):
        for folder in ("GTmod12", "LRbicx2", "original"):
            images(tmp_path / name / folder, "baby")
    assert truth(tmp_path)[0] == ["Set14/GTmod12/baby", "Set5/GTmod12/baby"]


def test_lr_subfolders_are_left_out_unless_asked_for_themselves(tmp_path: Path) -> None:
    images(tmp_path, "baby")
    images(tmp_path / "LR_bicubic" / "X2", "babyx2", height=24, width=20)
    (tmp_path / "LR_bicubic" / "X2" / "broken.png").symlink_to("gone.png")  # no part of the ground truth
    assert truth(tmp_path) == (["baby"], "left out: 1 LR folder (LR_bicubic)")
    (tmp_path / "LR_bicubic" / "X2" / "broken.png").unlink()
    assert truth(tmp_path / "LR_bicubic" / "X2") == (["babyx2"], "")
    with pytest.raises(
        ImageError, match=r"all images in it are LR .*give the path of their folder, such as .*LR_bicubic/X2"
    ):
        ground_truth(tmp_path / "LR_bicubic")


def test_images_next_to_an_hr_folder_with_the_same_names_are_ambiguous(tmp_path: Path) -> None:
    images(tmp_path / "HR", "baby", "bird")
    images(tmp_path, "babyx2", "woman")
    with pytest.raises(ImageError, match=r"\(babyx2\.png\), so the ground truth is ambiguous; .*, such as .*/HR$"):
        ground_truth(tmp_path)
    assert truth(tmp_path / "HR")[0] == ["baby", "bird"]


def pairs(hr: list[str], lr: list[str], scale: int = 2) -> dict[str, str]:
    return matched({name: f"{name}.png" for name in hr}, [f"{name}.png" for name in lr], Path("lr"), scale)


def test_clips_are_matched_by_their_folders(tmp_path: Path) -> None:
    clips = ["000/0001", "001/0001"]
    assert pairs(clips, [*clips, "002/0001"]) == {clip: f"{clip}.png" for clip in clips}
    with pytest.raises(ImageError, match=r"lr: no LR image of 001/0001; expected a file named 0001x2, "):
        pairs(clips, ["000/0001"])
    assert pairs(["000/0001"], clips) == {"000/0001": "000/0001.png"}


def test_a_folder_of_the_scale_is_preferred_and_one_of_another_never_taken() -> None:
    lr = [f"LR/X{scale}/{name}" for scale in (2, 3, 4) for name in ("a", "b")]
    assert pairs(["a", "b"], lr, 3) == {"a": "LR/X3/a.png", "b": "LR/X3/b.png"}
    assert pairs(["000/a"], ["X2/000/a", "X3/000/a", "X2/001/a"]) == {"000/a": "X2/000/a.png"}
    assert pairs(["a"], ["LRbicx2/a", "LRbicx3/a"]) == {"a": "LRbicx2/a.png"}
    with pytest.raises(ImageError, match=r"no LR image of a; expected .* at scale 2"):
        pairs(["a"], ["X3/a", "LRbicx4/a"])


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("a", "ax2"),
        ("a", "a_LRBI_x2"),
        ("a", "a"),
        ("a", "a_x2"),
        ("a", "a_LR"),
        ("0001", "0001x2m"),
        ("img_001_SRF_2_HR", "img_001_SRF_2_LR"),
        ("baby_HR_x2", "baby_LRBI_x2"),
        ("baby_GT", "baby_LQ"),
        ("Canon_001_HR", "Canon_001_LR2"),
        ("hr_7", "lr_7"),
        ("baby_HR", "babyx2"),
        ("Baby", "babyx2"),
        ("\u00e9", "e\u0301x2"),
    ],
)
def test_the_usual_names_of_lr_images_are_known(hr: str, lr: str) -> None:
    assert pairs([hr], ["elsewhere/other", lr]) == {hr: f"{lr}.png"}
    assert pairs([hr], ["elsewhere/other", f"deep/{lr}"]) == {hr: f"deep/{lr}.png"}


def test_an_lr_image_serves_one_hr_image_only() -> None:
    with pytest.raises(
        ImageError, match=r"lr/xx2\.png: is the only LR image for both a/x and b/x; expected one LR image for"
    ):
        pairs(["a/x", "b/x"], ["xx2"])


def test_several_lr_images_of_one_are_all_named_and_no_file_has_to_go() -> None:
    with pytest.raises(ImageError, match=r"2 LR images of a: lr/LRBI/a\.png, lr/LRBD/a\.png; give --lr the folder"):
        pairs(["a"], ["LRBI/a", "LRBD/a"])
    both = ["a.png", "a.jpg"]
    with pytest.raises(ImageError, match=r"2 LR images of a: .*; move the wrong ones to another folder"):
        matched({"a": "a.png"}, both, Path("lr"), 2)


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Any:
    """evaluated(folder, …): names, mean PSNR and the lines on stderr of bicubic at scale 2."""
    import json

    from sr_core.evaluate import main

    def run(folder: Path, *argv: object) -> tuple[list[str], float, list[str]]:
        command = ["--weights", "bicubic", "--scale", "2", "--benchmark", str(folder), *map(str, argv), "--json"]
        assert main(command) == 0
        printed = capsys.readouterr()
        result = json.loads(printed.out)
        return [row["name"] for row in result["images"]], result["mean"]["psnr"], printed.err.splitlines()

    return run


@pytest.fixture
def photographs() -> dict[str, Any]:
    """Three photographs whose sides are multiples of 12, and their LR."""
    import skimage.data

    from sr_core.images.resize import imresize

    hr = {"astronaut": skimage.data.astronaut()[:96, 200:320], "chelsea": skimage.data.chelsea()[:144, 100:196]}
    hr["coffee"] = skimage.data.coffee()[100:196, 100:244]
    hr = {name: np.ascontiguousarray(pixels) for name, pixels in hr.items()}
    return {name: (pixels, imresize(pixels, 1 / 2), imresize(pixels, 1 / 3)) for name, pixels in hr.items()}


def test_the_mean_over_mixed_downloads_is_that_of_their_ground_truth(
    tmp_path: Path, photographs: dict[str, Any], evaluated: Any
) -> None:
    for name, (hr, x2, x3) in photographs.items():
        for folder, pixels in {
            "plain": hr, "set/GTmod12": hr, "set/original": hr, "set/LRbicx2": x2, "set/LRbicx3": x3,
        }.items():  # fmt: skip
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / folder / f"{name}.png", pixels)
        (tmp_path / "srf").mkdir(exist_ok=True)
        write_png(tmp_path / "srf" / f"{name}_SRF_2_HR.png", hr)
        write_png(tmp_path / "srf" / f"{name}_SRF_2_LR.png", x2)
        write_png(tmp_path / "srf" / f"{name}_SRF_2_bicubic.png", hr)
    names, mean, told = evaluated(tmp_path / "plain")
    assert (names, told) == (["astronaut", "chelsea", "coffee"], [])
    assert evaluated(tmp_path / "set") == (
        names, mean, ["left out: 2 LR folders (LRbicx2, LRbicx3), 1 unused folder (original)"]
    )  # fmt: skip
    found, mean_of_pairs, told = evaluated(tmp_path / "srf")
    assert (found, mean_of_pairs) == ([f"{name}_SRF_2_HR" for name in names], mean)
    assert told == ["left out: 6 LR or result images (astronaut_SRF_2_LR.png, …)"]

    for folder, lr in (("set", "set"), ("set", "set/LRbicx2"), ("srf", "srf")):
        _, with_lr, told = evaluated(tmp_path / folder, "--lr", tmp_path / lr)
        assert with_lr == pytest.approx(mean), folder
        assert len(told) == 1 and "LRbicx2" not in told[0] and "_LR" not in told[0]


def test_an_lr_set_as_clips_is_scored_clip_by_clip_and_the_rest_is_counted(
    tmp_path: Path, photographs: dict[str, Any], evaluated: Any
) -> None:
    for number, (hr, x2, _) in enumerate(photographs.values()):
        for folder, pixels in {"GT": hr, "LQ": x2}.items():
            (tmp_path / folder / f"00{number}").mkdir(parents=True)
            write_png(tmp_path / folder / f"00{number}" / "0001.png", pixels)
    names, mean, _ = evaluated(tmp_path / "GT")
    assert evaluated(tmp_path / "GT", "--lr", tmp_path / "LQ") == (names, pytest.approx(mean), [])
    assert evaluated(tmp_path, "--lr", tmp_path / "LQ") == (names, pytest.approx(mean), [])
    shutil.rmtree(tmp_path / "GT" / "001")
    left_out = f"left out: 1 unused LR image ({tmp_path / 'LQ/001/0001.png'})"
    assert evaluated(tmp_path / "GT", "--lr", tmp_path / "LQ")[2] == [left_out]


def test_set5_scores_the_same_in_the_layouts_of_known_downloads(shared: Path, tmp_path: Path, evaluated: Any) -> None:
    set5 = shared / "data/Set5"
    (tmp_path / "srf").mkdir()
    for hr in sorted((set5 / "HR").iterdir()):
        lr = set5 / "LR_bicubic/X2" / f"{hr.stem}x2.png"
        (tmp_path / "srf" / f"{hr.stem}_SRF_2_HR.png").symlink_to(hr)
        (tmp_path / "srf" / f"{hr.stem}_SRF_2_LR.png").symlink_to(lr)
        for folder, source in {"GTmod12": hr, "original": hr, "LRbicx2": lr}.items():
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / folder / hr.name).symlink_to(source)
    _, mean, _ = evaluated(set5)
    assert mean == pytest.approx(33.673, abs=6e-4)
    for folder in ("srf", "set"):
        names, found, told = evaluated(tmp_path / folder)
        assert (len(names), found, len(told)) == (5, mean, 1)


def test_numbers_behind_srf_are_no_scales(tmp_path: Path) -> None:
    names = ["SRF_0001", "SRF_1001", "SRF_2001", "SRF_3001", "dsrf2_b", "dsrf3_b"]
    images(tmp_path, *names)
    assert truth(tmp_path) == (names, "")


def test_results_in_a_folder_next_to_that_of_the_hr_images_are_no_ground_truth(tmp_path: Path) -> None:
    images(tmp_path / "set" / "HR", "a", "b", "c/a")
    images(tmp_path / "set" / "SRCNN", "a", "b", "c/a")
    images(tmp_path / "set" / "small", "ax2", height=24, width=20)
    images(tmp_path / "set" / "more", "a", "d")
    images(tmp_path / "set" / "others", "a", height=50)
    kept, line = truth(tmp_path)
    assert kept == [f"set/{name}" for name in ("HR/a", "HR/b", "HR/c/a", "more/a", "more/d", "others/a")]
    assert line == "left out: 2 unused folders (set/SRCNN, set/small)"
