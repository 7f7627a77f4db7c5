"""The configurations of a space by number: in random order or the nearest first, without a list of all of them.

A space of a dozen hyperparameters has more configurations than fit in memory. Each configuration has a number whose
digits are the indices of its values (mixed radix), so that any configuration can be computed on its own.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, combinations, product
from math import prod
from typing import Any

from sr_core.seed import child_seed
from study.question.space import Dimension, Space

CellPoint = dict[str, Any]
"""Dimension label -> value."""
Key = tuple[Any, ...]
"""The values of a point, in the order of the dimensions."""

MAX_LISTED = 100_000
"""Up to this number of configurations, a list is shuffled (0.1 s); for more, their order is computed.

Another value would change the proposals of studies whose size lies between the two values.
"""
FEISTEL_ROUNDS = 4
"""Four rounds make the permutations of a Feistel network pseudorandom (Luby and Rackoff 1988)."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The configurations of a space that have the values of an arm. All dimensions must have a finite set of values."""

    space: Space
    arm: Mapping[str, Any]
    """The fixed values, by dimension label."""

    @property
    def size(self) -> int:
        """Number of configurations."""
        return prod(self._sizes())

    def in_order(self, seed: int) -> Iterator[CellPoint]:
        """Every configuration once, in random order by seed, so that any part is a fair sample."""
        values = self._values()
        sizes = self._sizes()
        for number in shuffled(self.size, seed):
            yield self._point(values, digits(number, sizes))

    def untried(self, tried: AbstractSet[Key]) -> list[CellPoint]:
        """The configurations that are not in `tried`, in the order of `Space.cells`."""
        labels = self._labels()
        untried_keys = (key for key in product(*self._values()) if key not in tried)
        return [dict(zip(labels, key, strict=True)) for key in untried_keys]

    def nearest_first(self, wanted: CellPoint, seed: int) -> Iterator[CellPoint]:
        """Every configuration once, ordered by the number of dimensions in which it differs from `wanted`.

        The seed orders configurations at the same distance.
        """
        values = self._values()
        sizes = self._sizes()
        wanted_indices = [choices.index(wanted[label]) for label, choices in zip(self._labels(), values, strict=True)]
        movable = [i for i, size in enumerate(sizes) if size > 1]

        for distance in range(len(movable) + 1):
            # The configurations at this distance are numbered group by group, a group being the dimensions that differ.
            groups = list(combinations(movable, distance))
            ends = list(accumulate(prod(sizes[i] - 1 for i in group) for group in groups))
            starts = [0, *ends]
            for number in shuffled(ends[-1], child_seed(seed, "distance", distance)):
                place = bisect_right(ends, number)
                group = groups[place]
                moves = digits(number - starts[place], [sizes[i] - 1 for i in group])

                indices = list(wanted_indices)
                for i, move in zip(group, moves, strict=True):
                    skips_wanted = move >= wanted_indices[i]  # every index but the wanted one
                    indices[i] = move + 1 if skips_wanted else move
                yield self._point(values, indices)

    def _labels(self) -> list[str]:
        return [d.label for d in self.space.dimensions]

    def _values(self) -> list[Sequence[Any]]:
        return [(self.arm[d.label],) if d.label in self.arm else d.values for d in self.space.dimensions]

    def _sizes(self) -> list[int]:
        return [1 if d.label in self.arm else _size(d) for d in self.space.dimensions]

    def _point(self, values: Sequence[Sequence[Any]], indices: Sequence[int]) -> CellPoint:
        return {label: choices[i] for label, choices, i in zip(self._labels(), values, indices, strict=True)}


def _size(dimension: Dimension) -> int:
    assert dimension.size is not None
    return dimension.size


def digits(number: int, sizes: Sequence[int]) -> list[int]:
    """The digits of a number in mixed radix, one for each size; the last digit is the least significant.

    Args:
        number: at least 0 and below the product of the sizes.
    """
    reversed_digits = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        reversed_digits.append(digit)
    return reversed_digits[::-1]


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Every number below `count` once, in random order by seed. More than MAX_LISTED numbers are not held in a list."""
    if count > MAX_LISTED:
        yield from _permuted(count, seed)
        return
    order = list(range(count))
    random.Random(seed).shuffle(order)
    yield from order


def _permuted(count: int, seed: int) -> Iterator[int]:
    """The numbers below `count` in the order of a Feistel network.

    The network permutes all numbers with an even number of bits. Results that are not below `count` are skipped.
    """
    half_bits = (count.bit_length() + 1) // 2
    mask = (1 << half_bits) - 1
    half_bytes = (half_bits + 7) // 8
    keys = [child_seed(seed, "order", turn).to_bytes(8) for turn in range(FEISTEL_ROUNDS)]

    for number in range(1 << 2 * half_bits):
        left = number >> half_bits
        right = number & mask
        for key in keys:
            mixed = blake2b(right.to_bytes(half_bytes), digest_size=half_bytes, key=key).digest()
            left, right = right, left ^ int.from_bytes(mixed) & mask
        permuted = left << half_bits | right
        if permuted < count:
            yield permuted
