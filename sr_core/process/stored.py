"""Reading of stored sections that were written before some of their fields existed.

A field that was added after format 1 of the journal is declared with `since`. It states the format in which the field
appeared, and the value that older code implied. That is what the older code *did*, which may differ from the default:

    flush_subnormals: bool = since(2, implied=False, default=False)

Two kinds of sections are stored:

- Hyperparameters (`sr_core.config`) are hashed. A newer field is written only if its value differs from what older
  code implied (`written`), so that the digests of older trials and studies do not change.
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
    """The format in which a field appeared, and the meaning of its absence from an older record."""

    format: int
    """The first journal format that has the field."""
    implied: Any
    """The value that older code used: a value, or a function of the other stored values of the section.
    None in a setting of a machine means that the value is unknown."""

    def value(self, others: Mapping[str, Any]) -> Any:
        """The value implied by an older record with these other values in the section."""
        return self.implied(others) if callable(self.implied) else self.implied


def since(format: int, *, implied: _T | Callable[[Mapping[str, Any]], _T], default: _T) -> _T:
    """A dataclass field that appeared in this format of the journal.

    If `implied` is a function, it gets the section's values by name. It may read original fields, and newer fields
    that are declared above this one.

    Args:
        format: the release that adds the field must raise `study.record.events.FORMAT` to this number.
        implied: the value that older code used. Later versions must never change it.
        default: the default in a new section. Later versions may change it.
    Raises:
        ValueError: the format is not above the first one.
    """
    if format <= FIRST_FORMAT:
        raise ValueError(f"expected a format above {FIRST_FORMAT}, got {format}: a field of that one has no `since`")
    declared: _T = field(default=default, metadata={_KEY: Since(format, implied)})
    return declared


_newer: dict[type[Any], Mapping[str, Since]] = {}
"""Results of `newer_fields`, which is called for each line of a journal."""


def newer_fields(kind: type[Any]) -> Mapping[str, Since]:
    """The fields of a dataclass that were added after the first format, in the order of their declaration."""
    if kind not in _newer:
        _newer[kind] = {f.name: f.metadata[_KEY] for f in fields(kind) if _KEY in f.metadata}
    return _newer[kind]


def is_newer(kind: type[Any]) -> bool:
    """True if the whole section was added after the first format, so an older record does not have it."""
    return len(newer_fields(kind)) == len(fields(kind))


def fill(kind: type[Any], stored: Mapping[str, Any], where: str, *, format: int | None = None) -> dict[str, Any]:
    """The stored values of all fields, with the values that older code implied for missing newer fields.

    Args:
        where: the place that is read, for messages.
        format: the format of the record. If it is given, the fields of this format must not be missing.
    Raises:
        ConfigError: a field is unknown, or a required field is missing.
    """
    newer = newer_fields(kind)
    names = {f.name for f in fields(kind)}
    may_lack = {name for name, appeared in newer.items() if format is None or appeared.format > format}
    if not isinstance(stored, Mapping):
        raise ConfigError(f"{where}: expected a section of values, got {type(stored).__name__}")
    odd = sorted((set(stored) - names) | (names - may_lack - set(stored)))
    if odd:
        raise ConfigError(f"{where}: missing or unknown {', '.join(map(str, odd))}")
    values = dict(stored)
    for name, appeared in newer.items():
        if name not in values:
            values[name] = appeared.value(values)
    return values


def written(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a hashed record holds: all except newer fields whose value equals what older code implied.

    Args:
        values: the values of all fields of the section.
    """
    newer = newer_fields(kind)
    recorded: dict[str, Any] = {}
    for name, value in values.items():
        if name in newer and _same(value, newer[name].value(values), _declared(kind, name)):
            continue
        recorded[name] = value
    return recorded


def _declared(kind: type[Any], name: str) -> "Field[Any]":
    return next(f for f in fields(kind) if f.name == name)


def _same(value: Any, implied: Any, declared: "Field[Any]") -> bool:
    # True equals 1, but the two give records with different hashes. A float may be stored as a whole number.
    if declared.type is float and isinstance(implied, int):
        implied = float(implied)
    return type(value) is type(implied) and bool(value == implied)
