"""One validation crop as a trial's network makes it in the course of its training: files for people to look at."""

from collections.abc import Callable
from pathlib import Path

from sr_core.images.files import Image, png_bytes
from sr_core.process.durable import write_durably
from study.question.config import TrialConfig

_MOST = 10
"""Of a whole training, at even distances and after its last step; beside the one before its first."""


def image_file(trial_folder: Path, patches: int) -> Path:
    """Where the image of a validation is, of the network before its training for 0 patches; of most validations of a
    long training there is none."""
    return trial_folder / "pictures" / f"{patches:09d}.png"


def keep_image(trial_folder: Path, patches: int, config: TrialConfig, image: Callable[[], Image]) -> None:
    """Write the image after so many patches if it is one of those that are kept: the same ones for every trial."""
    every, budget = config.evaluation.every_patches, config.train.budget_patches
    stride = -(-budget // (every * _MOST))
    if patches == 0 or (budget - patches) // every % stride == 0:
        path = image_file(trial_folder, patches)
        path.parent.mkdir(exist_ok=True)
        write_durably(path, png_bytes(image()))
