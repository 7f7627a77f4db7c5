"""Statistics of replicates: settings are compared over paired seeds, with the validation images fixed.

Scores are in dB, with one row for each setting and one column for each seed. docs/concepts/statistics.md explains why
each procedure was chosen and how it performs in simulated studies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # loads its modules when they are first used, so a study does not wait for them when it starts
from numpy.typing import ArrayLike, NDArray

ScoresBySeed = NDArray[np.float64]

CONFIDENCE = 0.95
"""Default confidence of intervals; 1 - CONFIDENCE is the level of tests."""
MAX_SEEDS = 1_000
"""A difference that needs more seeds is not worth the cost of establishing it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with Student's confidence interval; the interval of a single value is infinite."""

    mean: float
    sd: float
    """Sample standard deviation; NaN for a single value."""
    low: float
    high: float
    count: int
    p: float
    """Two-sided p-value against a mean of zero; 1 for a single value."""


def estimate(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of independent values, its confidence interval, and the t-test against zero.

    Args:
        values: scores, or differences over paired seeds.
        confidence: of the two-sided interval.
    Raises:
        ValueError: there is no value, or a value is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"expected finite values in one row, got {x.tolist()}")

    mean = float(x.mean())
    count = int(x.size)
    if count == 1:
        return Estimate(mean, math.nan, -math.inf, math.inf, 1, 1.0)

    sd = float(x.std(ddof=1))
    standard_error = sd / math.sqrt(count)
    half_width = standard_error * _t_quantile((1 + confidence) / 2, count - 1)
    if standard_error > 0:
        p = 2 * _t_above(abs(mean) / standard_error, count - 1)
    else:
        p = 1.0 if mean == 0 else 0.0
    return Estimate(mean, sd, mean - half_width, mean + half_width, count, p)


def _t_quantile(share: float, df: int) -> float:
    """The quantile of Student's t distribution, as scipy.stats.t.ppf gives it.

    Importing scipy.stats would add a second to every command that prints a verdict.
    """
    return float(scipy.special.stdtrit(df, share))


def _t_above(value: float, df: int) -> float:
    """The probability that Student's t exceeds a value, as scipy.stats.t.sf gives it."""
    return float(scipy.special.stdtr(df, -value))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down procedure (Holm 1979), in the given order.

    Rejecting the hypotheses whose adjusted p-value is below α makes any false rejection at most α likely.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def power(mean: float, sd: float, count: int, alpha: float) -> float:
    """The probability that a two-sided t-test of `count` differences at level α detects a true mean (noncentral t)."""
    df = count - 1
    shift = abs(mean) / sd * math.sqrt(count)
    critical = _t_quantile(1 - alpha / 2, df)
    detected = scipy.stats.nct.sf(critical, df, shift) + scipy.stats.nct.cdf(-critical, df, shift)
    # For a large shift SciPy's noncentral t returns NaN. Detection is then practically certain.
    return float(detected) if math.isfinite(detected) else 1.0


def seeds_needed(mean: float, sd: float, *, alpha: float, wanted: float = 0.8) -> int | None:
    """The smallest number of paired seeds that detects a difference with the wanted power; None above MAX_SEEDS.

    Args:
        mean, sd: of the paired differences, treated as the true values [dB].
        alpha: level of the test. It is below 1 - CONFIDENCE if Holm's procedure divides it.
        wanted: probability of detecting the difference.
    """
    if sd == 0:
        return 2 if mean else None
    if mean == 0 or power(mean, sd, MAX_SEEDS, alpha) < wanted:
        return None

    too_few = 1
    enough = MAX_SEEDS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if power(mean, sd, middle, alpha) >= wanted:
            enough = middle
        else:
            too_few = middle
    return enough


def seed_noise(scores: ScoresBySeed) -> tuple[float, int]:
    """The standard deviation [dB] of the seed noise of one score, and its degrees of freedom.

    The noise is the residual of the two-way layout settings x seeds. The effect that a seed has on all settings alike
    cancels in a paired comparison, so it is not part of the noise.

    Args:
        scores: (K, R), with K and R at least 2.
    """
    rows, columns = scores.shape
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    df = (rows - 1) * (columns - 1)
    return float(np.sqrt((residual**2).sum() / df)), df


@lru_cache(maxsize=256)
def _quadrature(df: int) -> tuple[ScoresBySeed, ScoresBySeed, ScoresBySeed, ScoresBySeed]:
    """Nodes and weights to integrate over a standard normal z and over s = sqrt(chi² / df).

    Returns:
        z, the weights of z, s, the weights of s. The nodes of s are quantiles.
    """
    z = np.linspace(-8.5, 8.5, 341)
    z_weights = np.exp(-(z**2) / 2.0) / np.sqrt(2 * np.pi) * (z[1] - z[0])

    nodes, weights = np.polynomial.legendre.leggauss(80)
    s = np.sqrt(2 * scipy.special.gammaincinv(df / 2, (nodes + 1) / 2) / df)
    return z, z_weights, s, weights / 2


@lru_cache(maxsize=256)
def dunnett_critical(others: int, df: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided critical value for comparing one mean with `others` means at once (Dunnett 1955).

    All means are of equally many values.
    """
    z, z_weights, s, s_weights = _quadrature(df)

    def excess(q: float) -> float:
        inside = scipy.special.ndtr(z[None, :] + math.sqrt(2) * q * s[:, None]) ** others
        return float(s_weights @ inside @ z_weights) - confidence

    return float(scipy.optimize.brentq(excess, 0.0, 200.0))


@dataclass(frozen=True, slots=True)
class AgainstBest:
    """Simultaneous intervals for each setting's mean minus the best of the others (Hsu 1984)."""

    low: ScoresBySeed
    high: ScoresBySeed

    @property
    def may_be_best(self) -> NDArray[np.bool_]:
        """(K,) True for each setting that the data do not rule out as the best."""
        return self.high > 0


def against_best(scores: ScoresBySeed, confidence: float = CONFIDENCE) -> AgainstBest:
    """Multiple comparisons with the best (Hsu 1984), for choosing among finalists by their replicates.

    All intervals hold at once with at least the stated confidence, so any setting may be selected afterwards.

    Args:
        scores: (K, R), with K and R at least 2.
        confidence: of all intervals together.
    """
    means = scores.mean(axis=1)
    seeds = scores.shape[1]
    sd, df = seed_noise(scores)
    margin = dunnett_critical(len(means) - 1, df, confidence) * sd * math.sqrt(2 / seeds)
    gap = means - _best_of_others(means)
    return AgainstBest(low=np.minimum(0.0, gap - margin), high=np.maximum(0.0, gap + margin))


def _best_of_others(means: ScoresBySeed) -> ScoresBySeed:
    """(K,) For each setting, the highest mean among the other settings."""
    first, second = np.sort(means)[::-1][:2]
    others = np.full(means.shape, first)
    others[int(means.argmax())] = second
    return others


def probability_best(scores: ScoresBySeed) -> ScoresBySeed:
    """The posterior probability that each setting has the highest true mean.

    The priors are flat and all settings have the same noise.

    Args:
        scores: (K, R), with K and R at least 2.
    Returns:
        (K,), with sum 1.
    """
    means = scores.mean(axis=1)
    seeds = scores.shape[1]
    sd, df = seed_noise(scores)
    if sd == 0:
        is_best = means == means.max()
        return np.asarray(is_best / is_best.sum(), dtype=np.float64)

    z, z_weights, s, s_weights = _quadrature(df)
    probabilities = np.empty(len(means))
    for i, mean in enumerate(means):
        lead = np.delete(mean - means, i) * math.sqrt(seeds) / sd
        inside = scipy.special.ndtr(z[None, :, None] + lead * s[:, None, None]).prod(axis=2)
        probabilities[i] = s_weights @ inside @ z_weights
    return np.asarray(probabilities / probabilities.sum(), dtype=np.float64)


def shrunken(scores: ScoresBySeed) -> ScoresBySeed:
    """Means of finalists corrected for the winner's curse (empirical Bayes, Efron and Morris 1975).

    They are shrunk towards their common mean by the share of their variance that seed noise explains.

    Args:
        scores: (K, R), with K and R at least 2.
    Returns:
        (K,) in dB.
    """
    means = scores.mean(axis=1)
    seeds = scores.shape[1]
    sd, _ = seed_noise(scores)
    variance = float(means.var(ddof=1))
    not_noise = 1 - min(1.0, sd**2 / seeds / variance) if variance > 0 else 0.0
    return np.asarray(means.mean() + not_noise * (means - means.mean()), dtype=np.float64)


def paired(one: ArrayLike, other: ArrayLike) -> Estimate:
    """The mean difference `one` - `other` over the seeds that both were trained with.

    Args:
        one, other: (R,) scores in the same order of seeds.
    Raises:
        ValueError: the numbers of scores differ, or a score is not finite.
    """
    a = np.asarray(one, dtype=np.float64)
    b = np.asarray(other, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"expected two scores for every seed, got {a.size} and {b.size} scores")
    return estimate(a - b)


def upper_bound(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper confidence limit of a rate (Clopper and Pearson 1934)."""
    if hits == trials:
        return 1.0
    limit: Any = scipy.stats.beta.ppf(confidence, hits + 1, trials - hits)
    return float(limit)
