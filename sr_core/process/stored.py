"""Records outlive code: what a stored section says where it was written before one of its fields existed.

A field that came after format 1 of the journal is declared with `since`. It names the format in which the field
appeared, and the value that older code implied. That is what the older code *did*, which need not be today's default:

    flush_subnormals: bool = since(2, implied=False, default=False)

Two kinds of sections are stored:

- Hyperparameters (`sr_core.config`) are hashed. A newer field is written only where its value differs from what older
  code implied (`written`), so that the digests of older trials and studies stay as they are.
- Settings of a machine (`sr_core.training.runtime`) are always written in full.

Reading (`fill`) adds exactly the newer fields that are missing. It refuses an unknown field, and it refuses a section
without one of its original fields: a default never stands in for a value, because defaults change.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from sr_core.errors import ConfigError

FIRST_FORMAT = 1
"""The journal format of version 0.1. A field without `since` has been there from this format on."""

_KEY = "since"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Since:
    """When a field appeared, and what its absence from an older record says."""

    format: int
    """The first journal format that has the field."""
    implied: Any
    """The value under which older code computed: a value, or a function of the other stored values of the section.
    None in a setting of a machine says that nobody knows the value any more."""

    def value(self, others: Mapping[str, Any]) -> Any:
        """The value that an older record implies whose section holds these other values."""
        return self.implied(others) if callable(self.implied) else self.implied


def since(format: int, *, implied: _T | Callable[[Mapping[str, Any]], _T], default: _T) -> _T:
    """A dataclass field that appeared in this format of the journal.

    A function for `implied` is given the section's values by name. It may read original fields, and newer ones that
    are declared above this one.

    Args:
        format: raise `study.record.events.FORMAT` to it in the release that adds the field.
        implied: what older code did, which later versions must never change.
        default: of a new section; later versions may change it.
    """
    if format <= FIRST_FORMAT:
        raise ValueError(f"expected a format above {FIRST_FORMAT}, got {format}: a field of that one has no `since`")
    declared: _T = field(default=default, metadata={_KEY: Since(format, implied)})
    return declared


_newer: dict[type[Any], Mapping[str, Since]] = {}
"""What `newer_fields` found, for it is asked for each line of a journal."""


def newer_fields(kind: type[Any]) -> Mapping[str, Since]:
    """The fields of a dataclass that came after the first format, in the order of their declaration."""
    if kind not in _newer:
        _newer[kind] = {f.name: f.metadata[_KEY] for f in fields(kind) if _KEY in f.metadata}
    return _newer[kind]


def is_newer(kind: type[Any]) -> bool:
    """Whether the whole section came after the first format, so that an older record has none of it."""
    return len(newer_fields(kind)) == len(fields(kind))


def fill(kind: type[Any], stored: Mapping[str, Any], where: str, *, format: int | None = None) -> dict[str, Any]:
    """The stored values of every field, completed by what older code implied for the newer fields that are missing.

    Args:
        where: what is read, for the message.
        format: of the record. If it is given, a field that this format writes in full may not be missing.
    Raises:
        ConfigError: a field is unknown, or one is missing that the record should have.
    """
    newer = newer_fields(kind)
    known = {f.name for f in fields(kind)}
    may_lack = {name for name, appeared in newer.items() if format is None or appeared.format > format}
    if not isinstance(stored, Mapping):
        raise ConfigError(f"{where}: missing or unknown all of it")
    odd = sorted((set(stored) - known) | (known - may_lack - set(stored)))
    if odd:
        raise ConfigError(f"{where}: missing or unknown {', '.join(map(str, odd))}")
    values = dict(stored)
    for name, appeared in newer.items():
        if name not in values:
            values[name] = appeared.value(values)
    return values


def written(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a hashed record holds: all but those of newer fields that equal what older code implied.

    Args:
        values: of every field of the section.
    """
    newer = newer_fields(kind)
    return {
        name: value
        for name, value in values.items()
        if name not in newer or not _same(value, newer[name].value(values), _declared(kind, name))
    }


def _declared(kind: type[Any], name: str) -> "Field[Any]":
    return next(f for f in fields(kind) if f.name == name)


def _same(value: Any, implied: Any, declared: "Field[Any]") -> bool:
    # True equals 1, but a record that holds one of them has another hash; a float may be written as a whole number.
    if declared.type is float and isinstance(implied, int):
        implied = float(implied)
    return type(value) is type(implied) and bool(value == implied)
