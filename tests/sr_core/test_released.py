"""The weights in experiments/released have the scores on their model card."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage

import experiments
from sr_core.evaluate import main as evaluate
from sr_core.images.resize import imresize
from sr_core.metrics.evaluate import bicubic_baseline, lr_hr_pair, score
from sr_core.model.inference import super_resolve
from sr_core.model.weights import load_model
from sr_core.upscale import main as upscale

RELEASED = sorted(path.parent for path in Path(experiments.__path__[0]).glob("released/*/weights.safetensors"))
NAMES = [folder.name for folder in RELEASED]


def scores_of(folder: Path) -> dict[str, dict[str, float]]:
    """PSNR [dB] and SSIM by set, as published with the weights."""
    published: dict[str, dict[str, float]] = json.loads((folder / "scores.json").read_text())
    return published


def test_there_are_released_weights() -> None:
    assert NAMES


@pytest.mark.parametrize("folder", RELEASED, ids=NAMES)
def test_a_release_is_small_and_complete(folder: Path) -> None:
    assert (folder / "weights.safetensors").stat().st_size < 5_000_000
    config = json.loads((folder / "config.json").read_text())
    assert load_model(folder / "weights.safetensors", None).scale == config["data"]["scale"]


@pytest.mark.parametrize("folder", RELEASED, ids=NAMES)
def test_the_card_states_the_scores_the_data_and_their_terms(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for name, published in scores_of(folder).items():
        assert f"| {name} | {published['psnr']:.3f} / {published['ssim']:.4f} |" in card
    for word in ("T91", "BSD200", "DIV2K", "research", "canonical", "Limits"):
        assert word in card


@pytest.mark.slow
@pytest.mark.parametrize("folder", RELEASED, ids=NAMES)
def test_the_published_scores_are_what_evaluate_prints(
    folder: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, published in scores_of(folder).items():
        argv = ["--weights", str(folder / "weights.safetensors"), "--benchmark", str(shared / "data" / name / "HR")]
        assert evaluate([*argv, "--scale", "2", "--json"]) == 0
        mean = json.loads(capsys.readouterr().out)["mean"]
        assert mean["psnr"] == pytest.approx(published["psnr"], abs=0.005)
        assert mean["ssim"] == pytest.approx(published["ssim"], abs=0.0002)


@pytest.mark.parametrize("folder", RELEASED, ids=NAMES)
def test_on_a_photograph_that_no_training_saw_it_is_a_decibel_better_than_bicubic(folder: Path) -> None:
    model = load_model(folder / "weights.safetensors", None)
    lr, hr = lr_hr_pair(skimage.data.astronaut()[:256, 128:384], model.scale, "matlab_bicubic", "canonical")
    ours, bicubic = (
        score(np.asarray(sr, np.float64), hr, scale=model.scale, protocol="canonical")
        for sr in (super_resolve(model, lr), bicubic_baseline(lr, model.scale))
    )
    assert ours.psnr > bicubic.psnr + 1
    assert ours.ssim > bicubic.ssim


@pytest.mark.parametrize("folder", RELEASED, ids=NAMES)
def test_an_image_is_enlarged_with_it_by_one_command(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(imresize(skimage.data.chelsea(), 1 / 4)).save(tmp_path / "cat.png")
    weights = str(folder / "weights.safetensors")
    assert upscale([str(tmp_path / "cat.png"), "--weights", weights, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "cat.png") as small, Image.open(tmp_path / "out" / "cat_x2.png") as large:
        assert large.size == (2 * small.width, 2 * small.height)
