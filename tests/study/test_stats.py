"""Statistics of replicates against tables, closed forms, SciPy's own tests and simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from study.statistics import stats
from study.statistics.stats import (
    against_best,
    dunnett_critical,
    estimate,
    holm,
    paired,
    power,
    probability_best,
    seed_noise,
    seeds_needed,
    shrunken,
    upper_bound,
)

THREE_BY_FOUR = np.array([[30.0, 30.1, 29.9, 30.2], [29.7, 29.9, 29.8, 29.8], [29.2, 29.5, 29.1, 29.4]])


def test_an_interval_of_three_by_hand() -> None:
    interval = estimate([0.4, 0.5, 0.6])  # mean 0.5, sd 0.1, t(0.975, 2) = 4.30265
    assert (interval.mean, interval.sd, interval.count) == (pytest.approx(0.5), pytest.approx(0.1), 3)
    assert interval.high - interval.mean == pytest.approx(4.302652729696 * 0.1 / math.sqrt(3))
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


def test_a_paired_comparison_is_scipy_s_paired_t_test() -> None:
    one, other = np.random.default_rng(1).normal(size=(2, 7))
    ours, theirs = paired(one, other), scipy_stats.ttest_rel(one, other)
    interval = theirs.confidence_interval(0.95)
    assert (ours.p, ours.low, ours.high) == pytest.approx((theirs.pvalue, interval.low, interval.high), rel=1e-9)


def test_what_a_seed_does_to_both_cancels() -> None:
    seeds = np.array([0.0, 5.0, -3.0, 1.0])
    one, other = np.array([1.0, 1.1, 0.9, 1.0]), np.array([0.5, 0.5, 0.6, 0.4])
    moved, still = paired(one + seeds, other + seeds), paired(one, other)
    assert (moved.mean, moved.sd) == (pytest.approx(still.mean), pytest.approx(still.sd))


def test_one_seed_gives_an_infinite_interval() -> None:
    difference = paired([30.0], [29.0])
    assert (difference.mean, difference.low, difference.high, difference.p) == (1.0, -math.inf, math.inf, 1.0)


def test_equal_differences_are_significant_unless_they_are_zero() -> None:
    assert estimate([0.5, 0.5]).p == 0.0
    assert estimate([0.0, 0.0]).p == 1.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_what_is_no_score_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected finite values"):
        estimate(values)


def test_unpaired_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="expected two scores for every seed, got 2 and 3 scores"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= a <= min(1.0, len(ps) * p) + 1e-12 for p, a in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_seeds_needed_are_those_of_the_published_tables(effect: float, seeds: int) -> None:
    # Paired two-sided t-test at 0.05 with power 0.8, according to G*Power and Cohen's tables.
    assert seeds_needed(effect * 0.03, 0.03, alpha=0.05) == seeds


def test_power_is_that_of_simulated_tests() -> None:
    draws = np.random.default_rng(2).normal(1.0, 1.0, size=(20_000, 6))
    t = draws.mean(axis=1) / draws.std(axis=1, ddof=1) * math.sqrt(6)
    frequency = np.mean(np.abs(t) > scipy_stats.t.ppf(0.9875, 5))
    assert power(1.0, 1.0, 6, 0.025) == pytest.approx(frequency, abs=0.012)  # 3.5 standard errors


def test_a_difference_that_a_thousand_seeds_cannot_establish_has_no_number_of_seeds() -> None:
    assert seeds_needed(1e-4, 0.03, alpha=0.025) is None
    assert seeds_needed(0.0, 0.03, alpha=0.025) is None
    assert seeds_needed(0.0, 0.0, alpha=0.025) is None
    assert seeds_needed(10.0, 1e-3, alpha=0.025) == 2


def test_seed_noise_by_hand() -> None:
    # Rows differ by 1 dB, columns by 0.5; what remains is ±0.1 in a pattern that sums to zero everywhere.
    scores = np.array([[1.1, 1.4], [-0.1, 0.6]])
    sd, df = seed_noise(scores)
    assert (sd, df) == (pytest.approx(0.2), 1)


@pytest.mark.parametrize(
    ("others", "df", "published"),
    [(1, 10, 1.81), (2, 10, 2.15), (3, 10, 2.34), (2, 5, 2.44), (4, 20, 2.30), (2, 120, 1.93)],
)
def test_critical_values_are_dunnett_s(others: int, df: int, published: float) -> None:
    assert dunnett_critical(others, df) == pytest.approx(published, abs=0.0051)  # his table has two decimals


def test_many_comparisons_are_scipy_s_dunnett() -> None:
    groups = np.random.default_rng(6).normal(size=(10, 4))
    groups -= groups.mean(axis=1, keepdims=True)
    noise = math.sqrt(groups.var(axis=1, ddof=1).mean())
    groups[1:] += dunnett_critical(9, 30) * noise * math.sqrt(2 / 4)
    theirs = scipy_stats.dunnett(*groups[1:], control=groups[0], alternative="greater", rng=np.random.default_rng(7))
    assert theirs.pvalue == pytest.approx([0.05] * 9, abs=0.001)


def test_one_comparison_is_student_s() -> None:
    for df in (2, 4, 30):
        assert dunnett_critical(1, df) == pytest.approx(scipy_stats.t.ppf(0.95, df), rel=1e-4)


def test_the_best_differs_significantly_only_from_those_that_it_clearly_beats() -> None:
    scores = np.array([[30.0, 30.1, 29.9], [29.99, 30.08, 29.92], [28.0, 28.1, 27.9]])
    intervals = against_best(scores)
    assert intervals.may_be_best.tolist() == [True, True, False]
    assert intervals.high[2] == 0.0
    assert intervals.low[2] < -1.9
    assert intervals.low[0] < 0 < intervals.high[0]
    alone = against_best(scores[[0, 2]])
    assert alone.low[0] == 0.0 < alone.high[0]


def test_intervals_against_the_best_hold_all_at_once() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    studies = 1_500
    truth = np.array([0.0, 0.0, -0.02, -0.05])
    differences = np.array([0.0, 0.0, -0.02, -0.05])  # truth minus the best of the others
    for _ in range(studies):
        intervals = against_best(truth[:, None] + generator.normal(0, 0.03, (4, 4)))
        covered += bool(((intervals.low <= differences) & (differences <= intervals.high)).all())
    assert covered / studies > 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)


def test_two_settings_share_the_probability_by_student_s_t() -> None:
    scores = THREE_BY_FOUR[:2]
    difference = scores[0] - scores[1]
    t = difference.mean() / difference.std(ddof=1) * 2
    assert probability_best(scores)[0] == pytest.approx(scipy_stats.t.cdf(t, 3), abs=1e-4)


def test_the_probability_of_being_best_is_that_of_posterior_draws() -> None:
    generator = np.random.default_rng(4)
    scores = THREE_BY_FOUR + np.array([[0.0], [0.2], [0.7]])
    sd, df = seed_noise(scores)
    noise = sd * np.sqrt(df / generator.chisquare(df, size=(200_000, 1))) / 2
    draws = scores.mean(axis=1) + noise * generator.standard_normal((200_000, 3))
    frequencies = np.bincount(draws.argmax(axis=1), minlength=3) / 200_000
    assert probability_best(scores) == pytest.approx(frequencies, abs=0.005)


def test_equal_settings_share_the_probability_equally() -> None:
    assert probability_best(np.full((4, 3), 30.0)) == pytest.approx([0.25] * 4)
    noise = np.array([[0.1, -0.1], [-0.1, 0.1]])
    assert probability_best(noise) == pytest.approx([0.5, 0.5])


def test_shrunken_means_keep_their_order_and_lose_the_spread_that_noise_explains() -> None:
    scores = np.array([[30.0, 30.2], [30.1, 29.9], [29.9, 30.0]])
    shrunk = shrunken(scores)
    means = scores.mean(axis=1)
    assert shrunk.mean() == pytest.approx(means.mean())
    assert shrunk.std() < means.std()
    clear = THREE_BY_FOUR * 10
    assert shrunken(clear) == pytest.approx(clear.mean(axis=1), abs=0.1)


def test_shrunken_means_take_the_winner_s_curse_away() -> None:
    generator = np.random.default_rng(5)
    plain = []
    corrected = []
    for _ in range(3_000):
        truth = generator.normal(0, 0.02, 5)
        scores = truth[:, None] + generator.normal(0, 0.03, (5, 3))
        chosen = int(scores.mean(axis=1).argmax())
        plain.append(scores.mean(axis=1)[chosen] - truth[chosen])
        corrected.append(shrunken(scores)[chosen] - truth[chosen])
    assert np.mean(plain) > 0.008
    assert abs(np.mean(corrected)) < 0.3 * np.mean(plain)


def test_an_upper_bound_of_a_rate_by_hand() -> None:
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))  # the rule of three
    assert upper_bound(100, 100) == 1.0
    bound = upper_bound(7, 50)
    assert scipy_stats.binom.cdf(7, 50, bound) == pytest.approx(0.05)


@pytest.mark.parametrize("df", [1, 2, 3, 9, 100, 1_000])
def test_student_s_t_is_that_of_scipy_s_distributions_bit_for_bit(df: int) -> None:
    for share in (0.5, 0.75, 0.95, 0.975, 0.9875, 0.995, 1 - 1e-9):
        assert stats._t_quantile(share, df) == scipy_stats.t.ppf(share, df)
    for value in (0.0, 1e-9, 0.3, 1.0, 2.5, 12.0, 300.0, 1e9):
        assert stats._t_above(value, df) == scipy_stats.t.sf(value, df)


@pytest.mark.parametrize("df", [1, 2, 4, 18])
def test_the_quadrature_is_that_of_scipy_s_distributions_bit_for_bit(df: int) -> None:
    z, z_weights, s, _ = stats._quadrature(df)
    nodes, _ = np.polynomial.legendre.leggauss(80)
    np.testing.assert_array_equal(z_weights, scipy_stats.norm.pdf(z) * (z[1] - z[0]))
    np.testing.assert_array_equal(s, np.sqrt(scipy_stats.chi2.ppf((nodes + 1) / 2, df) / df))


def test_an_estimate_does_not_import_scipy_stats() -> None:
    code = (
        "import sys; from study.statistics import stats; stats.estimate([1.0, 2.0]); stats._quadrature(4); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "scipy.special" in done.stdout.split() and "scipy.stats" not in done.stdout.split()
