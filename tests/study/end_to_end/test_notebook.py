"""`from study.results import trials, best`: a study that is done, runs, died or is not there, as a notebook sees it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sr_core.errors import SuiteError
from study import results


def test_best_is_the_winner_with_its_config_scores_and_curve(finished: Any) -> None:
    winner, best = finished.state.best(), results.best("tiny", finished.root)
    assert (best.number, best.state, best.config) == (winner.number, "finished", winner.config)
    assert best.scores == dict(winner.curve[-1].scores)
    assert list(best.curve.columns) == ["patches", "val/psnr", "val/ssim", "train/loss"]
    assert list(best.curve["patches"]) == [60, 120, 180, 240]
    assert best.curve["val/psnr"].iloc[-1] == best.scores["val/psnr"] == winner.score
    assert json.loads((best.folder / "config.json").read_text()) == winner.proposed.config


def test_its_network_loads_in_one_line_ready_to_be_used(finished: Any) -> None:
    from sr_core.training.checkpoint import digest_of, weights_of

    best = results.best("tiny", finished.root)
    model = best.model()
    assert not model.training and model.scale == 2
    assert digest_of(weights_of(model)) == finished.state.best().end.weights


def test_an_image_is_enlarged_as_the_upscale_command_does_it(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    best, image = results.best("tiny", finished.root), sorted((tiny.data / "valid").iterdir())[0]
    done = commands.run("sr_core.upscale", "--weights", best.weights, image, "--out", tmp_path / "out")
    assert done.status == 0
    with Image.open(tmp_path / "out" / f"{image.stem}_x2.png") as written, Image.open(image) as lr:
        expected, pixels = np.asarray(written), np.asarray(lr.convert("RGB"))
    for given in (image, str(image), pixels):
        assert np.array_equal(best.upscale(given), expected)
    grey = best.upscale(pixels[..., 0])
    assert (grey.shape, grey.dtype) == (expected.shape, np.uint8)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_what_is_no_image_is_refused_by_what_it_is(image: Any, finished: Any) -> None:
    with pytest.raises(SuiteError, match=r"expected a file, or an array of uint8 .* got \w+ of shape \("):
        results.best("tiny", finished.root).upscale(image)


def test_any_trial_can_be_asked_for_and_a_pruned_one_has_no_network(finished: Any) -> None:
    pruned = results.trial(3, "tiny", finished.root)
    assert (pruned.state, list(pruned.curve["patches"])) == ("pruned", [60, 120])
    with pytest.raises(SuiteError, match=r"trial 3 \(pruned\) has no weights"):
        pruned.model()
    with pytest.raises(SuiteError, match="study 'tiny' has no trial 99: expected 0 to 6"):
        results.trial(99, "tiny", finished.root)


def test_tables_are_the_same_from_a_name_and_from_a_state(finished: Any) -> None:
    for table in (results.trials, results.curves, results.replicates):
        pd.testing.assert_frame_equal(table("tiny", finished.root), table(finished.state))
    assert len(results.trials("tiny", str(finished.root))) == 7


def test_a_table_has_its_columns_and_their_kinds_from_the_first_moment_on(story: Any, finished: Any) -> None:
    told = story()
    told.open()
    empty, full = results.trials("small", told.folder.root), results.trials("tiny", finished.root)
    assert list(empty.columns) == list(full.columns) and len(empty) == 0
    assert {"train.loss", "model.temperature", "data.train_kernel", "seed"} <= set(empty.columns)
    assert dict(full.dtypes)["rank"] == empty.dtypes["rank"] == "Int64"
    with pytest.raises(SuiteError, match="no trial of its search has finished"):
        results.best("small", told.folder.root)


def test_a_running_study_and_one_that_was_killed_can_be_read(
    tiny: Any, commands: Any, tmp_path: Path, wait_until: Any
) -> None:
    root = tmp_path / "root"
    process = commands.start("study.run", *tiny.argv(root))
    wait_until(lambda: process.out.count("finished") >= 3)
    before = results.trials("tiny", root)
    assert 3 <= (before["state"] == "finished").sum() <= 7
    process.kill()
    process.wait()
    after = results.trials("tiny", root)
    assert len(after) >= len(before)
    assert set(results.curves("tiny", root)["trial"]) <= set(after["trial"])
    if results.trials("tiny", root).query("state == 'finished' and name == ''").size:
        assert results.best("tiny", root).model().scale == 2


def test_a_study_that_is_not_there_is_one_clear_error_that_names_those_that_are(finished: Any, tmp_path: Path) -> None:
    for read in (results.trials, results.best, results.curves, results.replicates):
        with pytest.raises(SuiteError, match=r"no study 'tinny' under .*; there: tiny"):
            read("tinny", finished.root)
        with pytest.raises(SuiteError, match="no study 'quickstart' under"):
            read(root=tmp_path)


def test_a_study_that_still_prepares_its_images_says_so(
    tiny: Any, commands: Any, tmp_path: Path, wait_until: Any
) -> None:
    slow = (
        "import time, study.session.session as s\n"
        "s.prepare_material = lambda *_: print('now', flush=True) or time.sleep(60)"
    )
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), first=slow)
    wait_until(lambda: "now" in process.out)
    with pytest.raises(SuiteError, match=rf"'tiny' is still preparing its images \(process {process.pid} on"):
        results.trials("tiny", tmp_path / "root")


def test_importing_it_loads_neither_torch_nor_a_tracker_nor_a_sampler() -> None:
    heavy = {"torch", "mlflow", "optuna", "sklearn", "matplotlib", "rich", "scipy"}
    code = f"import sys; from study.results import trials, best; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
