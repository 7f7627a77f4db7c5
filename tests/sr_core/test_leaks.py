"""Detection of edited copies of images, and of no other images."""

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from sr_core.errors import ImageError
from sr_core.images.files import Image, read_image, write_png
from sr_core.leaks import recognition
from sr_core.leaks.overlap import Duplicate, Leak, examine, find_duplicates, find_leaks
from sr_core.store.sources import SourceImage, embedded_images

EMBEDDED = {image.name: image for images in (embedded_images(),) for image in images.train + images.valid}
TEXTURES = ("brick", "grass", "gravel")
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
GUISES = [
    (scale, quality, CORNERS[i % 5], i % 2 == 0)
    for i, (scale, quality) in enumerate(itertools.product((0.5, 0.7, 1.0, 1.5), (50, 75, 95)))
]
"""Resize factor, JPEG quality, position of the crop, and True if mirrored."""

Keep = Callable[[str, Image], SourceImage]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """keep(name, pixels) is an image file, of the format that the name says."""

    def write(name: str, pixels: Image) -> SourceImage:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, pixels) if path.suffix == ".png" else PIL.Image.fromarray(pixels).save(path, quality=75)
        return SourceImage(name, path)

    return write


def in_folder(folder: Path) -> list[SourceImage]:
    return [SourceImage(path.stem, path) for path in sorted(folder.rglob("*.png"))]


def cropped(pixels: Image, share: float, place: tuple[float, float]) -> Image:
    """A crop with this share of each side, at a position from the top left (0, 0) to the bottom right (1, 1)."""
    (height, width), (x, y) = pixels.shape[:2], place
    h, w = round(share * height), round(share * width)
    top, left = round(y * (height - h)), round(x * (width - w))
    return pixels[top : top + h, left : left + w]


def resized(pixels: Image, scale: float) -> Image:
    size = round(scale * pixels.shape[1]), round(scale * pixels.shape[0])
    return np.array(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC))


def as_jpeg(pixels: Image, quality: int) -> Image:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(PIL.Image.open(file))


def disguised(pixels: Image, scale: float, quality: int, place: tuple[float, float], mirrored: bool) -> Image:
    small = resized(cropped(pixels, 0.8, place), scale)
    return as_jpeg(np.ascontiguousarray(small[:, ::-1]) if mirrored else small, quality)


def pairs(leaks: Sequence[Leak]) -> set[tuple[str, str]]:
    return {(leak.training, leak.held_out) for leak in leaks}


def most_agreeing(leaks: Sequence[Leak]) -> int:
    return max((int(leak.evidence.split()[0]) for leak in leaks if "keypoints" in leak.evidence), default=0)


# What has to be found, on the photographs of scikit-image


@pytest.mark.slow
def test_a_crop_of_80_percent_is_known_at_any_size_quality_and_mirrored(keep: Keep) -> None:
    held_out = [EMBEDDED[name] for name in ("camera", "chelsea", *TEXTURES)]
    train = {
        keep(f"{i}/{image.name}.png", disguised(read_image(image.path), *guise)): (image.name, guise[-1])
        for image in held_out
        for i, guise in enumerate(GUISES)
    }
    leaks = find_leaks(list(train), {"valid": held_out})
    found = [(leak.kind, leak.set_name, leak.held_out, leak.evidence.endswith("mirrored")) for leak in leaks]
    assert found == [("near duplicate", "valid", name, mirrored) for name, mirrored in train.values()]


def test_a_smaller_part_an_enlargement_and_a_quarter_turn_are_known_too(keep: Keep) -> None:
    coffee = read_image(EMBEDDED["coffee"].path)
    train = [
        keep("part.jpg", cropped(coffee, 0.5, (0.4, 0.4))),
        keep("larger.jpg", resized(coffee, 3.0)),
        keep("turned.jpg", np.rot90(coffee).copy()),
    ]
    assert pairs(find_leaks(train, {"valid": [EMBEDDED["coffee"]]})) == {(p.name, "coffee") for p in train}


def test_a_held_out_image_may_be_the_part_and_the_training_image_the_whole(keep: Keep) -> None:
    part = keep("part.png", cropped(read_image(EMBEDDED["motorcycle_left"].path), 0.6, (0.5, 0.5)))
    (leak,) = find_leaks([EMBEDDED["motorcycle_left"], EMBEDDED["page"]], {"Set5": [part]})
    assert (leak.training, leak.held_out, leak.set_name) == ("motorcycle_left", "part.png", "Set5")


def test_the_same_pixels_in_another_kind_of_file_are_the_same_pixels(keep: Keep) -> None:
    pixels = read_image(EMBEDDED["chelsea"].path)
    (leak,) = find_leaks([keep("cat.bmp", pixels)], {"valid": [EMBEDDED["rocket"], EMBEDDED["chelsea"]]})
    assert (leak.kind, leak.training, leak.held_out) == ("same pixels", "cat.bmp", "chelsea")


def test_an_image_that_several_sets_hold_is_a_leak_from_each(keep: Keep) -> None:
    coffee = read_image(EMBEDDED["coffee"].path)
    copies = [keep(f"{i}.png", resized(coffee, 1 - 0.05 * i)) for i in range(10)]
    leaks = find_leaks([EMBEDDED["coffee"]], {"valid": copies[1:5], "Set5": copies[5:]})
    assert [(leak.set_name, leak.held_out) for leak in leaks] == [
        *(("valid", f"{i}.png") for i in range(1, 5)),
        *(("Set5", f"{i}.png") for i in range(5, 10)),
    ]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "moon"])
def test_an_image_without_texture_is_known_as_a_whole(name: str, mirrored: bool, keep: Keep) -> None:
    blurred = {
        other: np.asarray(cv2.GaussianBlur(read_image(EMBEDDED[other].path), (0, 0), 25), np.uint8)
        for other in ("chelsea", "coffee", "rocket", "moon")
    }
    held_out = [keep(f"{other}.png", pixels) for other, pixels in blurred.items()]
    copy = resized(blurred[name], 0.5)
    train = keep("copy.png", as_jpeg(np.ascontiguousarray(copy[:, ::-1]) if mirrored else copy, 50))
    (leak,) = find_leaks([train], {"valid": held_out})
    assert leak.held_out == f"{name}.png"
    assert leak.evidence.startswith("correlation")


# What must not be found


@pytest.mark.slow
def test_the_embedded_images_raise_no_alarm_and_are_far_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = embedded_images()
    found = examine(images.train, {"valid": images.valid})
    assert (found.leaks, found.duplicates) == ((), ())
    monkeypatch.setattr(recognition, "AGREE", 3)
    assert most_agreeing(find_leaks(images.train, {"valid": images.valid})) <= 6


@pytest.mark.parametrize("texture", TEXTURES)
def test_other_parts_of_the_same_texture_are_other_images(texture: str, keep: Keep) -> None:
    pixels = read_image(EMBEDDED[texture].path)
    left, right = keep("left.png", pixels[:, :256].copy()), keep("right.png", pixels[:, 256:].copy())
    others = [EMBEDDED[name] for name in TEXTURES if name != texture]
    assert find_leaks([left], {"valid": [right, *others]}) == []


def test_plain_areas_and_skies_are_all_alike_and_show_nothing(keep: Keep) -> None:
    ramp = np.linspace(40, 220, 128)
    grain = np.random.default_rng(1).normal(0, 1, (2, 96, 128))

    def grey(pixels: object) -> Image:
        return np.repeat(np.asarray(pixels).round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)

    train = [keep("plain.png", grey(90 + grain[0])), keep("sky.png", grey(ramp + grain[0]))]
    held_out = [keep("other_plain.png", grey(90 + grain[1])), keep("other_sky.png", grey(ramp + grain[1]))]
    assert find_leaks(train, {"valid": held_out}) == []
    (leak,) = find_leaks([train[0]], {"valid": [keep("copy.png", grey(90 + grain[0]))]})
    assert leak.kind == "same pixels"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 400), (40, 2), (16, 16)])
def test_images_of_a_few_pixels_are_compared_as_they_are(size: tuple[int, int], keep: Keep) -> None:
    one, other = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    held_out = {"valid": [keep("other.png", other)]}
    assert find_leaks([keep("one.png", one), EMBEDDED["text"]], held_out) == []
    assert [leak.kind for leak in find_leaks([keep("copy.png", other)], held_out)] == ["same pixels"]


def test_nothing_held_out_is_no_leak() -> None:
    assert find_leaks([EMBEDDED["text"]], {}) == find_leaks([EMBEDDED["text"]], {"valid": []}) == []
    assert find_leaks([], {"valid": [EMBEDDED["text"]]}) == []


# Duplicates


def test_a_duplicate_is_reported_once_with_the_first_of_its_kind(keep: Keep) -> None:
    coffee = read_image(EMBEDDED["coffee"].path)
    images = [
        EMBEDDED["coffee"],
        EMBEDDED["chelsea"],
        keep("small.png", as_jpeg(resized(coffee, 0.5), 75)),
        keep("copy.png", coffee),
        keep("again.png", coffee),
    ]
    found = find_duplicates(images)
    assert [(d.kind, d.first, d.again) for d in found] == [
        ("near duplicate", "coffee", "small.png"),
        ("same pixels", "coffee", "copy.png"),
        ("same pixels", "coffee", "again.png"),
    ]
    assert list(examine(images, {}).duplicates) == found


# How it goes about it


def test_processes_change_nothing_but_the_time(keep: Keep) -> None:
    train = [EMBEDDED[name] for name in ("text", "page", "coins")]
    train += [keep("cat.jpg", read_image(EMBEDDED["chelsea"].path)), keep("coins.png", read_image(train[2].path))]
    held_out = {"valid": [EMBEDDED["chelsea"], EMBEDDED["camera"]]}
    told: list[tuple[int, int]] = []
    alone = examine(train, held_out, lambda *now: told.append(now), workers=1)
    assert examine(train, held_out, workers=2) == alone
    assert told == [(i, 7) for i in range(1, 8)]
    assert pairs(alone.leaks) == {("cat.jpg", "chelsea")}
    assert alone.duplicates[0].again == "coins.png"


def test_many_images_are_compared_across_chunks(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_core.leaks.overlap._CHUNK_IMAGES", 2)
    coins = read_image(EMBEDDED["coins"].path)
    names = ("coins", "text", "page", "coffee", "chelsea")
    images = [*(EMBEDDED[name] for name in names), keep("copy.png", coins), keep("small.png", resized(coins, 0.7))]
    found = find_duplicates(images)
    assert [(d.first, d.again) for d in found] == [("coins", "copy.png"), ("coins", "small.png")]
    assert isinstance(found[0], Duplicate)
    assert pairs(find_leaks(images, {"valid": [EMBEDDED["coins"]]})) == {
        ("coins", "coins"), ("copy.png", "coins"), ("small.png", "coins"),
    }  # fmt: skip


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        find_leaks([SourceImage("broken.png", broken)], {"valid": [EMBEDDED["text"]]})


# What has to be found, and must not be, on the images of the field


@pytest.mark.slow
def test_set5_is_known_in_every_guise(shared: Path, keep: Keep) -> None:
    held_out = in_folder(shared / "data/Set5/HR")
    train = [
        keep(f"{image.name}_{i}_{j}.png", disguised(read_image(image.path), scale, quality, place, mirrored))
        for image in held_out
        for i, (scale, quality, _, mirrored) in enumerate(GUISES)
        for j, place in enumerate(CORNERS)
        if i % 5 == j or (scale, quality) == (0.5, 50)
    ]
    leaks = find_leaks(train, {"Set5": held_out})
    assert pairs(leaks) == {(p.name, p.name.split("_")[0]) for p in train}
    # The hardest are head (skin) and woman at half the size; 12 are enough.
    assert min(int(leak.evidence.split()[0]) for leak in leaks) >= 30


@pytest.mark.slow
def test_the_demanded_case_is_found_among_many(shared: Path, keep: Keep) -> None:
    woman = read_image(shared / "data/Set5/HR/woman.png")
    small = resized(cropped(woman, 0.8, (0.3, 0.6)), 0.7)
    copy = keep("train/woman.jpg", small)  # the fixture's quality is 75
    train = [*in_folder(shared / "data/train/T91")[:20], copy]
    benchmarks = {name: in_folder(shared / f"data/{name}/HR") for name in ("Set5", "Set14")}
    (leak,) = find_leaks(train, {"valid": in_folder(shared / "data/valid"), **benchmarks})
    assert (leak.kind, leak.training, leak.held_out, leak.set_name) == (
        "near duplicate", "train/woman.jpg", "woman", "Set5",
    )  # fmt: skip


def test_set5_and_set14_share_a_face_and_a_butterfly(shared: Path) -> None:
    leaks = find_leaks(in_folder(shared / "data/Set5/HR"), {"Set14": in_folder(shared / "data/Set14/HR")})
    assert pairs(leaks) == {("head", "face"), ("butterfly", "monarch")}


def test_t91_holds_one_image_twice(shared: Path) -> None:
    (found,) = find_duplicates(in_folder(shared / "data/train"))
    assert (found.kind, found.first, found.again) == ("same pixels", "t36", "t65")


@pytest.mark.slow
@pytest.mark.parametrize("share", [8, pytest.param(1, marks=pytest.mark.long)])
def test_380_training_images_are_far_from_an_alarm(share: int, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them take half a minute, so the default run uses one in eight."""
    monkeypatch.setattr(recognition, "AGREE", 4)
    held_out = {name: in_folder(shared / "data" / name) for name in ("valid", "Set5/HR", "Set14/HR")}
    train = in_folder(shared / "data/train")
    assert len(train) == 380
    leaks = find_leaks(train[::share], held_out)
    assert most_agreeing(leaks) <= 7
    assert all("keypoints" in leak.evidence for leak in leaks), "no thumbnail is like another's"
