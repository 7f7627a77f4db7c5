"""What a study says about its winner, from replicates with scores made by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats as scipy_stats

from experiments.quickstart import EXPERIMENT
from study.search.replicates import due
from study.statistics.verdict import Verdict, compare, verdict
from study.statistics.wording import no_verdict, verdict_sentences

Scores = dict[str, list[float | None]]
CLEAR: Scores = {
    "finalist 1": [30.0, 30.2, 30.1],
    "authors": [29.5, 29.75, 29.55],  # 0.50, 0.45, 0.55 behind
    "blog": [30.0, 30.15, 30.12],  # 0.00, 0.05, -0.02 behind
}
SECOND_IS_BETTER: Scores = CLEAR | {"finalist 2": [30.4, 30.62, 30.5]}


@pytest.fixture
def judged(history: Callable[..., Any]) -> Callable[..., Any]:
    """A study whose finalists had replicates with these scores; an image's crops score 1 dB below and above."""

    def make(scores: Scores, **experiment: Any) -> Any:
        study = history(replace(EXPERIMENT, **({"replicates": len(scores["finalist 1"])} | experiment)))
        for name in ("authors", "blog"):
            number = study.propose(reference=name)
            study.validate(number, *[29.0] * 4)
            study.end(number)
        study.try_out({"model.temperature": 0.3}, 30.3)
        study.try_out({"model.temperature": 3.0}, 30.25)
        while (replicate := due(study.state, study.experiment)) is not None:
            score = scores[replicate.name][replicate.number - 1]
            crops = [] if score is None else [("a", score - 1), ("a", score + 1)]
            study.replicate(replicate, score, crops)
        return study

    return make


def verdict_of(study: Any) -> Verdict:
    answer = verdict(study.state)
    assert answer is not None
    return answer


def test_the_winner_is_compared_with_each_reference_over_the_same_seeds(judged: Callable[..., Any]) -> None:
    authors, blog = verdict_of(judged(CLEAR)).against
    theirs = [scipy_stats.ttest_rel(CLEAR["finalist 1"], CLEAR[name]) for name in ("authors", "blog")]
    assert authors.difference.mean == pytest.approx(0.5)
    assert blog.difference.mean == pytest.approx(0.01)
    # Holm over the two: the smaller p twice, the larger once.
    assert (authors.p, blog.p) == pytest.approx((2 * theirs[0].pvalue, theirs[1].pvalue))
    assert (authors.significant, blog.significant) == (True, False)


def test_the_verdict_in_words_names_budget_images_batch_interval_and_seeds(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR)
    text = verdict_sentences(verdict_of(study), study.state)
    # Seeds: (2.24 + 0.84)^2 / (0.010 / 0.036)^2 = 124, three more for so few degrees of freedom, less the three seen.
    assert text[:3] == [
        "verdict for trial 2 (batch size 16) after 1,920 patches, on 6 crops of 3 images:",
        '  higher PSNR than "authors" after 1,920 patches: +0.50 dB, 95% CI [0.38, 0.62], n = 3 seeds; '
        "higher on 2 of 2 crops, from +0.50 to +0.50 dB",
        '  no significant difference from "blog": +0.01 dB, 95% CI [-0.08, 0.10], n = 3 seeds '
        "(about 124 more seeds needed)",
    ]
    assert text[3].startswith(
        "  replicates of trial 2: mean 30.100 dB, standard deviation 0.100 dB, n = 3 seeds; "
        "its run in the search scored +0.200 dB relative to this mean; probability of being the best of these 3: 0."
    )


def test_a_winner_may_have_a_lower_psnr_than_a_reference(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR | {"authors": [30.5, 30.75, 30.55]})
    assert 'lower PSNR than "authors" after 1,920 patches: -0.50 dB, 95% CI [-0.62, -0.38], n = 3 seeds' in "\n".join(
        verdict_sentences(verdict_of(study), study.state)
    )


def test_without_replicates_there_is_no_verdict(judged: Callable[..., Any], history: Callable[..., Any]) -> None:
    study = history(EXPERIMENT)
    assert verdict(study.state) is None
    study.try_out({"model.temperature": 0.3}, 30.3)
    assert verdict(study.state) is None
    assert verdict(judged({name: [None] * 3 for name in CLEAR}).state) is None


@pytest.mark.parametrize("replicates", [0, 3])
def test_a_study_without_replicates_says_how_to_get_a_verdict(replicates: int, history: Callable[..., Any]) -> None:
    sentence = no_verdict(history(replace(EXPERIMENT, replicates=replicates)).state)
    assert sentence.startswith("a single run per trial gives a ranking, not a verdict")
    assert ("start a new study with replicates=3 in its experiment" in sentence) == (replicates == 0)


def test_only_seeds_that_both_finished_are_compared_and_failures_are_named(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR | {"blog": [29.0, None, 29.1]})
    answer = verdict_of(study)
    assert [c.difference.count for c in answer.against] == [3, 2]
    assert '  "blog" failed with 1 of 3 seeds (diverged: no luck)' in verdict_sentences(answer, study.state)


def test_one_shared_seed_is_no_comparison(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR | {"blog": [None, None, 29.1]})
    assert '  cannot be compared with "blog": the two share only one seed (+1.00 dB)' in verdict_sentences(
        verdict_of(study), study.state
    )


def test_one_more_or_less_equal_pair_of_scores_would_need_too_many_seeds(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR | {"blog": [29.9, 30.3, 30.1]})
    assert "(no reasonable number of seeds would be enough)" in verdict_sentences(verdict_of(study), study.state)[2]


def test_with_one_finalist_the_comparisons_are_the_two_fixed_before(judged: Callable[..., Any]) -> None:
    answer = verdict_of(judged(CLEAR))
    assert answer.primary
    assert [c.family for c in answer.against] == [2, 2]
    assert answer.choice == {}


def test_the_comparisons_of_a_finalist_chosen_by_its_replicates_are_corrected_for_all_finalists(
    judged: Callable[..., Any],
) -> None:
    study = judged(SECOND_IS_BETTER, finalists=2)
    answer = verdict_of(study)
    assert (answer.winner.trial.number, answer.primary) == (3, False)
    assert [c.one.trial.number for c in answer.against] == [3, 3]
    assert [c.family for c in answer.against] == [4, 4]
    text = "\n".join(verdict_sentences(answer, study.state))
    assert "chosen from 2 finalists by their replicates, so significance is Holm-corrected over all 4" in text
    assert (
        "among 2 finalists: significantly better than the others (simultaneous 95% CIs); "
        "mean corrected for the winner's curse: 30.5"
    ) in text


def test_a_finalist_that_stays_first_is_judged_by_the_two_hypotheses_fixed_before(judged: Callable[..., Any]) -> None:
    study = judged(CLEAR | {"finalist 2": [29.98, 30.21, 30.05]}, finalists=2)
    answer = verdict_of(study)
    assert answer.primary
    assert [c.family for c in answer.against] == [2, 2]
    assert "among 2 finalists: no significant difference from trial 3 (simultaneous 95% CIs)" in "\n".join(
        verdict_sentences(answer, study.state)
    )


def test_the_probability_of_being_best_covers_all_that_were_replicated(judged: Callable[..., Any]) -> None:
    answer = verdict_of(judged(CLEAR))
    assert sorted(answer.probability_best) == [0, 1, 2]
    assert sum(answer.probability_best.values()) == pytest.approx(1)
    assert answer.probability_best[0] < 0.01


def test_comparisons_share_one_family(judged: Callable[..., Any]) -> None:
    answer = verdict_of(judged(SECOND_IS_BETTER, finalists=2))
    candidates = [j for j in answer.judged if not j.trial.is_reference]
    references = [j for j in answer.judged if j.trial.is_reference]
    assert {c.family for c in compare(candidates, references)} == {4}
