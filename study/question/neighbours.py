"""Lets an experiment's file import the files next to it while it is loaded."""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OUR_PACKAGES = ("sr_core", "study", "experiments")


@contextmanager
def neighbours_of(file: Path) -> Iterator[None]:
    """Let a file that is executed in this block import the modules of its own folder by their names.

    - A neighbour never shadows an installed package, a module of the standard library or a package of this suite.
    - A neighbour takes precedence over a module of the same name in the current folder.
    - The neighbours are unloaded at the end, so that the next file gets its own.
    """
    folder = file.resolve().parent
    names = {name for name in _module_names(folder) if not _is_protected(name, folder)}
    hidden = _unload(names)
    finder = _Finder(folder, names)
    path = list(sys.path)
    sys.meta_path.insert(0, finder)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = path
        _unload(names)
        sys.modules.update(hidden)


def bind_experiments(folder: Path) -> None:
    """Make `import experiments` load the package in this folder, even if the current folder holds one of that name."""
    bound = sys.modules.get("experiments")
    if bound is not None and getattr(bound, "__file__", None) is not None:
        return
    spec = importlib.util.spec_from_file_location(
        "experiments", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["experiments"] = package
    spec.loader.exec_module(package)


class _Finder:
    """Finds the modules of one folder before any other finder does."""

    def __init__(self, folder: Path, names: set[str]) -> None:
        self._folder = str(folder)
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a neighbour, or None for any other module."""
        if name not in self._names:
            return None
        spec = PathFinder.find_spec(name, [self._folder])
        return spec if spec is not None and spec.origin is not None else None


def _module_names(folder: Path) -> set[str]:
    """The names that can be imported from a folder."""
    suffixes = tuple(importlib.machinery.all_suffixes())
    entries = list(folder.iterdir())
    files = {entry.name.partition(".")[0] for entry in entries if entry.name.endswith(suffixes)}
    folders = {entry.name for entry in entries if entry.is_dir()}
    return {name for name in files | folders if name.isidentifier() and name != "__init__"}


def _is_protected(name: str, folder: Path) -> bool:
    """True if the name belongs to the standard library, to this suite or to an installed package."""
    if name in sys.stdlib_module_names or name in OUR_PACKAGES or name == "__main__":
        return True
    ignored = {folder, Path.cwd().resolve()}
    paths = [path for path in sys.path if path and Path(path).resolve() not in ignored]
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None:
            continue
        spec = find_spec(name, paths if finder is PathFinder else None)
        if spec is not None and spec.origin is not None:
            return True
    return False


def _unload(names: set[str]) -> dict[str, ModuleType]:
    """Remove these modules and their submodules from `sys.modules`; returns the removed ones."""
    removed = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    for name in removed:
        del sys.modules[name]
    return removed
