"""Settings compared over shared seeds: what an experiment may ask, and what its study answers."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats as scipy_stats

from experiments.quickstart import BASE
from sr_core.errors import ConfigError
from study.question.experiment import Experiment
from study.search.replicates import due
from study.search.sampler import propose
from study.statistics.verdict import Verdict, verdict
from study.statistics.wording import verdict_sentences
from study.tracking.mlflow.content import plain, question_params

CHARBONNIER = BASE.with_values({"train.loss": "charbonnier"})
L2 = BASE.with_values({"train.loss": "l2"})
PILLOW = BASE.with_values({"data.train_kernel": "pillow_bicubic"})
LOSSES, KERNELS = "Is Charbonnier the better loss?", "Does Pillow's LR do as well?"

ASKED = Experiment(
    question="What of the blog's advice holds?",
    base=BASE,
    references={"charbonnier": CHARBONNIER, "l2": L2, "pillow": PILLOW},
    scheduler="none",
    replicates=2,
    comparisons={LOSSES: [("charbonnier", "base"), ("charbonnier", "l2")], KERNELS: [("pillow", "base")]},
)

SCORES: dict[str, list[float | None]] = {  # the study's own seed first
    "base": [30.0, 30.2, 30.1],
    "charbonnier": [30.2, 30.42, 30.28],
    "l2": [29.5, 29.75, 29.55],
    "pillow": [30.0, 30.15, 30.12],
}


@pytest.fixture
def compared(history: Callable[..., Any]) -> Callable[..., Any]:
    """A study in which every setting was trained with three seeds and came to these scores."""

    def make(scores: dict[str, list[float | None]] = SCORES, experiment: Experiment = ASKED) -> Any:
        study = history(experiment)
        for name in (*experiment.references, "base"):
            number = study.propose(reference="" if name == "base" else name)
            study.start(number)
            study.validate(number, *[scores[name][0]] * 4)
            study.end(number)
        while (replicate := due(study.state, experiment)) is not None:
            name = "base" if replicate.name == "finalist 1" else replicate.name
            study.replicate(replicate, scores[name][replicate.number])
        return study

    return make


def verdict_of(study: Any) -> Verdict:
    answer = verdict(study.state)
    assert answer is not None
    return answer


def test_the_base_is_the_only_trial_that_is_tried_apart_from_the_references(history: Callable[..., Any]) -> None:
    study = history(ASKED)
    for name in ASKED.references:
        study.validate(study.propose(reference=name), 29.0)
    assert propose(study.state, ASKED, 3) == {}
    study.propose({})
    assert propose(study.state, ASKED, 4) is None


def test_every_question_is_a_family_of_its_own(compared: Callable[..., Any]) -> None:
    answers = verdict_of(compared()).answers
    assert list(answers) == [LOSSES, KERNELS]
    against_base, against_l2 = answers[LOSSES]
    p = [scipy_stats.ttest_rel(SCORES["charbonnier"], SCORES[other]).pvalue for other in ("base", "l2")]
    assert (against_base.family, against_l2.family) == (2, 2)
    # Holm over the two: the smaller p twice, the larger once, but never below the smaller's.
    assert against_base.p == pytest.approx(max(p[0], 2 * min(p)) if p[0] > p[1] else 2 * p[0])
    assert against_l2.p == pytest.approx(max(p[1], 2 * min(p)) if p[1] > p[0] else 2 * p[1])
    assert answers[KERNELS][0].p == pytest.approx(scipy_stats.ttest_rel(SCORES["pillow"], SCORES["base"]).pvalue)


def test_the_study_s_own_seed_counts_because_nothing_was_chosen_by_it(compared: Callable[..., Any]) -> None:
    answer = verdict_of(compared())
    assert {j.name: list(j.scores) for j in answer.judged} == {name: [0, 1, 2] for name in SCORES}
    assert answer.answers[KERNELS][0].difference.mean == pytest.approx((0.0 - 0.05 + 0.02) / 3)


def test_the_answers_in_words_stand_below_their_questions(compared: Callable[..., Any]) -> None:
    study = compared()
    text = verdict_sentences(verdict_of(study), study.state)
    assert text[:5] == [
        "verdict after 1,920 patches, on 6 crops of 3 images:",
        f"  {LOSSES}",
        '    "charbonnier" has higher PSNR than "base" after 1,920 patches: +0.20 dB, 95% CI [0.15, 0.25], n = 3 seeds'
        "; higher on 1 of 1 crops, from +0.20 to +0.20 dB",
        '    "charbonnier" has higher PSNR than "l2" after 1,920 patches: +0.70 dB, 95% CI [0.63, 0.77], n = 3 seeds; '
        "higher on 1 of 1 crops, from +0.70 to +0.70 dB",
        "    significance is Holm-corrected over the 2 comparisons of this question",
    ]
    assert text[5] == f"  {KERNELS}"
    assert text[6].startswith(
        '    "pillow" shows no significant difference from "base": -0.01 dB, 95% CI [-0.10, 0.08], n = 3 seeds (about '
    )
    assert len(text) == 7


def test_a_setting_that_failed_is_left_out_and_named(compared: Callable[..., Any]) -> None:
    study = compared(SCORES | {"pillow": [30.0, None, 30.12]})
    answer = verdict_of(study)
    assert answer.answers[KERNELS][0].difference.count == 2
    assert verdict_sentences(answer, study.state)[-1] == '  "pillow" failed with 1 of 3 seeds (diverged: no luck)'


def test_a_setting_that_never_finished_is_named(history: Callable[..., Any]) -> None:
    study = history(ASKED)
    study.end(study.propose(reference="pillow"), "failed")
    for values in ({"reference": "charbonnier"}, {"reference": "l2"}, {}):
        number = study.propose(**values)
        study.validate(number, *[30.0] * 4)
        study.end(number)
    answer = verdict_of(study)
    assert [len(comparisons) for comparisons in answer.answers.values()] == [2, 0]
    assert verdict_sentences(answer, study.state)[-1] == '  "pillow" has not finished and is in no comparison'


def test_a_setting_that_failed_makes_the_other_comparisons_of_its_question_no_easier(
    history: Callable[..., Any],
) -> None:
    study = history(ASKED)
    study.end(study.propose(reference="l2"), "failed")
    for values in ({"reference": "charbonnier"}, {"reference": "pillow"}, {}):
        number = study.propose(**values)
        study.validate(number, *[30.0] * 4)
        study.end(number)
    losses = next(iter(verdict_of(study).answers.values()))
    assert [(len(losses), c.family) for c in losses] == [(1, 2)]


def test_before_its_base_was_trained_a_study_answers_nothing(history: Callable[..., Any]) -> None:
    study = history(ASKED)
    number = study.propose(reference="pillow")
    study.validate(number, *[29.0] * 4)
    study.end(number)
    assert verdict(study.state) is None


def test_what_is_asked_is_a_parameter_that_mlflow_takes(compared: Callable[..., Any]) -> None:
    params = question_params(compared().state.opened)
    allowed = re.compile(r"[\w\-. :/]+", re.ASCII)
    assert [name for name in params if not allowed.fullmatch(name)] == []
    assert LOSSES in plain(params["search.comparisons"])


def test_an_experiment_without_comparisons_is_described_as_before() -> None:
    assert "comparisons" in ASKED.describe()["search"]
    assert "comparisons" not in replace(ASKED, comparisons={}).describe()["search"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"comparisons": {"Which?": [("charbonnier", "huber")]}}, "expected two of base, charbonnier, l2, pillow, got"),
        ({"comparisons": {"Which?": [("l2", "l2")]}}, "'Which\\?': expected two of"),
        ({"comparisons": {"Which?": []}}, "'Which\\?': expected at least one pair"),
        ({"replicates": 0}, "comparisons need replicates"),
        (
            {"references": {"base": L2}, "comparisons": {"Which?": [("l2", "base")]}},
            "remove or rename the reference that repeats it",
        ),
        (
            {"references": {"same": BASE}, "comparisons": {"Which?": [("same", "base")]}},
            "remove or rename the reference that repeats it",
        ),
    ],
)
def test_comparisons_that_cannot_be_answered_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        replace(ASKED, **changes)


def test_comparisons_and_a_search_space_are_refused_together() -> None:
    from study.question.space import Choice

    with pytest.raises(ConfigError, match="make each setting a reference and remove scientific and nuisance"):
        replace(ASKED, nuisance={"train.loss": Choice("l1", "l2")})
