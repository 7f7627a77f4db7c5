"""The search space: which hyperparameters vary, over which values, and in which role."""

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
MAX_COMBINATIONS_CHECKED = 5_000
"""Bound on the combinations of two dimensions that loading an experiment checks, and on those of three. Takes 0.5 s."""


@dataclass(frozen=True, slots=True)
class Float:
    """A closed interval of real numbers. With `log`, the search works on the logarithm.

    Raises:
        ConfigError: the ends are not finite and ascending, or `log` meets a value that is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf or (self.log and self.low <= 0):
            with_log = ", low > 0 with log" if self.log else ""
            raise ConfigError(f"a Float needs finite low < high{with_log}; got {self!r}")
        # An end given as 1 would look like a whole number, unlike the values in between.
        for end in ("low", "high"):
            object.__setattr__(self, end, float(getattr(self, end)))


@dataclass(frozen=True, slots=True)
class Int:
    """Whole numbers from low to high, both included. With `log`, the search works on the logarithm.

    Raises:
        ConfigError: the ends are not whole and ascending, or `log` meets a value below 1.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        whole = type(self.low) is type(self.high) is int
        if not whole or not self.low < self.high or (self.log and self.low < 1):
            with_log = ", low ≥ 1 with log" if self.log else ""
            raise ConfigError(f"an Int needs whole low < high{with_log}; got {self!r}")


class _Listed:
    """A list of at least two different values. The search assumes no order unless a subclass defines one."""

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
    """A list of numbers in ascending order. The search can use the fact that neighbouring values behave alike."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        if list(values) != sorted(values):
            raise ConfigError(f"a Grid needs ascending values, got {values!r}")


Range = Float | Int | Choice | Grid


class Together:
    """Names whose values change together.

    It is a key of an experiment's ranges. The range lists tuples, one value for each name in the same order.
    """

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
    """One dimension of the space: a hyperparameter, or several that change together."""

    names: tuple[str, ...]
    range: Range
    role: Role

    @property
    def label(self) -> str:
        """The dotted names, joined by a plus sign."""
        return "+".join(self.names)

    @property
    def listed(self) -> tuple[Any, ...] | None:
        """The listed values, or None for an interval."""
        return self.range.values if isinstance(self.range, _Listed) else None

    @property
    def values(self) -> Sequence[Any]:
        """Every value in order. Empty for an interval of real numbers."""
        if isinstance(self.range, Int):
            return range(self.range.low, self.range.high + 1)
        return self.listed or ()

    @property
    def size(self) -> int | None:
        """The number of values, or None for an interval of real numbers."""
        match self.range:
            case Float():
                return None
            case Int(low, high):
                return high - low + 1
            case Choice() | Grid():
                return len(self.range.values)

    @property
    def samples(self) -> tuple[Any, ...]:
        """The listed values, or the ends and the middle of an interval."""
        match self.range:
            case Float(low, high):
                return low, (low + high) / 2, high
            case Int(low, high):
                return low, (low + high) // 2, high
            case Choice() | Grid():
                return self.range.values

    def settings(self, value: Any) -> Values:
        """The hyperparameters that one value of this dimension sets, by dotted name."""
        values = value if len(self.names) > 1 else (value,)
        return dict(zip(self.names, values, strict=True))

    def value_in(self, config: Mapping[str, Any]) -> Any:
        """The value that a config (by dotted name) has in this dimension, or None if it is outside the range."""
        values = tuple(config[name] for name in self.names)
        value: Any = values if len(self.names) > 1 else values[0]
        match self.range:
            case Float(low, high) | Int(low, high):
                return value if low <= value <= high else None
            case Choice() | Grid():
                return next((listed for listed in self.range.values if listed == value), None)

    def describe(self) -> dict[str, Any]:
        """The dimension as plain values, for the record and for display."""
        match self.range:
            case Float(low, high, log) | Int(low, high, log):
                content: dict[str, Any] = {"low": low, "high": high, "log": log}
            case Choice() | Grid():
                content = {"values": [list(v) if isinstance(v, tuple) else v for v in self.range.values]}
        return {"names": list(self.names), "role": self.role, "range": type(self.range).__name__} | content


@dataclass(frozen=True, slots=True)
class Space:
    """All dimensions, the scientific ones first."""

    dimensions: tuple[Dimension, ...]

    @property
    def size(self) -> int | None:
        """The number of different configurations, or None if a dimension is an interval of real numbers."""
        total = 1
        for dimension in self.dimensions:
            if dimension.size is None:
                return None
            total *= dimension.size
        return total

    @property
    def names(self) -> tuple[str, ...]:
        """Every dotted name that varies."""
        return tuple(name for dimension in self.dimensions for name in dimension.names)

    def cells(self) -> Iterator[dict[str, Any]]:
        """Every configuration as dimension label -> value. Requires a space that has a size."""
        for values in product(*(d.values for d in self.dimensions)):
            yield {d.label: v for d, v in zip(self.dimensions, values, strict=True)}

    def settings(self, point: Mapping[str, Any]) -> Values:
        """The hyperparameters that a point (dimension label -> value) sets, by dotted name."""
        settings: Values = {}
        for dimension in self.dimensions:
            settings |= dimension.settings(point[dimension.label])
        return settings

    def locate(self, config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point (dimension label -> value) of a config, or None if the config lies outside this space.

        Args:
            config, base: values by dotted name. Apart from the space's dimensions and the seed they must be equal.
        """
        varying = {*self.names, "seed"}
        if any(config[name] != value for name, value in base.items() if name not in varying):
            return None
        point = {d.label: d.value_in(config) for d in self.dimensions}
        return None if None in point.values() else point

    def describe(self) -> list[dict[str, Any]]:
        """The dimensions as plain values."""
        return [dimension.describe() for dimension in self.dimensions]


def recorded_space(described: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space that the first line of a record describes.

    Args:
        described: what `Dimension.describe` returned, by label.
    Raises:
        SuiteError: a range is of an unknown kind.
    """
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
            raise SuiteError(
                f"the record's search space has a range of kind {other!r}: expected Float, Int, Choice or Grid; update "
                "this suite, or restore the record from a copy"
            )
    return Dimension(tuple(content["names"]), range_, content["role"])


def build_space(base: TrialConfig, scientific: Ranges, nuisance: Ranges) -> Space:
    """Build the space of an experiment and check its values on the base config.

    Values of up to three dimensions are checked together. No rule of the config concerns more than three fields, so
    every configuration that a sampler proposes later is legal. If there are too many combinations, a part of them is
    checked (`_combined`), the same part each time.

    Raises:
        ConfigError: a name is unknown or has two ranges, or a value is not legal.
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
            _check_point(base, {dimension: value})
    for count in (2, 3):
        for group, values in _combined(dimensions, count):
            _check_point(base, dict(zip(group, values, strict=True)))
    return space


def _combined(dimensions: Sequence[Dimension], count: int) -> Iterator[tuple[tuple[Dimension, ...], tuple[Any, ...]]]:
    """Groups of `count` dimensions, each with values to check together.

    Yields every combination if there are at most MAX_COMBINATIONS_CHECKED of them, else an equal part of each group.
    """
    groups = list(combinations(dimensions, count))
    sizes = [prod(len(dimension.samples) for dimension in group) for group in groups]
    share = MAX_COMBINATIONS_CHECKED // max(1, len(groups))
    for group, size in zip(groups, sizes, strict=True):
        combined: Iterator[tuple[Any, ...]]
        if sum(sizes) <= MAX_COMBINATIONS_CHECKED or size <= share:
            combined = product(*(dimension.samples for dimension in group))
        else:
            combined = _part(group, share)
        for values in combined:
            yield group, values


def _part(group: Sequence[Dimension], share: int) -> Iterator[tuple[Any, ...]]:
    """About `share` combinations of values, the same ones each time.

    The ends of ordered ranges come first, because most rules set a bound. They are combined with every value of the
    unordered ranges. If that leaves room, random combinations of all values follow.
    """
    generator = Random(" ".join(dimension.label for dimension in group))
    values_of = [d.samples if isinstance(d.range, Choice) else (d.samples[0], d.samples[-1]) for d in group]
    size = prod(map(len, values_of))
    if size <= share:
        yield from product(*values_of)
        share -= size
        values_of = [dimension.samples for dimension in group]
    for _ in range(share):
        yield tuple(generator.choice(values) for values in values_of)


def _check_point(base: TrialConfig, point: Mapping[Dimension, Any]) -> None:
    """Raise ConfigError if the base config with these values is not legal."""
    settings: Values = {}
    for dimension, value in point.items():
        settings |= dimension.settings(value)
    try:
        base.with_values(settings, counted=False)
    except ConfigError as exc:
        where = ", ".join(f"{dimension.label} = {value!r}" for dimension, value in point.items())
        raise ConfigError(f"search space, {where}: {exc}") from exc


def _dimension(key: str | Together, content: "Range | Sequence[tuple[Any, ...]]", role: Role) -> Dimension:
    """One entry of an experiment's ranges as a dimension."""
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
