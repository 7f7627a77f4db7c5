"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds data/ (Set5, Set14, train, valid, weights); the pictures are too large for git."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("SR_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip("shared image data not found: set SR_SHARED to the folder that holds data/")
    return folder
