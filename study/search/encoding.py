"""A space as Optuna is told of it: a distribution for each dimension, values as members of it."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from study.question.space import Choice, Dimension, Float, Grid, Int

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study in memory


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """How Optuna is told of a dimension.

    A Grid is searched by index, so that neighbours count as near; a Choice by index without an order.
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


def encode_points(dimension: Dimension, value: Any) -> Any:
    """A value as a member of its `distribution_of`."""
    return value if dimension.listed is None else dimension.listed.index(value)


def encoded(dimensions: Iterable[Dimension], point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of these dimensions, all of it encoded."""
    return {d.label: encode_points(d, point[d.label]) for d in dimensions}


def decode_point(dimension: Dimension, encoded: Any) -> Any:
    """The value that a member of its `distribution_of` stands for."""
    return encoded if dimension.listed is None else dimension.listed[encoded]
