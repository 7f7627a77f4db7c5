"""The configurations of a space by number: in an order drawn by a seed, or the nearest first, without a list of all.

A space of a dozen hyperparameters has more configurations than memory holds. Each has a number, its digits being the
places of its values (mixed radix), so that any of them can be had without the others.
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
"""Up to so many configurations a list of them is shuffled, which takes 0.1 s; the order of a larger number is
computed. Another bound would change the proposals of studies of a size between the two."""
_ROUNDS = 4
"""Of a Feistel network: with four its permutations pass for random ones (Luby and Rackoff 1988)."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Every configuration of a space without intervals of reals that has the values of an arm."""

    space: Space
    arm: Mapping[str, Any]

    @property
    def size(self) -> int:
        return prod(self._sizes())

    def in_order(self, seed: int) -> Iterator[CellPoint]:
        """Each of them once, in an order in which any part is a fair sample."""
        values, sizes = self._values(), self._sizes()
        for number in shuffled(self.size, seed):
            yield self._point(values, digits(number, sizes))

    def unseen(self, known: AbstractSet[Key]) -> list[CellPoint]:
        """Those that are not known, in the order of `Space.cells`."""
        points = (dict(zip(self._labels(), key, strict=True)) for key in product(*self._values()) if key not in known)
        return list(points)

    def nearest_first(self, wanted: CellPoint, seed: int) -> Iterator[CellPoint]:
        """Each of them once, those first that differ from `wanted` in the fewest dimensions; ties by seed."""
        values, sizes = self._values(), self._sizes()
        places = [of.index(wanted[label]) for label, of in zip(self._labels(), values, strict=True)]
        movable = [i for i, size in enumerate(sizes) if size > 1]
        for distance in range(len(movable) + 1):
            groups = list(combinations(movable, distance))
            ends = list(accumulate(prod(sizes[i] - 1 for i in group) for group in groups))
            for number in shuffled(ends[-1], child_seed(seed, "distance", distance)):
                which = bisect_right(ends, number)
                group, rest = groups[which], number - (ends[which - 1] if which else 0)
                moved = list(places)
                for i, digit in zip(group, digits(rest, [sizes[i] - 1 for i in group]), strict=True):
                    moved[i] = digit + (digit >= places[i])  # every place but the one that is wanted
                yield self._point(values, moved)

    def _labels(self) -> list[str]:
        return [d.label for d in self.space.dimensions]

    def _values(self) -> list[Sequence[Any]]:
        return [(self.arm[d.label],) if d.label in self.arm else d.values for d in self.space.dimensions]

    def _sizes(self) -> list[int]:
        return [1 if d.label in self.arm else _size(d) for d in self.space.dimensions]

    def _point(self, values: Sequence[Sequence[Any]], places: Sequence[int]) -> CellPoint:
        return {label: of[i] for label, of, i in zip(self._labels(), values, places, strict=True)}


def _size(dimension: Dimension) -> int:
    assert dimension.size is not None
    return dimension.size


def digits(number: int, sizes: Sequence[int]) -> list[int]:
    """A number below the product of the sizes as one digit for each size; the last digit moves first."""
    found = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        found.append(digit)
    return found[::-1]


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Every number below `count` once, in an order drawn by the seed; of more than MAX_LISTED without a list."""
    if count > MAX_LISTED:
        yield from _permuted(count, seed)
        return
    order = list(range(count))
    random.Random(seed).shuffle(order)
    yield from order


def _permuted(count: int, seed: int) -> Iterator[int]:
    """A Feistel network turns the numbers of an even number of bits into each other; those too large are left out."""
    half = (count.bit_length() + 1) // 2
    mask, size = (1 << half) - 1, (half + 7) // 8
    keys = [child_seed(seed, "order", turn).to_bytes(8) for turn in range(_ROUNDS)]
    for number in range(1 << 2 * half):
        left, right = number >> half, number & mask
        for key in keys:
            mixed = blake2b(right.to_bytes(size), digest_size=size, key=key).digest()
            left, right = right, left ^ int.from_bytes(mixed) & mask
        if (found := left << half | right) < count:
            yield found
