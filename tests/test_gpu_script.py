"""The script of the GPU checks: its messages before it starts, and the images that it packs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(BENCHMARKS / "gpu.sh"), *arguments]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def repack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_images", BENCHMARKS / "gpu_images.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_unknown_part_is_refused_in_one_line_before_any_part_runs(tmp_path: Path) -> None:
    done = script("1", "tabel", OUT=str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected first, second, --prepare or parts of 1 2 3")
    assert done.stderr.endswith("got tabel\n") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_the_packages_it_says_how_to_prepare_them(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = script("1", OUT=str(tmp_path / "out"), CARRIED=str(tmp_path / "none"), PYTHON=str(python))
    assert done.returncode == 2
    assert "run benchmarks/gpu.sh --prepare on a machine with a network" in done.stderr
    assert done.stderr.count("\n") == 1


def test_images_are_taken_along_without_loss_and_those_that_train_last(
    repack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    originals = {}
    for name, shape in {
        "train/a": (40, 50, 3),
        "train/b": (40, 50, 3),
        "valid/c": (30, 30, 3),
        "valid/g": (9, 9),
    }.items():
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        originals[name] = rng.integers(0, 256, shape, dtype=np.uint8)
        PIL.Image.fromarray(originals[name]).save(path)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_images.py", str(tmp_path / "images"), str(out), "--most-mib", "0.01"])
    assert repack.main() == 0
    found = {path.relative_to(out).with_suffix("").as_posix(): path for path in out.rglob("*.*")}
    assert {"valid/c", "valid/g"} <= set(found) and "1 left out for lack of room" in capsys.readouterr().out
    for name, path in found.items():
        with PIL.Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), originals[name])
