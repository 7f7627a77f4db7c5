"""Image files that show how a trial's network reconstructs one validation crop in the course of its training."""

from collections.abc import Callable
from pathlib import Path

from sr_core.images.files import Image, png_bytes
from sr_core.process.durable import write_durably
from study.question.config import TrialConfig

_MAX_IMAGES = 10
"""Bound on the images of a training. They are evenly spaced up to its last step. One more shows the initial network."""


def image_file(trial_folder: Path, patches: int) -> Path:
    """Path of the image of a validation.

    In a long training, most validations have no image. The image at 0 patches shows the network before training.
    """
    return trial_folder / "pictures" / f"{patches:09d}.png"


def keep_image(trial_folder: Path, patches: int, config: TrialConfig, image: Callable[[], Image]) -> None:
    """Write the image after this number of patches, if it is one of those that are kept.

    They are the same for every trial of a study.

    Args:
        image: computes the image.
    """
    every = config.evaluation.every_patches
    budget = config.train.budget_patches
    stride = -(-budget // (every * _MAX_IMAGES))
    if patches == 0 or (budget - patches) // every % stride == 0:
        path = image_file(trial_folder, patches)
        path.parent.mkdir(exist_ok=True)
        write_durably(path, png_bytes(image()))
