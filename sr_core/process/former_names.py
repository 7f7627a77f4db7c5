"""Modules under the names that they had before: experiment files and notebooks of other versions import them so."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_Names = Mapping[str, str | None]


class _FormerNames(MetaPathFinder, Loader):
    """Finds modules that no longer exist under their names, after every other finder."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        return ModuleSpec(name, self, is_package=self._names[name] is None)

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual empty module: a former folder stays one, anything else is exchanged when it is executed."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        present = self._names[name]
        if present is not None:
            sys.modules[name] = import_module(present)  # import takes the module from here when this is done


def keep(names: _Names) -> None:
    """Let `import former` give the present module, the same object under both names.

    Args:
        names: former module -> present one; None for a folder that is gone.
    """
    sys.meta_path.append(_FormerNames(names))
