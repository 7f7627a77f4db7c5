"""Trials by number, of which a changed copy shares nearly all with the original: an event costs no copy of them all."""

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from typing import Generic, TypeVar

Value = TypeVar("Value")

BLOCK = 64
"""Entries that lie together; a change copies the blocks that it touches, and the list of blocks."""


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
        """A map with these entries in place of those of the same numbers, and after all others; self stays as it is."""
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
        return _Values(self)

    def items(self) -> ItemsView[int, Value]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"TrialMap({dict(self)!r})"

    def blocks(self) -> tuple[Mapping[int, Value], ...]:
        """The parts that changed copies share."""
        return self._blocks


class _Values(ValuesView[Value]):
    """As a dict's: the default would look up every key."""

    def __init__(self, entries: TrialMap[Value]) -> None:
        super().__init__(entries)
        self._blocks = entries.blocks()

    def __iter__(self) -> Iterator[Value]:
        return chain.from_iterable(block.values() for block in self._blocks)


class _Items(ItemsView[int, Value]):
    """As a dict's: the default would look up every key."""

    def __init__(self, entries: TrialMap[Value]) -> None:
        super().__init__(entries)
        self._blocks = entries.blocks()

    def __iter__(self) -> Iterator[tuple[int, Value]]:
        return chain.from_iterable(block.items() for block in self._blocks)


def _place(blocks: "tuple[Mapping[int, Value], ...] | list[Mapping[int, Value]]", number: object) -> int | None:
    """The block that has a number: nearly always the one looked at first, for a study numbers its trials one by one."""
    if isinstance(number, int):
        likely = number // BLOCK
        if 0 <= likely < len(blocks) and number in blocks[likely]:
            return likely
    return next((place for place, block in enumerate(blocks) if number in block), None)
