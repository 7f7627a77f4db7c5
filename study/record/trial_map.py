"""An immutable mapping of trials by number. Changed copies are cheap, because they share most of their entries."""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Generic, TypeVar

Value = TypeVar("Value")

BLOCK = 64
"""Number of entries per block. A change copies the blocks that it affects, and the list of blocks."""


class TrialMap(Mapping[int, Value], Generic[Value]):
    """An immutable mapping in the order of insertion."""

    __slots__ = ("_blocks", "_size")

    def __init__(self, entries: Mapping[int, Value] | None = None) -> None:
        self._blocks: tuple[Mapping[int, Value], ...] = ()
        self._size = 0
        if entries:
            filled = self.updated(entries)
            self._blocks, self._size = filled._blocks, filled._size

    def updated(self, entries: Mapping[int, Value]) -> "TrialMap[Value]":
        """A copy with these entries. They replace entries of the same numbers or else come last.

        Does not change this map.
        """
        blocks = list(self._blocks)
        copied: dict[int, dict[int, Value]] = {}
        size = self._size
        for number, value in entries.items():
            place = _place(blocks, number)
            if place is None:
                size += 1
                place = len(blocks) - 1
                if place < 0 or len(blocks[place]) == BLOCK:
                    blocks.append({})
                    place += 1
            if place not in copied:
                copied[place] = dict(blocks[place])
                blocks[place] = copied[place]
            copied[place][number] = value
        changed = TrialMap[Value]()
        changed._blocks = tuple(blocks)
        changed._size = size
        return changed

    def __getitem__(self, number: int) -> Value:
        place = _place(self._blocks, number)
        if place is None:
            raise KeyError(number)
        return self._blocks[place][number]

    def __contains__(self, number: object) -> bool:
        return _place(self._blocks, number) is not None

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._blocks)

    def __len__(self) -> int:
        return self._size

    def values(self) -> ValuesView[Value]:
        """The values in the order of insertion."""
        return _Values(self)

    def items(self) -> ItemsView[int, Value]:
        """The pairs (number, value) in the order of insertion."""
        return _Items(self)

    def __repr__(self) -> str:
        return f"TrialMap({dict(self)!r})"

    def blocks(self) -> tuple[Mapping[int, Value], ...]:
        """The blocks, which changed copies share."""
        return self._blocks


class _Values(ValuesView[Value]):
    """A fast view: the inherited one would look up every key."""

    def __init__(self, entries: TrialMap[Value]) -> None:
        super().__init__(entries)
        self._blocks = entries.blocks()

    def __iter__(self) -> Iterator[Value]:
        return chain.from_iterable(block.values() for block in self._blocks)


class _Items(ItemsView[int, Value]):
    """A fast view: the inherited one would look up every key."""

    def __init__(self, entries: TrialMap[Value]) -> None:
        super().__init__(entries)
        self._blocks = entries.blocks()

    def __iter__(self) -> Iterator[tuple[int, Value]]:
        return chain.from_iterable(block.items() for block in self._blocks)


def _place(blocks: "tuple[Mapping[int, Value], ...] | list[Mapping[int, Value]]", number: object) -> int | None:
    """Index of the block with this number, or None. The first guess is nearly always right: numbers are consecutive."""
    if isinstance(number, int):
        likely = number // BLOCK
        if 0 <= likely < len(blocks) and number in blocks[likely]:
            return likely
    return next((place for place, block in enumerate(blocks) if number in block), None)
