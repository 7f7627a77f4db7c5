"""Trainings from other weights against their own trials from scratch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.transferred import main

SCRATCH, TRANSFERRED = (30.0, 30.2, 30.1), (30.3, 30.45, 30.45)


@pytest.fixture
def trained(story: Callable[..., Any]) -> Callable[..., Path]:
    """A study of three trials from scratch, some of them with a training from other weights."""

    def make(count: int) -> Path:
        study = story("scratch_x4_cpu")
        study.open()
        for score in SCRATCH:
            study.finish(study.propose(), score)
        for number in range(count):
            training = type(study)(replace(study.folder, training=f"{number:04d}-1920-from-00c0ffee"))
            training.open()
            for _ in range(number + 1):
                training.propose()
            training.finish(number, TRANSFERRED[number])
            training.close()
        return study.folder.root

    return make


def test_differences_are_paired_over_seeds(trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(trained(3))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("seed 0: from other weights 30.300 dB after 1,920 patches, from scratch 30.000 dB after 1,920")
    # Differences 0.30, 0.25, 0.35: sd 0.05, t(2) 4.303, so half an interval is 0.124.
    assert lines[3] == "from other weights - from scratch: +0.300 dB (95 % 0.176 to 0.424, 3 seeds)"


def test_one_pair_is_no_comparison(trained: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(trained(1))]) == 2
    assert "expected at least two finished trainings" in capsys.readouterr().err
