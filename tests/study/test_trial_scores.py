"""What a trial tells of its scores: always numbers that the journal can hold."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.images.files import Image, write_png
from sr_core.metrics.evaluate import Score
from sr_core.patches.validation import MAX_BICUBIC_PSNR
from sr_core.store.hdf5 import PatchStore
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, SourceImage
from sr_core.training.runtime import resolve
from study.executors.trial import TrialContext, TrialTask, run_trial
from study.question.config import TrialConfig
from study.record.events import Failed, Finished, Validated
from study.record.journal import decode, encode

CONFIG = TrialConfig(
    model=ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1),
    data=DataConfig(lr_patch_size=8),
    train=TrainConfig(budget_patches=8, batch_size=4),
    evaluation=EvaluationConfig(every_patches=8, crops=4, lr_crop_size=24),
)


class _Patches:
    def batch(self, first: int, n: int) -> tuple[Image, Image]:
        return np.zeros((n, 3, 8, 8), np.uint8), np.zeros((n, 3, 16, 16), np.uint8)


class _Scorer:
    def __init__(self, *psnrs: float) -> None:
        self._psnrs = psnrs

    def __call__(self, model: nn.Module) -> list[tuple[str, Score]]:
        return [(f"p{number}", Score(psnr, 1.0)) for number, psnr in enumerate(self._psnrs)]

    def image(self) -> Image:
        return np.zeros((8, 8, 3), np.uint8)

    def preview(self, model: nn.Module) -> Image:
        return self.image()


class _Bench:
    runtime = resolve(threads=1)

    def __init__(self, *psnrs: float) -> None:
        self._scorer = _Scorer(*psnrs)

    def patches(self, config: TrialConfig) -> _Patches:
        return _Patches()

    def scorer(self, config: TrialConfig) -> _Scorer:
        return self._scorer


def events_of(folder: Path, *psnrs: float) -> list[Any]:
    task = TrialTask(number=3, config=CONFIG, config_hash="", folder=folder, epoch=1, slot=0, source="")
    return list(run_trial(task, cast(TrialContext, _Bench(*psnrs))))


def test_an_exact_network_finishes_with_scores_that_the_journal_holds(tmp_path: Path) -> None:
    events = events_of(tmp_path, math.inf, 40.0)
    (progress,) = (event for event in events if isinstance(event, Validated))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert progress.scores == finished.scores == {"val/psnr": 70.0, "val/ssim": 1.0}
    assert finished.per_image == (("p0", 100.0, 1.0), ("p1", 40.0, 1.0))
    assert decode(encode(7, finished))[1] == finished


def test_a_score_that_is_not_a_number_is_still_a_divergence(tmp_path: Path) -> None:
    failed = events_of(tmp_path, math.nan, 40.0)[-1]
    assert isinstance(failed, Failed)
    assert failed.cause == "diverged"


@pytest.fixture
def store(tmp_path: Path) -> PatchStore:
    """One training image; of two validation images the first is all but uniform."""
    rng = np.random.default_rng(2)
    listed = []
    for name in ("train", "blank", "photo"):
        image = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        if name == "blank":
            image = 100 + (rng.random((80, 80, 3)) < 0.01).astype(np.uint8)
        write_png(tmp_path / f"{name}.png", image)
        listed.append(SourceImage(name, tmp_path / f"{name}.png"))
    images = ImageSet("test", tuple(listed[:1]), tuple(listed[1:]))
    return prepare_store(tmp_path / "s.h5", images, [("valid", 2, CONFIG.evaluation.kernel)], workers=1)


@pytest.mark.parametrize(("bound", "expected"), [(None, {"blank", "photo"}), (MAX_BICUBIC_PSNR, {"photo"})])
def test_a_slot_scores_the_crops_of_the_bound_that_its_study_records(
    store: PatchStore, bound: float | None, expected: set[str]
) -> None:
    context = TrialContext(store, resolve(threads=1), max_bicubic_psnr=bound)
    assert {crop.name for crop in context.crops(CONFIG)} == expected
    assert context.squares is not None
    assert context.squares.without_detail == tuple({"blank"} - expected)
