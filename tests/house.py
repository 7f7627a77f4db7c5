"""Measures the house: how many rooms a package has, on how many import levels, and which way its imports point.

A room is a file or a folder at the top of a package. `python tests/house.py` prints the figures as a table,
`tests/test_architecture.py` holds them to bounds.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("sr_core", "study")

Arrows = Mapping[str, Set[str]]
"""For each room, the rooms that it imports."""


@dataclass(frozen=True)
class House:
    """The packages of a checkout, as rooms and the imports between them."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Each module's file by its dotted name."""
        files = [path for package in PACKAGES for path in sorted((self.root / package).rglob("*.py"))]
        return {_dotted(path.relative_to(self.root)): path for path in files}

    @cached_property
    def imports(self) -> dict[tuple[str, str], list[str]]:
        """(importing room, imported room) -> the imports themselves, each as `file -> module`.

        Every import counts, wherever in a file it stands: also one in a function, or one for types alone.
        """
        found: dict[tuple[str, str], list[str]] = {}
        for name, path in self.modules.items():
            for target in sorted(_imported(path, set(self.modules))):
                ends = (_room_of(name), _room_of(target))
                if ends[0] != ends[1] and target not in PACKAGES:
                    found.setdefault(ends, []).append(f"{path.relative_to(self.root)} -> {target}")
        return found

    @cached_property
    def rooms(self) -> list[str]:
        """Every room, such as `study.record`; a package's own `__init__.py` is none."""
        return sorted({_room_of(name) for name in self.modules if name not in PACKAGES})

    @cached_property
    def arrows(self) -> Arrows:
        targets: dict[str, set[str]] = {room: set() for room in self.rooms}
        for source, target in self.imports:
            if source in targets:
                targets[source].add(target)
        return {room: frozenset(imported) for room, imported in targets.items()}

    @cached_property
    def lines(self) -> dict[str, int]:
        """Lines of Python of each room, blank ones left out."""
        count = dict.fromkeys(self.rooms, 0)
        for name, path in self.modules.items():
            if name not in PACKAGES:
                count[_room_of(name)] += sum(1 for line in path.read_text("utf-8").splitlines() if line.strip())
        return count

    def cycles(self) -> list[list[str]]:
        """Groups of rooms that import each other, directly or by way of others."""
        return [sorted(group) for group in components(self.arrows) if len(group) > 1]

    def upward(self) -> list[str]:
        """The fewest imports found without which no room would import one that lies as high, each as `file -> module`.

        There are some only if there is a cycle. Greedy: the arrow goes first that leaves the smallest cycles.
        """
        arrows = {room: set(targets) for room, targets in self.arrows.items()}
        gone: list[tuple[str, str]] = []
        while tied := [group for group in components(arrows) if len(group) > 1]:
            inside = [(room, target) for group in tied for room in group for target in arrows[room] & group]
            gone.append(min(inside, key=lambda ends: (_tied_without(arrows, ends), len(self.imports[ends]), ends)))
            arrows[gone[-1][0]].discard(gone[-1][1])
        return [text for ends in gone for text in self.imports[ends]]

    def share(self, room: str) -> float:
        """A room's part of its package's lines."""
        package = room.partition(".")[0]
        total = sum(count for name, count in self.lines.items() if name.partition(".")[0] == package)
        return self.lines[room] / total

    def within(self, package: str) -> Arrows:
        """The arrows that stay in one package."""
        inside = {room for room in self.rooms if room.partition(".")[0] == package}
        return {room: self.arrows[room] & inside for room in inside}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of the house that a file imports; `from a import b` names `a.b` if that is a module."""
    found = set()
    for name in _named(path):
        above = name.rpartition(".")[0]
        found |= {name} & modules or {above} & modules
    return found


def _named(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def components(arrows: Arrows) -> list[set[str]]:
    """Rooms grouped so that those of a cycle are together (Tarjan), the deepest group first."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(room: str) -> None:
        order[room] = low[room] = len(order)
        stack.append(room)
        for target in sorted(arrows[room]):
            if target not in order:
                visit(target)
                low[room] = min(low[room], low[target])
            elif target in stack:
                low[room] = min(low[room], order[target])
        if low[room] == order[room]:
            group = set(stack[stack.index(room) :])
            del stack[stack.index(room) :]
            groups.append(group)

    for room in sorted(arrows):
        if room not in order:
            visit(room)
    return groups


def _tied_without(arrows: Arrows, ends: tuple[str, str]) -> int:
    """How many rooms are in cycles if one arrow goes."""
    rest = {room: targets - {ends[1]} if room == ends[0] else targets for room, targets in arrows.items()}
    return sum(len(group) for group in components(rest) if len(group) > 1)


def levels(arrows: Arrows) -> dict[str, int]:
    """Each room's level: 1 for one that imports no other, else one more than the highest that it imports.

    Rooms of a cycle share a level.
    """
    level: dict[str, int] = {}
    for group in components(arrows):
        below = [level[target] for room in group for target in arrows[room] - group]
        for room in group:
            level[room] = 1 + max(below, default=0)
    return level


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--arrows", action="store_true", help="list every arrow as well")
    options = parser.parse_args()
    house = House(options.root.resolve())
    level = levels(house.arrows)
    for room in sorted(house.rooms, key=lambda room: (-level[room], room)):
        below = " ".join(sorted(house.arrows[room])) if options.arrows else f"{len(house.arrows[room])} arrows"
        print(f"{level[room]:3} {room:28} {house.lines[room]:6,} lines {house.share(room):6.1%}  {below}")
    print()
    print(f"{'package':10} {'rooms':>5} {'levels':>6} {'arrows':>6}  largest room")
    for package in PACKAGES:
        inside = house.within(package)
        largest = max(inside, key=house.share)
        count = sum(len(targets) for targets in inside.values())
        deepest = max(levels(inside).values())
        print(f"{package:10} {len(inside):5} {deepest:6} {count:6}  {largest} {house.share(largest):.1%}")
    print(f"{'both':10} {len(house.rooms):5} {max(level.values()):6} {sum(map(len, house.arrows.values())):6}")
    print(f"cycles: {house.cycles() or 'none'}")
    upward = house.upward()
    print(f"upward: {len(upward)}")
    for text in upward:
        print(f"  {text}")


if __name__ == "__main__":
    main()
