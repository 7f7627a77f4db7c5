"""A study that was really trained, once for all tests of its report: a tiny network, seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study import run
from study.record.folder import StudyFolder
from study.record.journal import read
from study.report.making import write_report

EXPERIMENT = '''
"""Which of these lets a tiny A2N learn x2 fastest? With finalists, replicates, an interval and two kernels."""

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Choice, Float

BASE = TrialConfig(
    model=ModelConfig(n_feats=4, upsampler_feats=4, n_blocks=1, temperature=1.0, reduction=2),
    data=DataConfig(scale=2, lr_patch_size=8),
    train=TrainConfig(budget_patches=120, batch_size=2, learning_rate=2e-3, ema_horizon_patches=40.0),
    evaluation=EvaluationConfig(every_patches=60, crops=4, lr_crop_size=24),
    seed=1,
)
EXPERIMENT = Experiment(
    question="Which loss & kernel <b>learns</b> fastest?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        "train.learning_rate": Float(1e-3, 1e-2, log=True),
        "data.train_kernel": Choice("matlab_bicubic", "pillow_box"),
    },
    references={"plain": BASE.with_values({"train.learning_rate": 5e-4})},
    sampler="random",
    rungs=(60,),
    reduction_factor=1.5,
    finalists=2,
    replicates=2,
)
'''


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A complete study of eight trials with replicates, on images of its own; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    (place / "tiny.py").write_text(EXPERIMENT.lstrip(), "utf-8")
    for split, count in (("train", 3), ("valid", 2)):
        (place / "pictures" / split).mkdir(parents=True)
        for i in range(count):
            _image(int(split == "valid"), i).save(place / "pictures" / split / f"{split} & {i}.png")
    arguments = ["--experiment", str(place / "tiny.py"), "--data", str(place / "pictures"), "--trials", "8"]
    views = ["--tracking-uri", "none", "--storage", "none"]
    assert run.main([*arguments, *views, "--root", str(place / "root")]) == 0
    return StudyFolder(place / "root", "tiny")


@pytest.fixture(scope="session")
def made(trained: StudyFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's folder of the trained study, in a place whose name needs quoting; not to be changed."""
    return write_report(trained, read(trained.journal), out=tmp_path_factory.mktemp("a report with % and #")).parent


@pytest.fixture
def carried(trained: StudyFolder, tmp_path: Path) -> Callable[..., StudyFolder]:
    """Copies of the trained study under another root: carried("journal.jsonl", "results") takes these of it along."""

    def carry(*names: str, stores: bool = False) -> StudyFolder:
        folder = StudyFolder(tmp_path / "carried", trained.study)
        folder.path.mkdir(parents=True)
        for name in names:
            source = trained.path / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder.path / name)
        if stores:
            shutil.copytree(trained.root / "stores", folder.root / "stores")
        return folder

    return carry


def _image(split: int, number: int) -> Image.Image:
    """Clouds behind rectangles: smooth parts, texture, edges; (112, 96) to (120, 96) pixels."""
    generator = np.random.default_rng([split, number])
    height, width = 112 + 8 * number, 96
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    noise = np.fft.rfft2(generator.standard_normal((height, width)))
    clouds = np.fft.irfft2(noise / np.maximum(frequency, 1 / width), (height, width))
    image = (128 + 40 * clouds / clouds.std())[..., None] * generator.uniform(0.7, 1.2, 3)
    for _ in range(8):
        y, x = generator.integers(0, (height - 16, width - 16))
        image[y : y + 14, x : x + 20] += generator.uniform(-70, 70, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))
