"""Trainings from other weights against their own trials from scratch."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.transferred import main
from study.experiment import load_experiment
from study.finalists import due

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


def test_the_script_of_the_published_answer_pairs_weights_and_trials_of_one_seed(history: Callable[..., Any]) -> None:
    script = Path(main.__code__.co_filename).with_name("answer.sh").read_text()
    [line] = re.findall(r'^base="([\d ]+)"', script, re.M)

    def seeds(name: str) -> dict[int, int]:
        """Trial of the base -> its seed, in a study that went without failures."""
        study = history(load_experiment(name)[1])
        for reference in (*study.experiment.references, ""):
            number = study.propose(reference=reference)
            study.validate(number, 30.0)
            study.end(number)
        while (asked := due(study.state, study.experiment)) is not None:
            study.replicate(asked, 30.0)
        base = [
            t for t in study.state.trials.values() if t.proposed.name == "finalist 1" or t.proposed.role == "search"
        ]
        return {t.number: t.config.seed for t in base}

    for claims, scratch in (("claims_x2_cpu", "scratch_x4_cpu"), ("claims_x2", "scratch_x4")):
        x2, x4 = seeds(claims), seeds(scratch)
        assert list(x2) == [int(number) for number in line.split()]
        assert [x2[number] for number in list(x2)[1:]] == [x4[number] for number in (1, 2, 3, 4)]
