"""What replicates can tell: settings compared over paired seeds, the validation images held fixed.

Scores are in dB, one row a setting and one column a seed. docs/STATISTICS.md says why each procedure was chosen, and
what it reaches in simulated studies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy  # its modules are loaded when they are first used: nobody waits for them at a study's start
from numpy.typing import ArrayLike, NDArray

ScoresBySeed = NDArray[np.float64]

CONFIDENCE = 0.95
MAX_SEEDS = 1_000
"""Beyond these, a difference is not worth what it costs to tell."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with Student's interval; ends are infinite where one value leaves the spread unknown."""

    mean: float
    sd: float
    """Sample standard deviation of one value; NaN for a single one."""
    low: float
    high: float
    count: int
    p: float
    """Two-sided, against a mean of zero; 1 for a single value."""


def estimate(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent values, its interval, and the t-test against zero. Differences over paired seeds go in here.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"expected finite values in one row, got {x.tolist()}")
    mean, count = float(x.mean()), int(x.size)
    if count == 1:
        return Estimate(mean, math.nan, -math.inf, math.inf, 1, 1.0)
    sd = float(x.std(ddof=1))
    error = sd / math.sqrt(count)
    reach = error * _t_quantile((1 + confidence) / 2, count - 1)
    if error > 0:
        p = 2 * _t_above(abs(mean) / error, count - 1)
    else:
        p = 1.0 if mean == 0 else 0.0
    return Estimate(mean, sd, mean - reach, mean + reach, count, p)


def _t_quantile(share: float, df: int) -> float:
    """The quantile of Student's t, as scipy.stats.t.ppf has it. To import scipy.stats takes a second of every command
    that prints a verdict."""
    return float(scipy.special.stdtrit(df, share))


def _t_above(value: float, df: int) -> float:
    """The probability of Student's t above a value, as scipy.stats.t.sf has it."""
    return float(scipy.special.stdtr(df, -value))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order: rejecting those below α errs anywhere with at most α (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def power(mean: float, sd: float, count: int, alpha: float) -> float:
    """How probably a two-sided t-test of `count` differences at level α finds a true mean, by the noncentral t."""
    df, shift = count - 1, abs(mean) / sd * math.sqrt(count)
    critical = _t_quantile(1 - alpha / 2, df)
    found = scipy.stats.nct.sf(critical, df, shift) + scipy.stats.nct.cdf(-critical, df, shift)
    # Far out, SciPy's noncentral t gives NaN; there it is as good as certain.
    return float(found) if math.isfinite(found) else 1.0


def seeds_needed(mean: float, sd: float, *, alpha: float, wanted: float = 0.8) -> int | None:
    """Fewest paired seeds with which such a difference is found with the wanted power; None beyond MAX_SEEDS.

    Args:
        mean, sd: of the paired differences, taken for true.
        alpha: level of the test, less than 1 - CONFIDENCE where Holm's procedure divides it.
    """
    if sd == 0:
        return 2 if mean else None
    if mean == 0 or power(mean, sd, MAX_SEEDS, alpha) < wanted:
        return None
    few, many = 1, MAX_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power(mean, sd, middle, alpha) >= wanted else (middle, many)
    return many


def seed_noise(scores: ScoresBySeed) -> tuple[float, int]:
    """(standard deviation in dB, degrees of freedom) of one score about its setting's mean and its seed's.

    The residual of the two-way layout settings x seeds: what a seed does to all settings alike cancels in a paired
    comparison and is no noise there. Args: scores (K, R), K and R at least 2.
    """
    rows, columns = scores.shape
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    df = (rows - 1) * (columns - 1)
    return float(np.sqrt((residual**2).sum() / df)), df


@lru_cache(maxsize=256)
def _quadrature(df: int) -> tuple[ScoresBySeed, ScoresBySeed, ScoresBySeed, ScoresBySeed]:
    """Nodes and weights for a standard normal z, and for s = sqrt(chi² / df) by its quantiles."""
    z = np.linspace(-8.5, 8.5, 341)
    at_z = np.exp(-(z**2) / 2.0) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    nodes, weights = np.polynomial.legendre.leggauss(80)
    return z, at_z, np.sqrt(2 * scipy.special.gammaincinv(df / 2, (nodes + 1) / 2) / df), weights / 2


@lru_cache(maxsize=256)
def dunnett_critical(others: int, df: int, confidence: float = CONFIDENCE) -> float:
    """One-sided critical value for comparing one mean with `others` at once, all of one size (Dunnett 1955)."""
    z, at_z, s, at_s = _quadrature(df)

    def excess(q: float) -> float:
        inside = scipy.special.ndtr(z[None, :] + math.sqrt(2) * q * s[:, None]) ** others
        return float(at_s @ inside @ at_z) - confidence

    return float(scipy.optimize.brentq(excess, 0.0, 200.0))


@dataclass(frozen=True, slots=True)
class AgainstBest:
    """Simultaneous intervals for each setting's mean minus the best of the others (Hsu 1984)."""

    low: ScoresBySeed
    high: ScoresBySeed

    @property
    def may_be_best(self) -> NDArray[np.bool_]:
        """Settings that the data do not rule out as the best."""
        return self.high > 0


def against_best(scores: ScoresBySeed, confidence: float = CONFIDENCE) -> AgainstBest:
    """Multiple comparisons with the best, for choosing among finalists after their replicates were seen.

    With at least the stated confidence all intervals hold at once, whichever setting is looked at afterwards.
    Args: scores (K, R), K and R at least 2.
    """
    means, columns = scores.mean(axis=1), scores.shape[1]
    sd, df = seed_noise(scores)
    reach = dunnett_critical(len(means) - 1, df, confidence) * sd * math.sqrt(2 / columns)
    gap = means - _best_of_others(means)
    return AgainstBest(low=np.minimum(0.0, gap - reach), high=np.maximum(0.0, gap + reach))


def _best_of_others(means: ScoresBySeed) -> ScoresBySeed:
    first, second = np.sort(means)[::-1][:2]
    others = np.full(means.shape, first)
    others[int(means.argmax())] = second
    return others


def probability_best(scores: ScoresBySeed) -> ScoresBySeed:
    """How probably each setting has the highest true mean, by the posterior under flat priors and one noise for all.

    Args: scores (K, R), K and R at least 2. Returns: (K,), sum 1.
    """
    means, columns = scores.mean(axis=1), scores.shape[1]
    sd, df = seed_noise(scores)
    if sd == 0:
        first = means == means.max()
        return np.asarray(first / first.sum(), dtype=np.float64)
    z, at_z, s, at_s = _quadrature(df)
    found = np.empty(len(means))
    for i, mean in enumerate(means):
        ahead = np.delete(mean - means, i) * math.sqrt(columns) / sd
        inside = scipy.special.ndtr(z[None, :, None] + ahead * s[:, None, None]).prod(axis=2)
        found[i] = at_s @ inside @ at_z
    return np.asarray(found / found.sum(), dtype=np.float64)


def shrunken(scores: ScoresBySeed) -> ScoresBySeed:
    """Means of finalists without the winner's curse: drawn towards their common mean as far as seed noise explains
    their spread (empirical Bayes, Efron and Morris 1975). Args: scores (K, R), K and R at least 2."""
    means, columns = scores.mean(axis=1), scores.shape[1]
    sd, _ = seed_noise(scores)
    spread = float(means.var(ddof=1))
    kept = 1 - min(1.0, sd**2 / columns / spread) if spread > 0 else 0.0
    return np.asarray(means.mean() + kept * (means - means.mean()), dtype=np.float64)


def paired(one: ArrayLike, other: ArrayLike) -> Estimate:
    """The difference one - other over seeds that both were trained with."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (one, other))
    if a.shape != b.shape:
        raise ValueError(f"expected a score of both for every seed, got {a.size} and {b.size}")
    return estimate(a - b)


def upper_bound(hits: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper limit of a rate (Clopper and Pearson 1934)."""
    found: Any = scipy.stats.beta.ppf(confidence, hits + 1, trials - hits) if hits < trials else 1.0
    return float(found)
