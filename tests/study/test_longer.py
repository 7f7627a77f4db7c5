"""experiments.longer: trainings are paired over images, and only comparable ones are compared."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from experiments.longer import main
from experiments.quickstart import EXPERIMENT
from study.record import events as ev

BUDGET = 4 * EXPERIMENT.base.train.budget_patches
WINNER, AUTHORS = (31.0, 32.0, 33.0), (30.8, 31.7, 32.9)


class Study:
    """A search with a reference and a winner on disk. Its longer trainings are written by hand."""

    def __init__(self, story: Callable[..., Any]) -> None:
        self.search = story("a2n_x2_cpu")
        self.search.whole()

    @property
    def argv(self) -> list[str]:
        return ["--root", str(self.search.folder.root)]

    def train(self, number: int, scores: tuple[float, ...], *, budget: int = BUDGET, **more: Any) -> None:
        """Adds a complete training of a trial. `scores` are the PSNR of its images, for Set5 and for valid."""
        folder = replace(self.search.folder, training=f"{number:04d}-{budget}")
        study = type(self.search)(folder)
        study.open()
        trial = self.search.state.trials[number]
        config = trial.config.with_values({"train.budget_patches": budget})
        told = {"config": config.to_json(), "config_hash": config.digest(), "values": {}, **more}
        study.tell(ev.Proposed, trial=number, role="training", name="", **told)
        study.start(number)
        mean = {"val/psnr": sum(scores) / len(scores), "val/ssim": 0.9}
        study.tell(ev.Validated, trial=number, patches=budget, scores=mean, loss=0.1, learning_rate=1e-3)
        study.tell(ev.Finished, trial=number, patches=budget, scores=mean, per_image=(), weights="beef", seconds={})
        study.tell(
            ev.Concluded,
            best=number,
            counted=1,
            scores={f"{name}/psnr": mean["val/psnr"] for name in ("valid", "set5")},
            per_image=tuple((s, f"{i}", psnr, 0.9) for s in ("valid", "Set5") for i, psnr in enumerate(scores)),
            files=(),
        )
        study.close()


@pytest.fixture
def study(story: Callable[..., Any]) -> Study:
    return Study(story)


def test_differences_are_paired_over_images(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.train(0, AUTHORS)
    study.train(1, WINNER)
    assert main(study.argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"trial 1, one run, {BUDGET:,} patches: valid 32.000 dB, Set5 32.000 dB",
        f"authors, one run, {BUDGET:,} patches: valid 31.800 dB, Set5 31.800 dB",
    ]
    # Differences 0.2, 0.3, 0.1: sd 0.1, t(2) 4.303, so half an interval is 0.248.
    assert lines[2:] == [
        f"trial 1 - authors on {name}: +0.200 dB (95 % -0.048 to 0.448 over 3 images)" for name in ("valid", "Set5")
    ]


def test_another_budget_is_no_comparison(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.train(0, AUTHORS, budget=2 * BUDGET)
    study.train(1, WINNER)
    assert main(study.argv) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["trial 1 - authors: left out, because their budgets differ"]


def test_one_is_no_comparison_nor_one_that_began_with_other_weights(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    study.train(0, AUTHORS, initial="beef")
    study.train(1, WINNER)
    assert main(study.argv) == 2
    assert "expected at least two longer trainings that are complete" in capsys.readouterr().err


def test_other_images_are_refused(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.train(0, AUTHORS[:2])
    study.train(1, WINNER)
    assert main(study.argv) == 2
    assert "valid: trial 1 and authors were scored on different images" in capsys.readouterr().err
