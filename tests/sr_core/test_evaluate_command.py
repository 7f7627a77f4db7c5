"""python -m sr_core.evaluate: reference scores, outputs and error messages."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_core.config import ModelConfig
from sr_core.errors import SuiteError
from sr_core.evaluate import main
from sr_core.images.files import read_image, write_png
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import to_published
from sr_core.process.cli import Parser, run_command

REPOSITORY = Path(__file__).parents[2]


def evaluated(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """The JSON object printed for these arguments."""
    assert main([*map(str, argv), "--json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The single line on stderr for these arguments. They end with status 2 and print at most the head of the table."""
    try:
        status = main([*map(str, argv)])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else -1
    printed = capsys.readouterr()
    assert status == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Three images of 41x38 pixels, to be scored with bicubic."""
    folder = tmp_path / "bench" / "HR"
    folder.mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c")):
        pixels = np.random.default_rng(number).integers(0, 256, (38, 41, 3), dtype=np.uint8)
        write_png(folder / f"{name}.png", pixels)
    return folder.parent


@pytest.mark.parametrize(
    ("protocol", "psnr", "ssim"),
    [
        ("canonical", 34.465, 0.9278),  # PROTOCOL.md, measured from the same weights by its authors' recipe
        ("blog", 35.196, 0.9411),  # measured here; HR resized (softer) and not rounded, so above canonical
    ],
)
def test_released_x3_weights_score_on_set5_what_is_known(
    shared: Path, capsys: pytest.CaptureFixture[str], protocol: str, psnr: float, ssim: float
) -> None:
    data = shared / "data"
    weights = data / "weights/a2n_x3.pt"
    result = evaluated(capsys, "--weights", weights, "--benchmark", data / "Set5", "--scale", 3, "--protocol", protocol)
    assert [row["name"] for row in result["images"]] == ["baby", "bird", "butterfly", "head", "woman"]
    assert result["mean"]["psnr"] == pytest.approx(psnr, abs=0.002)
    assert result["mean"]["ssim"] == pytest.approx(ssim, abs=0.0002)


def test_bicubic_scores_on_set5_what_is_known(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for scale, psnr, ssim in ((2, 33.673, 0.9303), (3, 30.403, 0.8689), (4, 28.429, 0.8111)):
        mean = evaluated(capsys, "--weights", "bicubic", "--benchmark", shared / "data/Set5", "--scale", scale)["mean"]
        assert mean["psnr"] == pytest.approx(psnr, abs=6e-4)
        assert mean["ssim"] == pytest.approx(ssim, abs=6e-5)


def test_lr_images_are_found_by_name_below_the_given_folder(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set5 = shared / "data/Set5"
    common = ("--weights", "bicubic", "--benchmark", set5, "--scale", 3)
    downsampled = evaluated(capsys, *common)
    read = evaluated(capsys, *common, "--lr", set5 / "LR_bicubic/X3")
    assert read["images"] == downsampled["images"]  # matlab_bicubic makes the files of the benchmark pack
    assert read["protocol"]["lr"] == f"read from {set5 / 'LR_bicubic/X3'}"
    assert downsampled["protocol"]["lr"] == "made by matlab_bicubic"
    for form in ("{}_LRBI_x3.png", "{}.png"):
        folder = tmp_path / form.strip("{}")
        folder.mkdir()
        for lr in sorted((set5 / "LR_bicubic/X3").iterdir()):
            shutil.copy(lr, folder / form.format(lr.stem.removesuffix("x3")))
        assert evaluated(capsys, *common, "--lr", folder)["images"] == downsampled["images"]


def test_the_table_ends_with_the_mean_and_the_next_command(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--weights", "bicubic", "--benchmark", str(benchmark), "--scale", "2"]) == 0
    printed = capsys.readouterr()
    head, *rows, mean, following = printed.out.splitlines()
    assert head.split() == ["image", "PSNR", "[dB]", "SSIM"]
    assert [row.split()[0] for row in rows] == ["a", "b", "c"]
    assert mean.split()[0] == "mean"
    assert float(mean.split()[1]) == pytest.approx(np.mean([float(row.split()[1]) for row in rows]), abs=1e-3)
    assert following.startswith("next: python -m sr_core.evaluate --weights FILE.safetensors --benchmark ")
    assert printed.err == ""  # no progress line without a terminal


def test_the_csv_holds_the_printed_numbers_unrounded(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "scores.csv"
    result = evaluated(capsys, "--weights", "bicubic", "--benchmark", benchmark, "--scale", 2, "--csv", table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [*result["images"], {"name": "mean"} | result["mean"]]
    assert [{"name": r["name"], "psnr": float(r["psnr"]), "ssim": float(r["ssim"])} for r in rows] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench", "scores.csv"]


def test_an_infinite_psnr_is_null_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "flat.png", np.full((32, 32, 3), 128, dtype=np.uint8))
    result = evaluated(capsys, "--weights", "bicubic", "--benchmark", tmp_path, "--scale", 2)
    assert result["images"] == [{"name": "flat", "psnr": None, "ssim": 1.0}]


def test_the_kernel_changes_the_score_and_is_named(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--weights", "bicubic", "--benchmark", benchmark, "--scale", 2)
    default = evaluated(capsys, *common)
    area = evaluated(capsys, *common, "--kernel", "cv2_area")
    assert area["protocol"]["lr"] == "made by cv2_area"
    assert area["mean"] != default["mean"]


def test_the_self_ensemble_of_the_network_is_scored(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from sr_core.config import ModelConfig
    from sr_core.model.initial import initialise
    from sr_core.model.published import to_published

    model = A2N(ModelConfig(n_feats=4, n_blocks=1), 2)
    initialise(model, 1)
    torch.save(to_published(model.state_dict()), tmp_path / "tiny.pt")
    common = ("--weights", tmp_path / "tiny.pt", "--benchmark", benchmark, "--scale", 2)
    alone = evaluated(capsys, *common)
    together = evaluated(capsys, *common, "--self-ensemble")
    assert together["mean"] != alone["mean"]
    assert (alone["protocol"]["self_ensemble"], together["protocol"]["self_ensemble"]) == (
        "none",
        "eight flips and turns",
    )


def test_a_folder_of_images_is_used_itself_even_next_to_an_hr_folder(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(benchmark / "HR/a.png", benchmark / "top.png")
    result = evaluated(capsys, "--weights", "bicubic", "--benchmark", benchmark, "--scale", 2)
    assert "top" in [row["name"] for row in result["images"]]


def lr_missing(root: Path) -> None:
    (root / "lr/bx2.png").unlink()


def lr_misfit(root: Path) -> None:
    write_png(root / "lr/bx2.png", read_image(root / "bench/HR/b.png"))


def lr_twice(root: Path) -> None:
    (root / "lr/more").mkdir()
    shutil.copy(root / "lr/bx2.png", root / "lr/more/bx2.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lr_missing, "no LR image of b; expected a file named bx2, b_LRBI_x2, b"),
        (lr_misfit, "bx2.png: expected 20x19 pixels, b.png at scale 2; got 41x38"),
        (lr_twice, "2 LR images of b: "),
    ],
)
def test_an_lr_image_that_does_not_fit_is_named(
    benchmark: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    lr = tmp_path / "lr"
    lr.mkdir()
    for hr in (benchmark / "HR").iterdir():
        write_png(lr / f"{hr.stem}x2.png", read_image(hr)[:38:2, :40:2])
    common = ("--weights", "bicubic", "--benchmark", benchmark, "--scale", 2, "--lr", lr)
    evaluated(capsys, *common)
    damage(tmp_path)
    assert message in refused(capsys, *common, "--csv", tmp_path / "scores.csv", "--json")
    assert not (tmp_path / "scores.csv").exists()


def test_bad_input_is_one_line_and_status_2(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bicubic = ("--weights", "bicubic", "--scale", 2, "--benchmark")
    assert "no such folder" in refused(capsys, *bicubic, tmp_path / "none")
    assert "no such weights file" in refused(capsys, "--weights", "no.pt", "--scale", 2, "--benchmark", benchmark)
    assert "expected a file in a folder that exists" in refused(
        capsys, *bicubic, benchmark, "--csv", tmp_path / "none/scores.csv"
    )
    (benchmark / "HR/b.jpg").write_bytes(b"")
    assert "has the same name" in refused(capsys, *bicubic, benchmark)
    (benchmark / "HR/b.png").unlink()
    assert "b.jpg: the file is empty" in refused(capsys, *bicubic, benchmark, "--json")
    (benchmark / "HR/b.jpg").unlink()
    write_png(benchmark / "HR/b.png", np.zeros((12, 12, 3), dtype=np.uint8))
    line = refused(capsys, *bicubic, benchmark)
    assert "b.png has 12 pixels on its shorter side: to be scored at scale 2 an image needs at least 16" in line


def test_what_cannot_be_an_image_is_refused_before_anything_is_scored(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bicubic = ("--weights", "bicubic", "--scale", 2, "--benchmark")
    (benchmark / "HR" / "g.gif").touch()  # an error is one line, whatever is left out
    (benchmark / "HR" / "z.png").symlink_to("gone.png")
    assert "z.png: is a link to gone.png" in refused(capsys, *bicubic, benchmark, "--json")
    os.mkfifo(benchmark / "HR" / "d.jfif")
    assert "d.jfif: expected an image file, got a named pipe" in refused(capsys, *bicubic, benchmark)
    os.mkfifo(tmp_path / "pipe")
    assert "expected a folder of images, got a named pipe" in refused(capsys, *bicubic, tmp_path / "pipe")
    (tmp_path / "lr").mkdir()
    (tmp_path / "lr" / "a.png").symlink_to("a.png")
    (benchmark / "HR" / "z.png").unlink()
    (benchmark / "HR" / "d.jfif").unlink()
    assert "lr/a.png: is a link to a.png, which leads in a circle" in refused(
        capsys, *bicubic, benchmark, "--lr", tmp_path / "lr"
    )


def test_what_is_left_out_is_a_line_on_stderr_and_json_stays_alone_on_stdout(
    benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (benchmark / "HR" / "g.gif").touch()
    shutil.copytree(benchmark / "HR", benchmark / "LR_bicubic" / "X2")
    assert main(["--weights", "bicubic", "--scale", "2", "--benchmark", str(benchmark), "--json"]) == 0
    printed = capsys.readouterr()
    assert [row["name"] for row in json.loads(printed.out)["images"]] == ["a", "b", "c"]
    assert printed.err == "left out: 1 GIF file (HR/g.gif), 1 LR folder (LR_bicubic)\n"


def test_sizes_are_checked_before_anything_is_scored(
    benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        write_png(benchmark / f"HR/z{number}.png", np.zeros((15, 40, 3), dtype=np.uint8))
    assert main(["--weights", "bicubic", "--benchmark", str(benchmark), "--scale", "2"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "z2.png has 15 pixels" in printed.err and "z3.png" not in printed.err and "; and 2 more: " in printed.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "the following arguments are required: --weights, --benchmark, --scale"),
        ("--weights bicubic --benchmark . --scale 5", "invalid choice: 5"),
        ("--weights bicubic --benchmark . --scale 2 --kernel bicubic", "invalid choice: 'bicubic'"),
        ("--weights bicubic --benchmark . --scale 2 --lr . --kernel nearest", "give one of the two"),
        ("--weights bicubic --benchmark . --scale 2 --protocol blog --kernel nearest", "omit --kernel"),
        ("--weights bicubic --benchmark . --scale 2 --self-ensemble", "needs a network"),
        ("--weights bicubic --bench . --scale 2", "required: --benchmark"),
    ],
)
def test_a_usage_error_is_one_line_that_names_help(capsys: pytest.CaptureFixture[str], argv: str, message: str) -> None:
    line = refused(capsys, *argv.split())
    assert message in line
    assert line.endswith("; see python -m sr_core.evaluate --help\n")


def test_an_interrupt_is_status_130_and_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def buggy() -> int:
        raise ZeroDivisionError

    def wrong() -> int:
        raise SuiteError("first\nsecond")

    assert run_command(interrupted) == 130
    assert run_command(lambda: 4) == 4
    with pytest.raises(ZeroDivisionError):
        run_command(buggy)
    capsys.readouterr()
    assert run_command(wrong) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_flags_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("command")
    parser.add_argument("--slots")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--slot", "3"])
    assert capsys.readouterr().err == "error: unrecognized arguments: --slot 3; see command --help\n"


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(benchmark: Path) -> None:
    argv = ["--weights", "bicubic", "--benchmark", str(benchmark), "--scale", "2"]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "sr_core.evaluate", *argv], cwd=REPOSITORY, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert ended.stderr == b""
    assert ended.returncode == 141


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["--scale", "9"], 2)])
def test_help_and_usage_errors_answer_within_a_second_without_torch(argv: list[str], status: int) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sr_core.evaluate", *argv]
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    assert ended.returncode == status
    assert "sr_core.config" in imported
    assert not imported & {"torch", "numpy", "cv2", "PIL", "safetensors"}
    assert seconds < 1


@pytest.fixture
def small_weights(tmp_path: Path) -> Path:
    """An untrained network."""
    model = A2N(ModelConfig(n_feats=4, n_blocks=1), 2)
    initialise(model, 1)
    torch.save(to_published(model.state_dict()), tmp_path / "small.pt")
    return tmp_path / "small.pt"


def test_a_device_is_selected_by_name_and_a_missing_one_is_refused(
    small_weights: Path, benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--weights", small_weights, "--benchmark", benchmark, "--scale", 2)
    on_cpu = evaluated(capsys, *arguments, "--device", "cpu")
    assert len(on_cpu["images"]) == 3
    assert "device cuda:99 is not available here" in refused(capsys, *arguments, "--device", "cuda:99")


def test_a_gpu_is_used_if_available_unless_another_device_is_named(
    small_weights: Path, benchmark: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--weights", small_weights, "--benchmark", benchmark, "--scale", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "device cuda:0 is not available" in refused(capsys, *arguments), "this machine only claims to have one"
    assert evaluated(capsys, *arguments, "--device", "cpu")["mean"]["psnr"] > 0


def test_a_name_of_several_lines_is_one_row_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a\nb.png", np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    assert main(["--weights", "bicubic", "--benchmark", str(tmp_path), "--scale", "2"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["image", r"a\nb", "mean", "next:"]


def test_the_next_command_scores_under_the_same_conditions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hr = tmp_path / "hr"
    lr = tmp_path / "lr"
    for folder, side in ((hr, 48), (lr, 24)):
        folder.mkdir()
        write_png(folder / "a.png", np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8))
    for conditions in (["--lr", str(lr)], ["--kernel", "pillow_box"], ["--protocol", "blog"]):
        assert main(["--weights", "bicubic", "--benchmark", str(hr), "--scale", "2", *conditions]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("next: python -m sr_core.evaluate --weights FILE.safetensors")
        assert last.endswith(" ".join(conditions))
