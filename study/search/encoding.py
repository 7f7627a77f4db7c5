"""Translates a search space for Optuna: a distribution for each dimension, and values as members of it."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from study.question.space import Choice, Dimension, Float, Grid, Int

optuna.logging.set_verbosity(optuna.logging.WARNING)  # at INFO it announces every study in memory


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """The Optuna distribution that stands for a dimension.

    A Grid becomes a range of indices, so that neighbouring values count as near. A Choice becomes a set of indices
    without an order.
    """
    match dimension.range:
        case Float(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Int(low, high, log):
            return IntDistribution(low, high, log=log)
        case Grid():
            return IntDistribution(0, len(dimension.range.values) - 1)
        case Choice():
            return CategoricalDistribution(list(range(len(dimension.range.values))))


def encode_value(dimension: Dimension, value: Any) -> Any:
    """The member of `distribution_of(dimension)` that stands for a value: the value itself, or its index."""
    return value if dimension.listed is None else dimension.listed.index(value)


def encode_point(dimensions: Iterable[Dimension], point: Mapping[str, Any]) -> dict[str, Any]:
    """The encoded values of a point (label -> value) in these dimensions."""
    return {d.label: encode_value(d, point[d.label]) for d in dimensions}


def decode_value(dimension: Dimension, encoded: Any) -> Any:
    """The value that a member of `distribution_of(dimension)` stands for."""
    return encoded if dimension.listed is None else dimension.listed[encoded]
