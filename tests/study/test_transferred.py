"""x4 from x2 weights and x4 from scratch: which trials share a seed, and which trainings can be compared."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from experiments.seeds import base_trials, same_seed
from experiments.seeds import main as seeds
from experiments.transferred import main
from sr_core.errors import SuiteError
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.checkpoint import save_weights
from study.question.config import TrialConfig
from study.question.experiment import load_experiment
from study.record import events as ev
from study.record.journal import read
from study.record.state import StudyState, fold
from study.search.replicates import due, trial_seed
from study.session.training import start_from

X2 = EXPERIMENT.base.with_values(
    {"model.n_feats": 8, "model.upsampler_feats": 6, "model.n_blocks": 1, "train.budget_patches": 1920}
)
X4 = X2.with_values({"data.scale": 4, "train.budget_patches": 3840})
SCRATCH, TRANSFERRED = (30.0, 30.2, 30.1), (30.3, 30.45, 30.45)


class Answer:
    """Both studies with three seeds on disk. In the x2 study a setting failed. Trainings are added by hand."""

    def __init__(self, story: Callable[..., Any]) -> None:
        self.x2, self.scratch = story("claims_x2_cpu"), story("scratch_x4_cpu", points=8)
        for study in (self.x2, self.scratch):
            study.open()
        self.x2.fail(self.propose(self.x2, X2.with_values({"train.loss": "l2"}), role="reference", name="l2"))
        for seed, score in enumerate(SCRATCH):
            self.finish(self.x2, X2, seed, 33.0)
            self.finish(self.scratch, X4, seed, score)

    @property
    def argv(self) -> list[str]:
        return ["--root", str(self.x2.folder.root), "--study-name", "scratch_x4_cpu"]

    def weights(self, number: int) -> Path:
        path: Path = self.x2.folder.trial(number) / "weights.safetensors"
        return path

    def propose(self, study: Any, config: TrialConfig, *, seed: int = 0, number: int | None = None, **more: Any) -> int:
        number = len(study.state.trials) if number is None else number
        config = config.with_values({"seed": trial_seed(1, seed)})
        what = {"role": "search", "name": "", **more}
        told = {"config": config.to_json(), "config_hash": config.digest(), "values": {}}
        study.tell(ev.Proposed, trial=number, replicate=seed, **told, **what)
        return number

    def finish(self, study: Any, config: TrialConfig, seed: int, score: float, **more: Any) -> int:
        """Adds a trial of the base with that seed, or a training. Its weights depend on its number."""
        base = next((n for n, t in study.state.trials.items() if t.proposed.role == "search"), None)
        if base is not None and not more:
            more = {"role": "replicate", "name": "finalist 1", "of": base}
        number = self.propose(study, config, seed=seed, **more)
        patches = study.train(number, score)
        model = A2N(config.model, config.data.scale)
        initialise(model, 1000 + number)
        folder = study.folder.trial(number)
        digest = save_weights(folder / "weights.safetensors", model)
        (folder / "config.json").write_text(json.dumps(study.state.trials[number].proposed.config))
        result = {"scores": {"val/psnr": score}, "per_image": (("a", score, 0.8),), "seconds": {}}
        study.tell(ev.Finished, trial=number, patches=patches, weights=digest, **result)
        return number

    def train(self, number: int, *, origin: int | None = None, points: int = 4, config: TrialConfig = X4) -> str:
        """Adds a training that starts from an x2 trial's weights, by default of the same seed."""
        config = config.with_values({"seed": trial_seed(1, number), "train.budget_patches": 480 * points})
        start = start_from(self.weights(number + 1 if origin is None else origin), config)
        name = f"{number:04d}-{480 * points}-from-{start.digest[:8]}"
        study = type(self.scratch)(replace(self.scratch.folder, training=name), points=points)
        study.open()
        told = {"number": number, "role": "training", "initial": start.digest}
        self.finish(study, config, number, TRANSFERRED[number], **told)
        study.close()
        return name


@pytest.fixture
def answer(story: Callable[..., Any]) -> Answer:
    """x2 trials 1, 2, 3 and trials 0, 1, 2 from scratch with the seeds 0, 1, 2."""
    return Answer(story)


def test_differences_are_paired_over_seeds(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        answer.train(number)
    assert main(answer.argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "seed 0: from other weights 30.300 dB after 1,920 + 1,920 patches, from scratch 30.000 dB after 3,840"
    )
    # Differences 0.30, 0.25, 0.35: sd 0.05, t(2) 4.303, so half an interval is 0.124.
    assert lines[3:] == ["from other weights - from scratch: +0.300 dB (95 % 0.176 to 0.424, 3 seeds)"]


def test_the_first_weights_of_x4_are_not_those_of_x2_as_a_whole(answer: Answer) -> None:
    answer.train(0)
    [folder] = answer.scratch.folder.trainings()
    [training] = fold(read(folder.journal)).trials.values()
    assert training.proposed.initial != answer.x2.state.trials[1].end.weights  # the tail of x4 is its seed's own


def test_one_pair_is_no_comparison_and_it_is_told_what_is_missing(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer.train(1)
    assert main(answer.argv) == 2
    out, err = capsys.readouterr()
    assert "expected at least two finished trainings" in err
    assert "seed 0 is left out: no training of trial 0 started from other weights" in out.splitlines()


def test_a_longer_training_from_the_seed_s_own_weights_is_none_of_them(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        answer.train(number)
    study = type(answer.scratch)(replace(answer.scratch.folder, training="0000-9600"), points=20)
    study.open()
    answer.finish(study, X4, 0, 40.0, number=0, role="training")
    study.close()
    assert main(answer.argv) == 0
    assert "40.000" not in capsys.readouterr().out


def test_two_trainings_of_one_trial_are_refused_by_their_names(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer.train(0)
    one, other = answer.train(1), answer.train(1, origin=3)
    assert main(answer.argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: trial 1 of study 'scratch_x4_cpu': expected one training") and "Traceback" not in err
    assert one in err and other in err


def test_weights_of_another_seed_are_refused(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer.train(0)
    name = answer.train(1, origin=1)
    assert main(answer.argv) == 2
    err = capsys.readouterr().err
    assert f"training {name} of study 'scratch_x4_cpu': did not start from the weights of trial 2 of claims_x2" in err


def test_weights_that_are_no_longer_the_trial_s_are_refused(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer.train(0)
    shutil.copyfile(answer.weights(2), answer.weights(1))
    assert main(answer.argv) == 2
    assert (
        f"{answer.weights(1)}: not the weights that the journal records for trial 1 of claims_x2_cpu"
        in capsys.readouterr().err
    )


def test_another_budget_than_that_from_scratch_is_refused(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer.train(0, points=8)
    assert main(answer.argv) == 2
    err = capsys.readouterr().err
    assert "1,920 patches of trial 1 of claims_x2_cpu and its own 3,840 are not the 3,840 of trial 0" in err
    assert "train it with --patches 1920" in err


def test_another_configuration_is_refused(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer.train(0, config=X4.with_values({"train.loss": "l2"}))
    assert main(answer.argv) == 2
    assert "differs from trial 0 in train.loss" in capsys.readouterr().err


def test_seeds_names_trials_and_weights_and_what_it_leaves_out(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer.x2.fail(answer.propose(answer.x2, X2, seed=3, role="replicate", name="finalist 1", of=1))
    answer.finish(answer.scratch, X4, 3, 30.0)
    assert seeds(answer.argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{number} {answer.weights(number + 1)}" for number in range(3)]
    assert err == "seed 3 is left out: trial 4 of claims_x2_cpu is failed\n"


def test_seeds_of_a_search_are_refused(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer.propose(answer.x2, X2.with_values({"train.loss": "charbonnier"}))
    assert seeds(answer.argv) == 2
    assert "study 'claims_x2_cpu': expected a study of one base configuration" in capsys.readouterr().err


Told = Callable[[str, str], StudyState]


@pytest.fixture
def told(history: Callable[..., Any]) -> Told:
    """Returns the state of a whole study of an experiment. The setting of that name, if any, failed at once."""

    def tell(name: str, failing: str) -> StudyState:
        study = history(load_experiment(name)[1])
        for reference in (*study.experiment.references, ""):
            number = study.propose(reference=reference)
            if reference and reference == failing:
                study.end(number, "failed")
                continue
            study.validate(number, 30.0)
            study.end(number)
        while (asked := due(study.state, study.experiment)) is not None:
            study.replicate(asked, 30.0)
        state: StudyState = study.state
        return state

    return tell


@pytest.mark.parametrize(("claims", "scratch"), [("claims_x2_cpu", "scratch_x4_cpu"), ("claims_x2", "scratch_x4")])
@pytest.mark.parametrize(
    ("failing", "numbers"),
    [("", [12, 13, 26, 39, 52]), ("32 at 1e-3", [12, 13, 25, 37, 49])],
    ids=["none failed", "a setting failed"],
)
def test_the_base_is_found_by_its_seeds_whatever_failed_before_it(
    told: Told, claims: str, scratch: str, failing: str, numbers: list[int]
) -> None:
    x2, x4 = told(claims, failing), told(scratch, "")
    assert [t.number for t in base_trials(x2, claims).values()] == numbers
    pairs, left_out = same_seed(x4, x2, (scratch, claims))
    assert left_out == []
    assert [(here.number, there.number) for here, there in pairs] == list(enumerate(numbers))
    base = load_experiment(claims)[1].base
    for here, there in pairs:
        assert here.config.seed == there.config.seed
        assert there.config == base.with_values({"seed": there.config.seed})


def test_studies_whose_seeds_differ_are_refused(history: Callable[..., Any], told: Told) -> None:
    other = history(load_experiment("scratch_x4_cpu")[1], seed=2)
    number = other.propose()
    other.validate(number, 30.0)
    other.end(number)
    [asked] = [due(other.state, other.experiment)]
    other.replicate(asked, 30.0)
    with pytest.raises(SuiteError, match=r"seed 1: trial 1 of x4 has \d+, trial 13 of x2 has \d+; run both"):
        same_seed(other.state, told("claims_x2_cpu", ""), ("x4", "x2"))
