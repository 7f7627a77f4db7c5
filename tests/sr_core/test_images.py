"""Image files that are read exactly, turned upright, converted, or refused in one line."""

import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sr_core.errors import ImageError
from sr_core.images.files import Image, image_sides, read_image, write_png
from sr_core.images.scan import list_images

RGB: Image = np.random.default_rng(11).integers(0, 256, (9, 14, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def saved(path: Path, image: PIL.Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp"])
def test_a_lossless_image_comes_back_in_every_sample(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", PIL.Image.fromarray(RGB), **options)
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_jpeg_comes_back_as_pillow_decodes_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", PIL.Image.fromarray(RGB), quality=95)
    pixels = read_image(path)
    np.testing.assert_array_equal(pixels, np.asarray(PIL.Image.open(path)))
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_a_grey_image_becomes_three_equal_channels(mode: str, tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(RGB[..., 0]).convert(mode)
    pixels = read_image(saved(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(pixels, np.repeat(np.asarray(grey.convert("L"))[..., None], 3, axis=2))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    palette = PIL.Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", palette)), np.asarray(palette.convert("RGB")))


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", PIL.Image.fromarray(opaque))), RGB)


UPRIGHT = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.swapaxes(0, 1),
    6: np.rot90(RGB, -1),
    7: RGB[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(RGB),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_exif_orientation_is_applied_once(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", PIL.Image.fromarray(RGB), exif=exif, **options)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation])


def test_a_jpeg_is_turned_by_exif_or_xmp(tmp_path: Path) -> None:
    path, image = tmp_path / "a.jpg", PIL.Image.fromarray(RGB)
    image.save(path, quality=95)
    plain = read_image(path)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 8
    image.save(path, quality=95, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(plain))
    image.save(path, quality=95, xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="3"/></x:xmpmeta>')
    np.testing.assert_array_equal(read_image(path), plain[::-1, ::-1])


def test_an_orientation_that_does_not_exist_is_ignored(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 9
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", PIL.Image.fromarray(RGB), exif=exif)), RGB)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_tiny_image_keeps_its_shape(suffix: str, shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    PIL.Image.fromarray(RGB[: shape[0], : shape[1]]).save(path)
    assert read_image(path).shape == (*shape, 3)


def test_sixteen_bits_per_pixel_of_an_old_bitmap_are_not_sixteen_per_channel(tmp_path: Path) -> None:
    header = b"BM" + struct.pack("<III", 58, 0, 54)
    path = tmp_path / "a.bmp"
    path.write_bytes(header + struct.pack("<IIIHH24x", 40, 1, 1, 1, 16) + b"\x00\x7c\x00\x00")  # 5-5-5: red 31
    assert read_image(path).tolist() == [[[255, 0, 0]]]


def test_the_first_image_of_a_cameras_mpo_is_read(tmp_path: Path) -> None:
    photograph, preview = PIL.Image.fromarray(RGB), PIL.Image.fromarray(RGB[:4, :4])
    path = saved(tmp_path / "a.jpg", photograph, format="MPO", save_all=True, append_images=[preview])
    assert read_image(path).shape == RGB.shape


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # in a program the reader sees to that
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_a_file_cut_off_anywhere_is_refused_or_still_whole(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{suffix}", PIL.Image.fromarray(RGB))
    whole, data = read_image(path), path.read_bytes()
    refused = 0
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read_image(path), whole)
        except ImageError as exc:
            assert str(path) in str(exc)
            refused += 1
    assert refused > len(data) // 7 - 3  # only the last few bytes may be missed without a loss


def test_a_damaged_file_is_refused_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"not an image")
    with pytest.raises(
        ImageError, match=r"a\.png: cannot be decoded as an image: expected a PNG.*replace it"
    ) as caught:
        read_image(path)
    assert isinstance(caught.value.__cause__, PIL.UnidentifiedImageError)


def test_an_empty_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match="no such image"):
        read_image(path)
    path.touch()
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(path)


def test_a_folder_is_listed_at_any_depth_in_the_order_of_relative_paths(tmp_path: Path) -> None:
    names = ["b.PNG", "a/z.jpeg", "a.jpg", "a/b/c.tif", "B.webp", "a/readme.txt", ".hidden.png", ".cache/x.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert listed == ["B.webp", "a.jpg", "a/b/c.tif", "a/z.jpeg", "b.PNG"]


def test_a_folder_inside_a_hidden_one_is_listed_when_it_is_the_one_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / ".data"
    folder.mkdir()
    (folder / "a.png").touch()
    assert list_images(folder) == [folder / "a.png"]


def test_a_missing_folder_a_file_and_a_folder_without_images_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "missing")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="expected a folder of images, got a file"):
        list_images(tmp_path / "notes.txt")
    with pytest.raises(ImageError, match=r"no image in this folder; expected \.bmp, "):
        list_images(tmp_path)


@pytest.mark.parametrize("image", [RGB, RGB[:, ::2], RGB.swapaxes(0, 1)], ids=["whole", "strided", "transposed"])
def test_a_written_image_comes_back(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, image)
    np.testing.assert_array_equal(read_image(path), image)


def test_a_grey_image_is_written_with_one_channel(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", RGB[..., 0])
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"


def test_writing_where_nothing_can_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be written .*choose another folder"):
        write_png(tmp_path / "missing" / "a.png", RGB)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_sides_in_the_header_are_those_of_the_pixels(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(path, **({} if suffix == ".bmp" else {"exif": exif}))
    assert image_sides(path) == (5, 9)
    assert sorted(read_image(path).shape[:2]) == [5, 9]


def test_a_file_without_a_header_is_refused_as_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(ImageError) as of_sides:
            image_sides(path)
        with pytest.raises(ImageError) as of_pixels:
            read_image(path)
        assert str(of_sides.value) == str(of_pixels.value)
    with pytest.raises(ImageError, match="no such image"):
        image_sides(tmp_path / "gone.png")


def test_an_image_that_this_user_may_not_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")

    def refused(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ImageError, match="this user may not read it"):
        read_image(path)
