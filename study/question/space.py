"""The search space: which hyperparameters move, over which values, and in which role."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from random import Random
from typing import Any, Literal

from sr_core.errors import ConfigError, SuiteError
from study.question.config import TrialConfig, check_name

Role = Literal["scientific", "nuisance"]
Values = dict[str, Any]
"""Dotted names and their values."""
MOST_TRIED = 5_000
"""Combinations of two, and as many of three dimensions, that are tried when an experiment is loaded: 0.5 s of work."""


@dataclass(frozen=True, slots=True)
class Float:
    """A real interval, ends included; `log` searches its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf or (self.log and self.low <= 0):
            raise ConfigError(f"a Float needs finite low < high{', low > 0 with log' * self.log}; got {self!r}")
        # An end written as 1 would pass for a whole number, which the values between are not.
        for end in ("low", "high"):
            object.__setattr__(self, end, float(getattr(self, end)))


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from low to high, ends included; `log` searches their logarithm."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        whole = type(self.low) is type(self.high) is int
        if not whole or not self.low < self.high or (self.log and self.low < 1):
            raise ConfigError(f"an Int needs whole low < high{', low ≥ 1 with log' * self.log}; got {self!r}")


class _Listed:
    """Values one by one, no order in the search unless a subclass says so."""

    def __init__(self, *values: Any) -> None:
        if len(values) < 2 or len(set(values)) < len(values):
            raise ConfigError(f"a {type(self).__name__} needs at least two different values, got {values!r}")
        self.values = values

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values == other.values

    def __hash__(self) -> int:
        return hash((type(self), self.values))

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.values!r}"


class Choice(_Listed):
    """Values without an order, such as loss types."""


class Grid(_Listed):
    """Numbers in ascending order: the search may use that neighbours are alike."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        if list(values) != sorted(values):
            raise ConfigError(f"a Grid needs ascending values, got {values!r}")


Range = Float | Int | Choice | Grid


class Together:
    """Names that move as one; as a key of an experiment's ranges, its value lists tuples in the same order."""

    def __init__(self, *names: str) -> None:
        if len(names) < 2:
            raise ConfigError(f"Together needs at least two names, got {names!r}")
        self.names = names

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Together) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)


Ranges = Mapping[str | Together, "Range | Sequence[tuple[Any, ...]]"]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One direction of the space: a hyperparameter, or several that move together."""

    names: tuple[str, ...]
    range: Range
    role: Role

    @property
    def label(self) -> str:
        return "+".join(self.names)

    @property
    def listed(self) -> tuple[Any, ...] | None:
        """Its values one by one, or None where it is an interval."""
        return self.range.values if isinstance(self.range, _Listed) else None

    @property
    def values(self) -> Sequence[Any]:
        """Every value in order; empty for an interval of reals."""
        if isinstance(self.range, Int):
            return range(self.range.low, self.range.high + 1)
        return self.listed or ()

    @property
    def size(self) -> int | None:
        """How many values it has, or None for an interval of reals."""
        match self.range:
            case Float():
                return None
            case Int(low, high):
                return high - low + 1
            case Choice() | Grid():
                return len(self.range.values)

    @property
    def samples(self) -> tuple[Any, ...]:
        """Its values one by one, or the ends and the middle of an interval."""
        match self.range:
            case Float(low, high):
                return low, (low + high) / 2, high
            case Int(low, high):
                return low, (low + high) // 2, high
            case Choice() | Grid():
                return self.range.values

    def settings(self, value: Any) -> Values:
        """The dotted values that one value of this dimension stands for."""
        return dict(zip(self.names, value if len(self.names) > 1 else (value,), strict=True))

    def value_in(self, config: Mapping[str, Any]) -> Any:
        """Where a config (dotted) stands in this dimension, or None if outside of its range."""
        found = tuple(config[name] for name in self.names)
        value: Any = found if len(self.names) > 1 else found[0]
        match self.range:
            case Float(low, high) | Int(low, high):
                return value if low <= value <= high else None
            case Choice() | Grid():
                return next((listed for listed in self.range.values if listed == value), None)

    def describe(self) -> dict[str, Any]:
        """The dimension as plain values, for the record and the screen."""
        match self.range:
            case Float(low, high, log) | Int(low, high, log):
                content: dict[str, Any] = {"low": low, "high": high, "log": log}
            case Choice() | Grid():
                content = {"values": [list(v) if isinstance(v, tuple) else v for v in self.range.values]}
        return {"names": list(self.names), "role": self.role, "range": type(self.range).__name__} | content


@dataclass(frozen=True, slots=True)
class Space:
    """Every dimension, scientific ones first."""

    dimensions: tuple[Dimension, ...]

    @property
    def size(self) -> int | None:
        """Number of different configurations, or None if there is an interval of reals."""
        total = 1
        for dimension in self.dimensions:
            if dimension.size is None:
                return None
            total *= dimension.size
        return total

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for dimension in self.dimensions for name in dimension.names)

    def cells(self) -> Iterator[dict[str, Any]]:
        """Every configuration as dimension label -> value; only for a space that has a size."""
        for values in product(*(d.values for d in self.dimensions)):
            yield {d.label: v for d, v in zip(self.dimensions, values, strict=True)}

    def settings(self, point: Mapping[str, Any]) -> Values:
        """Dotted values of one point (dimension label -> value)."""
        return {k: v for d in self.dimensions for k, v in d.settings(point[d.label]).items()}

    def locate(self, config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point at which a config (dotted) stands, or None where it is no configuration of this space."""
        moving = {*self.names, "seed"}
        if any(config[name] != value for name, value in base.items() if name not in moving):
            return None
        point = {d.label: d.value_in(config) for d in self.dimensions}
        return None if None in point.values() else point

    def describe(self) -> list[dict[str, Any]]:
        return [dimension.describe() for dimension in self.dimensions]


def recorded_space(described: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space that the first line of a record describes (label -> `Dimension.describe`)."""
    return Space(tuple(_recorded(content) for content in described.values()))


def _recorded(content: Mapping[str, Any]) -> Dimension:
    values = [tuple(v) if isinstance(v, list) else v for v in content.get("values", ())]
    range_: Range
    match content["range"]:
        case "Float":
            range_ = Float(content["low"], content["high"], content["log"])
        case "Int":
            range_ = Int(content["low"], content["high"], content["log"])
        case "Choice":
            range_ = Choice(*values)
        case "Grid":
            range_ = Grid(*values)
        case other:
            raise SuiteError(f"the record's search space has a range of an unknown kind, {other!r}")
    return Dimension(tuple(content["names"]), range_, content["role"])


def build_space(base: TrialConfig, scientific: Ranges, nuisance: Ranges) -> Space:
    """The space of an experiment; values of up to three dimensions at once are tried on its base config.

    No rule of the config concerns more than three, so what a sampler combines later is legal. Of very many
    combinations a part is tried (`_combined`), the same part each time.

    Raises:
        ConfigError: a name is unknown or moves twice, or a value is not legal.
    """
    dimensions: list[Dimension] = []
    roles: tuple[tuple[Role, Ranges], ...] = (("scientific", scientific), ("nuisance", nuisance))
    for role, ranges in roles:
        for key, content in ranges.items():
            dimensions.append(_dimension(key, content, role))
    space = Space(tuple(dimensions))
    for name in space.names:
        if space.names.count(name) > 1:
            raise ConfigError(f"{name} is given two ranges; keep one")
    for dimension in dimensions:
        for value in dimension.samples:
            _try(base, {dimension: value})
    for count in (2, 3):
        for some, values in _combined(dimensions, count):
            _try(base, dict(zip(some, values, strict=True)))
    return space


def _combined(dimensions: Sequence[Dimension], count: int) -> Iterator[tuple[tuple[Dimension, ...], tuple[Any, ...]]]:
    """So many dimensions with values to be tried together: all up to MOST_TRIED, else a part of each group."""
    groups = list(combinations(dimensions, count))
    sizes = [prod(len(dimension.samples) for dimension in some) for some in groups]
    share = MOST_TRIED // max(1, len(groups))
    for some, size in zip(groups, sizes, strict=True):
        if sum(sizes) <= MOST_TRIED or size <= share:
            yield from ((some, values) for values in product(*(dimension.samples for dimension in some)))
        else:
            yield from ((some, values) for values in _part(some, share))


def _part(some: Sequence[Dimension], share: int) -> Iterator[tuple[Any, ...]]:
    """About `share` combinations of values, the same ones each time.

    First the ends of what has an order, for most rules set a bound, with every value of what has none; then others,
    drawn from all.
    """
    draw = Random(" ".join(dimension.label for dimension in some))
    telling = [d.samples if isinstance(d.range, Choice) else (d.samples[0], d.samples[-1]) for d in some]
    size = prod(map(len, telling))
    if size <= share:
        yield from product(*telling)
        share, telling = share - size, [dimension.samples for dimension in some]
    for _ in range(share):
        yield tuple(draw.choice(values) for values in telling)


def _try(base: TrialConfig, point: Mapping[Dimension, Any]) -> None:
    try:
        values = {k: v for dimension, value in point.items() for k, v in dimension.settings(value).items()}
        base.with_values(values, counted=False)
    except ConfigError as exc:
        where = ", ".join(f"{dimension.label} = {value!r}" for dimension, value in point.items())
        raise ConfigError(f"search space, {where}: {exc}") from exc


def _dimension(key: str | Together, content: "Range | Sequence[tuple[Any, ...]]", role: Role) -> Dimension:
    names = key.names if isinstance(key, Together) else (key,)
    for name in names:
        check_name(name)
    if isinstance(key, Together):
        rows = content if isinstance(content, Sequence) else ()
        if not rows or any(not isinstance(row, Sequence) or len(row) != len(names) for row in rows):
            raise ConfigError(f"Together{names!r} needs a list of tuples of {len(names)} values, got {content!r}")
        return Dimension(names, Choice(*map(tuple, rows)), role)
    if not isinstance(content, Range):
        raise ConfigError(f"{key}: expected Float, Int, Choice or Grid, got {content!r}")
    return Dimension(names, content, role)
