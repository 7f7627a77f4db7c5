"""Verdicts are right as often as they claim: thousands of simulated studies go through the real verdict.

The figures of docs/concepts/statistics.md come from here: pytest -m long -s tests/study/test_calibration.py
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from experiments.quickstart import EXPERIMENT
from study.search.replicates import due
from study.statistics.stats import upper_bound
from study.statistics.verdict import Verdict, verdict

NOISE = 0.03
"""Standard deviation of the score of one run [dB]."""
SEED_EFFECT = 0.05
"""Standard deviation of the effect that a seed has on all settings alike [dB]."""
STUDIES = 2_000

pytestmark = pytest.mark.long


def simulate(
    history: Callable[..., Any], generator: np.random.Generator, truth: np.ndarray[Any, Any], **experiment: int
) -> tuple[Verdict, np.ndarray[Any, Any]]:
    """The verdict on one study of both references (truth 0) and search trials with these true scores above them [dB].

    Returns it with the truth by trial number.
    """
    simulated = replace(EXPERIMENT, **experiment)
    study = history(simulated)
    scores = 30 + truth + generator.normal(0, NOISE, truth.size)
    ahead = np.argsort(-scores)[: simulated.finalists + 1]  # no trial behind these becomes a finalist
    true_score = np.concatenate([[0.0, 0.0], truth[ahead]])
    for name in simulated.references:
        number = study.propose(reference=name)
        study.validate(number, *[30 + generator.normal(0, NOISE)] * 4)
        study.end(number)
    for score in scores[ahead].tolist():
        study.try_out({}, score)
    shared = generator.normal(0, SEED_EFFECT, simulated.replicates + 1)
    while (one := due(study.state, simulated)) is not None:
        study.replicate(one, 30 + true_score[one.of.number] + shared[one.number] + generator.normal(0, NOISE))
    answer = verdict(study.state)
    assert answer is not None
    return answer, true_score


@pytest.mark.parametrize(("finalists", "replicates"), [(1, 3), (1, 5), (3, 3)])
def test_of_fifty_equal_settings_few_winners_are_called_better(
    history: Callable[..., Any], finalists: int, replicates: int
) -> None:
    generator = np.random.default_rng([1, finalists, replicates])
    wrong, covered, looked_better = 0, [], []
    for _ in range(STUDIES):
        answer, _ = simulate(history, generator, np.zeros(48), finalists=finalists, replicates=replicates)
        wrong += any(c.significant and c.difference.mean > 0 for c in answer.against)
        if finalists == 1:
            covered += [c.difference.low <= 0 <= c.difference.high for c in answer.against]
        looked_better.append(answer.winner.trial.score - 30)  # type: ignore[operator]
    bound = upper_bound(wrong, STUDIES)
    print(f"\n50 equal settings, K {finalists}, R {replicates}: {wrong} of {STUDIES} winners called better than a "
          f"reference, upper 95 % bound {bound:.2%}; the search's best looked {np.mean(looked_better):.3f} dB "
          f"({np.mean(looked_better) / NOISE:.2f} sd) too good; intervals covered "
          f"{np.mean(covered or [np.nan]):.2%}")  # fmt: skip
    assert bound <= 0.065
    if covered:
        assert 0.93 <= np.mean(covered) <= 0.97


def test_a_true_tenth_of_a_decibel_is_found_with_five_seeds(history: Callable[..., Any]) -> None:
    generator, found_both, found_each, covered = np.random.default_rng(2), 0, 0, []
    for _ in range(STUDIES):
        answer, truth = simulate(history, generator, np.full(8, 0.1), finalists=1, replicates=5)
        found_each += sum(c.significant and c.difference.mean > 0 for c in answer.against)
        found_both += all(c.significant and c.difference.mean > 0 for c in answer.against)
        covered += [c.difference.low <= truth[answer.winner.trial.number] <= c.difference.high for c in answer.against]
    print(f"\na true 0.1 dB, sd {NOISE} dB, 5 seeds: {found_each / STUDIES / 2:.1%} of the comparisons, "
          f"{found_both / STUDIES:.1%} of the studies against both; intervals covered "
          f"{np.mean(covered):.2%}")  # fmt: skip
    assert found_each / STUDIES / 2 >= 0.8
    assert 0.93 <= np.mean(covered) <= 0.97


def test_among_finalists_the_truly_best_is_seldom_ruled_out_and_its_mean_is_not_flattered(
    history: Callable[..., Any],
) -> None:
    generator, ruled_out, plain, corrected = np.random.default_rng(3), 0, [], []
    studies = STUDIES // 2
    for _ in range(studies):
        truth = generator.normal(0, 0.02, 20)
        answer, true_score = simulate(history, generator, truth, finalists=4, replicates=3)
        best = max(answer.choice, key=lambda number: true_score[number])
        ruled_out += answer.choice[best][1] <= 0
        chosen = answer.winner.trial.number
        plain.append(answer.winner.estimate.mean - 30 - true_score[chosen])
        corrected.append(answer.choice[chosen][2] - 30 - true_score[chosen])
    print(f"\n4 finalists, 3 seeds: the truly best ruled out in {ruled_out / studies:.2%}; the chosen mean is "
          f"{np.mean(plain):+.4f} dB off, {np.mean(corrected):+.4f} dB without the winner's curse")  # fmt: skip
    assert upper_bound(ruled_out, studies) <= 0.065
    assert abs(np.mean(corrected)) < 0.5 * abs(np.mean(plain))
