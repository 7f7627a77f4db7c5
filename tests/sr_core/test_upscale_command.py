"""python -m sr_core.upscale: the properties that images keep, the output paths, and bad images."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import torch
from safetensors.torch import save_file

from sr_core.config import DataConfig, ModelConfig, Scale
from sr_core.images.files import write_png
from sr_core.images.own_images import OwnImage, enlarged_png
from sr_core.images.resize import imresize
from sr_core.model import enlarge
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import to_published
from sr_core.upscale import main

NeedsName = Callable[[str], None]

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
ORIENTATION = 0x0112


def network(scale: Scale = 2) -> A2N:
    model = A2N(ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1), scale)
    initialise(model, 1)
    return model.eval()


def save_weights(folder: Path, scale: Scale = 2) -> Path:
    """Weights as a study writes them."""
    model = network(scale)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"model": asdict(model.config), "data": asdict(DataConfig(scale=scale))}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "trained")


def expected(pixels: np.ndarray, *, scale: Scale = 2, self_ensemble: bool = False) -> np.ndarray:
    sr = super_resolve(network(scale), np.ascontiguousarray(pixels), self_ensemble=self_ensemble)
    return np.rint(np.clip(sr, 0, 255)).astype(np.uint8)


def upscaled(weights: Path, out: Path, *argv: object, status: int = 0) -> None:
    assert main(["--weights", str(weights), "--out", str(out), "--device", "cpu", *map(str, argv)]) == status


def opened(path: Path) -> PIL.Image.Image:
    image = PIL.Image.open(path)
    image.load()
    return image


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def off_by_at_most_one(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Another memory format of the weights changes the order of sums, so a few roundings differ."""
    assert found.shape == wanted.shape
    difference = abs(found.astype(int) - wanted)
    return bool(difference.max() <= 1 and (difference > 0).mean() <= 0.002)


def test_an_image_becomes_the_network_s_output_under_a_clear_name(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    PIL.Image.fromarray(PIXELS).save(tmp_path / "photo.tiff")
    upscaled(weights, tmp_path / "out", tmp_path / "photo.tiff")
    assert names(tmp_path / "out") == ["photo_x2.png"]
    enlarged = opened(tmp_path / "out/photo_x2.png")
    assert (enlarged.format, enlarged.mode, enlarged.size) == ("PNG", "RGB", (34, 26))
    assert off_by_at_most_one(np.asarray(enlarged), expected(PIXELS))
    *_, line, last = capsys.readouterr().out.splitlines()
    assert line == f"{tmp_path / 'photo.tiff'} -> {tmp_path / 'out/photo_x2.png'}"
    assert last == "1 enlarged 2 times, 0 skipped, 0 failed"


def test_the_ensemble_and_bf16_are_asked_for_by_flags(weights: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    for flags in (["--self-ensemble"], ["--precision", "bf16"]):
        upscaled(weights, tmp_path / flags[0], tmp_path / "a.png", *flags)
    ensemble, bf16 = (np.asarray(opened(tmp_path / f / "a_x2.png")) for f in ("--self-ensemble", "--precision"))
    assert off_by_at_most_one(ensemble, expected(PIXELS, self_ensemble=True))
    plain = expected(PIXELS)
    assert not off_by_at_most_one(ensemble, plain)
    assert 0 < abs(bf16.astype(int) - plain).max() <= 4


def test_alpha_is_enlarged_by_exact_bicubic_along_with_the_colours(weights: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.dstack([PIXELS, ALPHA]))
    upscaled(weights, tmp_path / "out", tmp_path / "a.png")
    enlarged = np.asarray(opened(tmp_path / "out/a_x2.png"))
    assert off_by_at_most_one(enlarged[..., :3], expected(PIXELS))
    np.testing.assert_array_equal(enlarged[..., 3], imresize(ALPHA, 2))


def test_grey_stays_grey_with_and_without_alpha(weights: Path, tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    write_png(tmp_path / "l.png", grey)
    write_png(tmp_path / "la.png", np.dstack([grey, ALPHA]))
    PIL.Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    upscaled(weights, tmp_path / "out", *(tmp_path / f"{name}.png" for name in ("l", "la", "bits")))
    r, g, b = np.moveaxis(super_resolve(network(), np.dstack([grey] * 3)), 2, 0)
    luma = np.rint(np.clip(0.299 * r + 0.587 * g + 0.114 * b, 0, 255))
    plain, la, bits = (opened(tmp_path / f"out/{name}_x2.png") for name in ("l", "la", "bits"))
    assert (plain.mode, la.mode, bits.mode) == ("L", "LA", "L")
    assert off_by_at_most_one(np.asarray(plain), luma)
    np.testing.assert_array_equal(np.asarray(la)[..., 0], np.asarray(plain))
    np.testing.assert_array_equal(np.asarray(la)[..., 1], imresize(ALPHA, 2))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 4), (9, 1, 3), (2, 2)])
def test_images_of_a_pixel_or_a_line_are_enlarged_too(weights: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_png(tmp_path / "a.png", RNG.integers(0, 256, shape, dtype=np.uint8))
    upscaled(weights, tmp_path / "out", tmp_path / "a.png", "--self-ensemble")
    assert np.asarray(opened(tmp_path / "out/a_x2.png")).shape == (2 * shape[0], 2 * shape[1], *shape[2:])


def test_a_folder_s_gifs_are_left_out_and_one_line_says_so(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PIL.Image.new("RGB", (8, 8)).save(folder / "a.png")
    for name in ("b.gif", "c.GIF"):
        PIL.Image.new("L", (8, 8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    upscaled(weights, tmp_path / "out", folder)
    assert names(tmp_path / "out") == ["a_x2.png"]
    assert f"left out: 2 GIF files ({folder / 'b.gif'}, …)\n" in capsys.readouterr().err


def test_a_webp_with_alpha_keeps_it(weights: Path, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.dstack([PIXELS, ALPHA])).save(tmp_path / "a.webp", lossless=True, exact=True)
    upscaled(weights, tmp_path / "out", tmp_path / "a.webp")
    enlarged = np.asarray(opened(tmp_path / "out/a_x2.png"))
    assert off_by_at_most_one(enlarged[..., :3], expected(PIXELS))
    np.testing.assert_array_equal(enlarged[..., 3], imresize(ALPHA, 2))


def test_a_palette_with_a_transparent_entry_becomes_colours_with_alpha(weights: Path, tmp_path: Path) -> None:
    image = PIL.Image.fromarray(PIXELS[..., 0] // 64, mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image.save(tmp_path / "p.png", transparency=1)
    upscaled(weights, tmp_path / "out", tmp_path / "p.png")
    enlarged = opened(tmp_path / "out/p_x2.png")
    alpha = np.where(PIXELS[..., 0] // 64 == 1, 0, 255).astype(np.uint8)
    assert enlarged.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(enlarged)[..., 3], imresize(alpha, 2))


def test_a_turned_photograph_comes_out_upright_with_its_profile_and_without_the_tag(
    weights: Path, tmp_path: Path
) -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise
    PIL.Image.fromarray(PIXELS).save(tmp_path / "phone.png", exif=exif, icc_profile=SRGB)
    upscaled(weights, tmp_path / "out", tmp_path / "phone.png")
    enlarged = opened(tmp_path / "out/phone_x2.png")
    assert off_by_at_most_one(np.asarray(enlarged), expected(np.rot90(PIXELS, -1)))
    assert enlarged.info["icc_profile"] == SRGB
    assert ORIENTATION not in enlarged.getexif()


def test_a_profile_for_other_channels_is_not_passed_on(weights: Path, tmp_path: Path) -> None:
    PIL.Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.jpg", icc_profile=SRGB)
    upscaled(weights, tmp_path / "out", tmp_path / "grey.jpg")
    assert "icc_profile" not in opened(tmp_path / "out/grey_x2.png").info


def test_sixteen_bits_are_rounded_to_eight_and_keep_the_profile(weights: Path, tmp_path: Path) -> None:
    deep = PIXELS[..., 0].astype(np.uint16) * 257 + 100
    PIL.Image.fromarray(deep).save(tmp_path / "deep.png")
    write_png(tmp_path / "eight.png", PIXELS[..., 0])
    upscaled(weights, tmp_path / "out", tmp_path)
    found, same = (opened(tmp_path / f"out/{name}_x2.png") for name in ("deep", "eight"))
    assert found.mode == "L"
    np.testing.assert_array_equal(np.asarray(found), np.asarray(same))


def test_folders_are_taken_at_any_depth_and_outputs_below_them_are_not(weights: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "2024/may").mkdir(parents=True)
    (photos / ".hidden").mkdir()
    for name in ("a.png", "2024/a.png", "2024/may/b.png", ".hidden/c.png"):
        write_png(photos / name, PIXELS)
    for _ in range(2):
        upscaled(weights, photos / "large", photos)
    written = sorted(p.relative_to(photos / "large").as_posix() for p in (photos / "large").rglob("*.*"))
    assert written == ["2024/a_x2.png", "2024/may/b_x2.png", "a_x2.png"]


def test_what_is_there_is_kept_unless_asked_otherwise(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_x2.png").write_bytes(b"mine")
    upscaled(weights, tmp_path / "out", tmp_path / "a.png")
    assert (tmp_path / "out/a_x2.png").read_bytes() == b"mine"
    out = capsys.readouterr().out
    assert f"skipping 1 of 1 images that already exist in {tmp_path / 'out'}; --overwrite replaces them" in out
    assert out.endswith("0 enlarged 2 times, 1 skipped, 0 failed\n")
    upscaled(weights, tmp_path / "out", tmp_path / "a.png", "--overwrite")
    assert opened(tmp_path / "out/a_x2.png").size == (34, 26)


def test_an_input_is_never_overwritten(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "a_x2.png"):
        write_png(photos / name, PIXELS)
    before = (photos / "a_x2.png").read_bytes()
    inputs = (photos / "a.png", photos / "a_x2.png")
    upscaled(weights, photos, *inputs, "--overwrite", status=2)
    assert (photos / "a_x2.png").read_bytes() == before
    assert "a.png: would become" in capsys.readouterr().err
    upscaled(weights, photos, photos, status=2)
    assert "is also --out" in capsys.readouterr().err
    assert names(photos) == ["a.png", "a_x2.png", "a_x2_x2.png"]


@pytest.mark.parametrize(
    ("first", "second"), [("A.png", "a.jpg"), ("B/a.png", "b/a.png"), ("\u00e9.png", "e\u0301.png")]
)
def test_outputs_that_are_one_file_on_some_disks_are_a_fault_of_the_second(
    first: str,
    second: str,
    weights: Path,
    tmp_path: Path,
    needs_name: NeedsName,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs_name(second)
    photos = tmp_path / "photos"
    for name in (first, second):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(PIXELS).save(photos / name)
    in_order = sorted((first, second))
    upscaled(weights, tmp_path / "out", photos, status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {photos / in_order[1]}: {photos / in_order[0]} would also become ")
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")]
    assert written == [Path(in_order[0]).with_name(f"{Path(in_order[0]).stem}_x2.png")]


def test_entries_that_are_no_files_are_a_line_each_and_block_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_png(photos / "a.png", PIXELS)
    os.mkfifo(photos / "b.png")
    (photos / "c.png").symlink_to("gone.png")
    (tmp_path / "elsewhere").mkdir()
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    upscaled(weights, tmp_path / "out", photos, photos / "b.png", status=2)
    *errors, left_out = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in errors] == [
        f"error: {photos / 'b.png'}: expected an image file, got a named pipe",
        f"error: {photos / 'c.png'}: is a link to gone.png, which cannot be followed (No such file or directory)",
        f"error: {photos / 'b.png'}: expected an image file, got a named pipe",
    ]
    assert left_out == f"left out: 1 linked folder ({photos / 'linked'})"
    assert names(tmp_path / "out") == ["a_x2.png"]


def test_what_lies_below_the_output_folder_is_no_fault(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in/out").mkdir(parents=True)
    write_png(tmp_path / "in/a.png", PIXELS)
    (tmp_path / "in/out/b.png").symlink_to("gone.png")
    (tmp_path / "in/out/c.gif").touch()
    upscaled(weights, tmp_path / "in/out", tmp_path / "in")
    assert capsys.readouterr().err == ""


def test_bad_inputs_are_a_line_each_and_the_others_are_enlarged(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png", "z.png"):
        write_png(photos / name, PIXELS)
    shutil.copy(photos / "a.png", photos / "a.webp")  # the same name, without its suffix
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:-40])
    (photos / "text.jpg").write_text("no image")
    PIL.Image.new("CMYK", (8, 8)).save(photos / "print.jpg")
    (tmp_path / "empty").mkdir()
    upscaled(weights, tmp_path / "out", tmp_path / "gone.png", photos, tmp_path / "empty", status=2)
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert all(line.startswith("error: ") for line in errors)
    reasons = {
        "gone.png": "no such image",
        "empty": "no image in this folder",
        "a.webp": "would also become",
        "b.png": "cannot be decoded",
    }
    reasons |= {"text.jpg": "cannot be decoded", "print.jpg": "is a CMYK image"}
    assert len(errors) == len(reasons)
    for name, reason in reasons.items():
        assert any(f"{name}: " in line and reason in line for line in errors), name
    assert names(tmp_path / "out") == ["a_x2.png", "z_x2.png"]
    assert printed.out.endswith("2 enlarged 2 times, 0 skipped, 6 failed\n")


def test_an_image_too_large_for_the_memory_is_refused_before_it_is_tried(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "large.png", np.zeros((300, 300), dtype=np.uint8))
    write_png(tmp_path / "small.png", PIXELS)
    monkeypatch.setattr(enlarge, "available_memory", lambda: 1_000_000)
    upscaled(weights, tmp_path / "out", tmp_path / "large.png", tmp_path / "small.png", status=2)
    assert "large.png: enlarging 300x300 pixels takes about" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["small_x2.png"]


def test_making_the_file_takes_no_second_image_of_floats() -> None:
    sr = np.full((600, 800, 3), 99.6, dtype=np.float32)
    image = OwnImage(np.zeros((300, 400, 3), np.uint8), None, is_grey=False, icc_profile=None)
    tracemalloc.start()
    try:
        content = enlarged_png(image, sr, 2)
        assert tracemalloc.get_traced_memory()[1] < sr.nbytes / 2  # the samples in 8 bits, and the file
    finally:
        tracemalloc.stop()
    assert content.startswith(b"\x89PNG")


def test_a_full_disk_ends_the_command_and_leaves_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, PIXELS)
    monkeypatch.setattr(os, "fsync", full)
    upscaled(weights, tmp_path / "out", tmp_path / "a.png", tmp_path / "b.png", status=2)
    assert capsys.readouterr().err.count("cannot be written (No space left on device); make room") == 1
    assert names(tmp_path / "out") == []


def test_an_output_that_may_not_be_replaced_is_reported_and_the_others_are_enlarged(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_png(tmp_path / "in" / f"{name}.png", PIXELS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_x2.png").write_bytes(b"protected")
    write = enlarge.write_output

    def guarded(path: Path, content: bytes) -> None:
        if path.name == "a_x2.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        write(path, content)

    monkeypatch.setattr(enlarge, "write_output", guarded)
    upscaled(weights, tmp_path / "out", tmp_path / "in", "--overwrite", status=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'out' / 'a_x2.png'}: cannot be written (Permission denied)")
    assert (tmp_path / "out" / "a_x2.png").read_bytes() == b"protected"
    assert opened(tmp_path / "out" / "b_x2.png").size == (34, 26)


def test_released_x2_and_x3_weights_need_a_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    for scale in (3, 4):
        torch.save(to_published(network(scale).state_dict()), tmp_path / f"x{scale}.pt")
    upscaled(tmp_path / "x3.pt", tmp_path / "out", tmp_path / "a.png", status=2)
    assert "give their scale with --scale" in capsys.readouterr().err
    upscaled(tmp_path / "x3.pt", tmp_path / "out", tmp_path / "a.png", "--scale", 3)
    upscaled(tmp_path / "x4.pt", tmp_path / "out", tmp_path / "a.png")
    assert names(tmp_path / "out") == ["a_x3.png", "a_x4.png"]


def test_bad_usage_is_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    upscaled(weights, tmp_path / "out", tmp_path / "a.png", "--scale", 3, status=2)
    assert "enlarges by 2" in capsys.readouterr().err
    upscaled(weights, tmp_path / "a.png", tmp_path / "a.png", status=2)
    assert "a.png: expected a folder, or a place for one" in capsys.readouterr().err
    upscaled(weights, tmp_path / "out", tmp_path / "a.png", "--device", "cuda:99", status=2)
    assert "device cuda:99 is not available here" in capsys.readouterr().err
    upscaled(tmp_path / "no.safetensors", tmp_path / "out", tmp_path / "a.png", status=2)
    assert "no such weights file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_whole_images_and_the_same_command_resumes(tmp_path: Path) -> None:
    """The real command, killed while it works: every output is complete, and a second run adds the missing ones."""
    weights = save_weights(tmp_path / "trained")
    photos = tmp_path / "photos"
    out = tmp_path / "out"
    photos.mkdir()
    for number in range(40):
        write_png(photos / f"{number:02}.png", RNG.integers(0, 256, (200, 150, 3), dtype=np.uint8))
    command = [sys.executable, "-m", "sr_core.upscale", "--weights", str(weights), "--out", str(out), str(photos)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    time.sleep(0.03)  # so that the process is killed while it works
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    made = sorted(path.name for path in out.glob("*.png"))
    assert 2 <= len(made) < 40
    times = {name: (out / name).stat().st_mtime_ns for name in made}
    assert {opened(out / name).size for name in made} == {(300, 400)}

    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{40 - len(made)} enlarged 2 times, {len(made)} skipped, 0 failed"
    assert names(out) == [f"{number:02}_x2.png" for number in range(40)]
    assert {name: (out / name).stat().st_mtime_ns for name in made} == times
    assert all(opened(path).size == (300, 400) for path in out.iterdir())


def test_on_a_gpu_the_room_is_what_is_free_and_not_all_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 30)
    assert enlarge._available_bytes(torch.device("cuda:0")) == 7 << 30, (
        "what this process keeps for its next image is free too"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_an_image_for_which_memory_runs_out_is_one_line_and_the_next_is_enlarged(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    write_png(tmp_path / "large.png", np.zeros((40, 40), dtype=np.uint8))
    write_png(tmp_path / "small.png", PIXELS)
    whole = enlarge.super_resolve

    def confined(model: A2N, lr: np.ndarray, **options: Any) -> np.ndarray:
        if len(lr) == 40:
            raise error
        return whole(model, lr, **options)

    monkeypatch.setattr(enlarge, "super_resolve", confined)
    upscaled(weights, tmp_path / "out", tmp_path / "large.png", tmp_path / "small.png", status=2)
    errors = capsys.readouterr().err
    assert "large.png: enlarging 40x40 pixels takes more than is free on cpu" in errors and errors.count("\n") == 1
    assert names(tmp_path / "out") == ["small_x2.png"]


# Names and links


@pytest.mark.parametrize("stem", ["ж" * 122, "画" * 80])
def test_a_name_that_fits_is_written(weights: Path, tmp_path: Path, needs_name: NeedsName, stem: str) -> None:
    needs_name(stem)
    write_png(tmp_path / f"{stem}.png", PIXELS)
    upscaled(weights, tmp_path / "out", tmp_path / f"{stem}.png")
    assert names(tmp_path / "out") == [f"{stem}_x2.png"]


def test_a_name_that_is_too_long_is_reported_and_the_others_are_enlarged(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for stem in ("x" * 251, "y"):  # with _x2 the first has 258 bytes
        write_png(folder / f"{stem}.png", PIXELS)
    upscaled(weights, tmp_path / "out", folder, status=2)
    assert names(tmp_path / "out") == ["y_x2.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder / ('x' * 251)}.png: ")
    assert line.endswith(f"is too long a name for the file system of {tmp_path / 'out'}; give the image a shorter name")


def test_an_output_that_is_a_link_is_written_through(weights: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PIXELS)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk/out")
    (tmp_path / "disk/out").mkdir()
    (tmp_path / "out/a_x2.png").symlink_to("../target.png")
    upscaled(weights, tmp_path / "out", tmp_path / "a.png")
    assert (tmp_path / "out/a_x2.png").is_symlink()
    assert opened(tmp_path / "disk/target.png").size == (34, 26)
