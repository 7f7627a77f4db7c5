"""Imports of modules under their former names, for experiment files and notebooks of earlier versions."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_Names = Mapping[str, str | None]


class _FormerNames(MetaPathFinder, Loader):
    """An import finder for former module names. It comes after every other finder."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        return ModuleSpec(name, self, is_package=self._names[name] is None)

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None for the default empty module. A former folder keeps it; a former module is replaced later."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        present = self._names[name]
        if present is not None:
            sys.modules[name] = import_module(present)  # import returns the module from here


def keep(names: _Names) -> None:
    """Let `import former` return the present module. Both names give the same object.

    Args:
        names: present module name by former one; None for a former folder.
    """
    sys.meta_path.append(_FormerNames(names))
