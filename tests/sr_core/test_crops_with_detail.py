"""Validation crops skip places without detail, and the crops of photographs do not move."""

import hashlib
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import experiments
from sr_core.errors import ImageError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import Image, read_image
from sr_core.images.scan import list_images
from sr_core.metrics.evaluate import Score, bicubic_psnr, capped, mean_score, score
from sr_core.model.inference import super_resolve
from sr_core.model.weights import load_model
from sr_core.patches import validation
from sr_core.patches.validation import Crop, choose_squares, crop_places, validation_crops
from sr_core.store.sources import embedded_images

FLAT = 128


def photographs() -> dict[str, Image]:
    return {image.name: read_image(image.path) for image in embedded_images().valid}


def crops_of(
    images: dict[str, Image], *, crops: int = 6, side: int = 96, bound: float | None = validation.MAX_BICUBIC_PSNR
) -> list[Crop]:
    hr = [crop_to_multiple(image, 2) for image in images.values()]
    lr = [downsample(image, 2, "matlab_bicubic") for image in hr]
    return validation_crops(list(images), lr, hr, scale=2, crops=crops, lr_crop_size=side, max_bicubic_psnr=bound)


def digest(crops: list[Crop]) -> str:
    content = b"".join(crop.name.encode() + crop.lr.tobytes() + crop.hr.tobytes() for crop in crops)
    return hashlib.sha256(content).hexdigest()[:16]


def page(height: int = 400, width: int = 500, *, level: int = FLAT) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def speckled() -> Image:
    """A page in which one sample in a hundred is one level off."""
    image = page()
    image[np.random.default_rng(3).random(image.shape) < 0.01] += 1
    return image


def dusty(count: int) -> Image:
    """A page in which this number of pixels near the centre are one level off."""
    image = page()
    for number in range(count):
        image[200 + 7 * number, 250 - 5 * number] += 1
    return image


@pytest.mark.parametrize(("crops", "side", "expected"), [(6, 96, "50a0b3d1af4a1959"), (3, 48, "0f2ddcdf2c6cea06")])
def test_crops_of_the_embedded_photographs_are_those_of_version_0_1(crops: int, side: int, expected: str) -> None:
    assert digest(crops_of(photographs(), crops=crops, side=side)) == expected
    assert digest(crops_of(photographs(), crops=crops, side=side, bound=None)) == expected


@pytest.mark.parametrize(
    ("folder", "crops", "side", "expected"),
    [
        ("Set5/HR", 6, 96, "4ef8ac638a1a5e1d"),
        ("Set5/HR", 3, 48, "d05edd03de8ee056"),
        ("valid", 6, 96, "81836940f2abcf8d"),
        ("valid", 3, 48, "1654ac223dc8d814"),
    ],
)
def test_crops_of_the_fields_photographs_are_those_of_version_0_1(
    shared: Path, folder: str, crops: int, side: int, expected: str
) -> None:
    images = {path.stem: read_image(path) for path in list_images(shared / "data" / folder)}
    assert digest(crops_of(images, crops=crops, side=side)) == expected


def test_without_a_bound_every_crop_is_that_of_version_0_1(shared: Path) -> None:
    images = {path.stem: read_image(path) for path in list_images(shared / "data/Set5/HR")}
    assert digest(crops_of(images, crops=20, side=24, bound=None)) == "73db907deb16c470"
    assert "page" in {crop.name for crop in crops_of(photographs() | {"page": page()}, bound=None)}


@pytest.mark.parametrize("flat", [page(), page(level=0), page(level=255), speckled()], ids=["grey", "0", "255", "dust"])
def test_an_image_without_detail_gives_its_crops_to_the_others(flat: Image) -> None:
    images = {"page": flat, **photographs()}
    names, hr = list(images), [crop_to_multiple(image, 2) for image in images.values()]
    lr = [downsample(image, 2, "matlab_bicubic") for image in hr]
    chosen = choose_squares(names, lr, hr, scale=2, crops=6, lr_crop_size=96)
    assert chosen.without_detail == ("page",)
    assert digest(chosen.cut(names, lr, hr, 2)) == digest(crops_of(photographs()))


def test_one_crop_comes_from_the_image_with_detail_whichever_it_is() -> None:
    name, photograph = next(iter(photographs().items()))
    images = {f"page {number}": page() for number in range(5)} | {name: photograph}
    assert [crop.name for crop in crops_of(images, crops=1)] == [name]


def test_every_place_of_an_image_is_considered_before_it_is_left_out() -> None:
    image = page(700, 900)
    image[530:570, 650:700] = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = crops_of({"page": image}, crops=1, side=24)
    assert len(found) == 1
    assert bicubic_psnr(found[0].lr, found[0].hr, 2) < validation.MAX_BICUBIC_PSNR


def test_a_blank_page_with_a_frame_gives_crops_of_its_frame() -> None:
    image = page(level=255)
    image[:6] = image[-6:] = 0
    image[:, :6] = image[:, -6:] = 0
    crops = crops_of({"page": image, **photographs()}, crops=6)
    assert "page" in {crop.name for crop in crops}
    assert all(bicubic_psnr(crop.lr, crop.hr, 2) < validation.MAX_BICUBIC_PSNR for crop in crops)


def test_a_dither_of_one_level_is_no_detail() -> None:
    image = page()
    image[(np.indices(image.shape[:2]).sum(axis=0) % 2).astype(bool)] += 1
    with pytest.raises(ImageError, match="no validation image has enough detail"):
        crops_of({"dither": image})


def test_where_no_image_has_detail_the_error_names_them() -> None:
    with pytest.raises(ImageError, match=r"no validation image has enough detail \(p0, p1, p2, …\).*50 dB"):
        crops_of({f"p{number}": page() for number in range(5)})


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_second_place_of_a_half_empty_image_is_taken_instead_of_the_first(scale: int) -> None:
    image = page(600, 900)
    image[:, 700:] = np.random.default_rng(1).integers(0, 256, (600, 200, 3), dtype=np.uint8)
    lr = downsample(image, scale, "matlab_bicubic")
    chosen = choose_squares(["half"], [lr], [image], scale=scale, crops=2, lr_crop_size=40)
    assert len(chosen.places) == 2
    assert all(x + 40 > 700 // scale for _, (_, x) in chosen.places)
    assert chosen.without_detail == ()


def test_a_large_page_is_not_enlarged_place_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    enlarged = []

    def counted(lr: Image, hr: Image, scale: int) -> float:
        enlarged.append(lr.shape)
        return bicubic_psnr(lr, hr, scale)

    monkeypatch.setattr(validation, "bicubic_psnr", counted)
    image = page(1600, 1200)
    image[1200:1210, 300:400] = 0
    crops = crops_of({"page": image}, crops=2, side=24)
    assert len(crops) == 2
    assert len(enlarged) < 10


def test_the_objective_does_not_hang_on_two_samples_of_a_flat_image() -> None:
    """Six crops under the released network. Without the bound, two samples one level off change the mean by 0.1 dB."""
    network = load_model(Path(experiments.__path__[0]) / "released/a2n_small_x2/weights.safetensors", None)

    def objective(flat: Image, bound: float | None) -> float:
        crops = crops_of({**photographs(), "page": flat}, bound=bound)
        assert len(crops) == 6
        return mean_score(
            [score(super_resolve(network, crop.lr), crop.hr, scale=2, protocol="canonical") for crop in crops]
        ).psnr

    assert abs(objective(dusty(4), None) - objective(dusty(2), None)) > 0.1
    assert abs(objective(dusty(4), 50.0) - objective(dusty(2), 50.0)) < 0.02


def test_places_in_a_large_image_take_little_memory_however_small_the_side() -> None:
    tracemalloc.start()
    places = crop_places(2000, 3000, 8, 6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(places)) == 6
    assert peak < 32 << 20


def test_an_exact_image_counts_100_db_in_a_mean_and_nan_stays_nan() -> None:
    assert mean_score([Score(math.inf, 1.0), Score(40, 0.5)]) == Score(70, 0.75)
    assert capped(Score(math.inf, 1.0)) == Score(100, 1.0)
    assert capped(Score(99.5, 1.0)) == Score(99.5, 1.0)
    assert math.isnan(mean_score([Score(math.nan, math.nan), Score(40, 0.5)]).psnr)
