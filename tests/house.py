"""Measures the structure of the packages: their rooms, the import levels of the rooms, and upward imports.

A room is a file or a folder at the top of a package. `python tests/house.py` prints the figures as a table.
`tests/test_architecture.py` checks their bounds.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("sr_core", "study")

Arrows = Mapping[str, Set[str]]
"""The rooms that each room imports."""


@dataclass(frozen=True)
class House:
    """The rooms of the packages in a checkout, and the imports between them."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """The file of each module, by dotted name."""
        files = [path for package in PACKAGES for path in sorted((self.root / package).rglob("*.py"))]
        return {_dotted(path.relative_to(self.root)): path for path in files}

    @cached_property
    def imports(self) -> dict[tuple[str, str], list[str]]:
        """The imports between each pair of rooms (importing, imported), each as `file -> module`.

        Every import counts, including imports inside functions and imports for type checking only.
        """
        imports: dict[tuple[str, str], list[str]] = {}
        for name, path in self.modules.items():
            for target in sorted(_imported(path, set(self.modules))):
                ends = (_room_of(name), _room_of(target))
                if ends[0] != ends[1] and target not in PACKAGES:
                    imports.setdefault(ends, []).append(f"{path.relative_to(self.root)} -> {target}")
        return imports

    @cached_property
    def rooms(self) -> list[str]:
        """All rooms, such as `study.record`. The `__init__.py` of a package is not a room."""
        return sorted({_room_of(name) for name in self.modules if name not in PACKAGES})

    @cached_property
    def arrows(self) -> Arrows:
        """The rooms that each room imports."""
        targets: dict[str, set[str]] = {room: set() for room in self.rooms}
        for source, target in self.imports:
            if source in targets:
                targets[source].add(target)
        return {room: frozenset(imported) for room, imported in targets.items()}

    @cached_property
    def lines(self) -> dict[str, int]:
        """The number of non-blank lines of Python in each room."""
        count = dict.fromkeys(self.rooms, 0)
        for name, path in self.modules.items():
            if name not in PACKAGES:
                count[_room_of(name)] += sum(1 for line in path.read_text("utf-8").splitlines() if line.strip())
        return count

    def cycles(self) -> list[list[str]]:
        """Groups of rooms that import each other, directly or through other rooms."""
        return [sorted(group) for group in components(self.arrows) if len(group) > 1]

    def upward(self) -> list[str]:
        """A small set of imports to remove so that no cycle remains, each as `file -> module`.

        The search is greedy: it first removes the arrow whose removal leaves the fewest rooms in cycles.
        """
        arrows = {room: set(targets) for room, targets in self.arrows.items()}
        removed: list[tuple[str, str]] = []
        cycles = [group for group in components(arrows) if len(group) > 1]
        while cycles:
            inside = [(room, target) for group in cycles for room in group for target in arrows[room] & group]
            best = min(inside, key=lambda ends: (_in_cycles_without(arrows, ends), len(self.imports[ends]), ends))
            removed.append(best)
            room, target = best
            arrows[room].discard(target)
            cycles = [group for group in components(arrows) if len(group) > 1]
        return [text for ends in removed for text in self.imports[ends]]

    def share(self, room: str) -> float:
        """The share of a room in the lines of its package."""
        package = room.partition(".")[0]
        total = sum(count for name, count in self.lines.items() if name.partition(".")[0] == package)
        return self.lines[room] / total

    def within(self, package: str) -> Arrows:
        """The arrows within one package."""
        inside = {room for room in self.rooms if room.partition(".")[0] == package}
        return {room: self.arrows[room] & inside for room in inside}


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of the packages that a file imports. `from a import b` counts as `a.b` if that is a module."""
    imported = set()
    for name in _named(path):
        above = name.rpartition(".")[0]
        imported |= {name} & modules or {above} & modules
    return imported


def _named(path: Path) -> Iterator[str]:
    """The dotted names in the import statements of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def components(arrows: Arrows) -> list[set[str]]:
    """The strongly connected components of the rooms (Tarjan's algorithm), the deepest first."""
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


def _in_cycles_without(arrows: Arrows, ends: tuple[str, str]) -> int:
    """The number of rooms in cycles after one arrow is removed."""
    rest = {room: targets - {ends[1]} if room == ends[0] else targets for room, targets in arrows.items()}
    return sum(len(group) for group in components(rest) if len(group) > 1)


def levels(arrows: Arrows) -> dict[str, int]:
    """The level of each room: 1 if it imports no other room, otherwise one more than the highest room that it imports.

    Rooms in a cycle share a level.
    """
    level: dict[str, int] = {}
    for group in components(arrows):
        below = [level[target] for room in group for target in arrows[room] - group]
        for room in group:
            level[room] = 1 + max(below, default=0)
    return level


def main() -> None:
    """Print the figures of a checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    parser.add_argument("--arrows", action="store_true", help="also list the imported rooms")
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
