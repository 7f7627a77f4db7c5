"""Keeps the state of a long journal small in memory."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from study.record.events import Proposed, Validated

NO_NUMBERS: Mapping[str, float] = {}
"""Shared by all validations whose numbers were dropped. It is a dict, so that it can be written as JSON."""


def compact(point: Validated, seconds: Mapping[str, float]) -> Validated:
    """The validation with these seconds and without its load, for a point that is no longer the newest of a trial.

    The names of the metrics are interned. Each line of a journal is parsed separately, so that a study of thousands of
    trials would otherwise hold thousands of copies of them.
    """
    return Validated(
        time=point.time,
        trial=point.trial,
        patches=point.patches,
        scores={sys.intern(name): value for name, value in point.scores.items()},
        loss=point.loss,
        learning_rate=point.learning_rate,
        seconds=seconds,
        load=NO_NUMBERS,
    )


def sharing(proposed: Proposed, other: Proposed) -> Proposed:
    """The same proposal. Settings that are equal to those of the other trial share its objects in memory."""
    return replace(
        proposed,
        config=_shared(proposed.config, other.config),
        values=_shared(proposed.values, other.values),
    )


def _shared(settings: Mapping[str, Any], others: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same settings, which use the others' objects for equal values. Compares repr(), so that 1 is not 1.0."""
    if repr(settings) == repr(others):
        return others
    shared: dict[str, Any] = {}
    for name, value in settings.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            shared[sys.intern(name)] = _shared(value, other)
        else:
            shared[sys.intern(name)] = other if repr(value) == repr(other) else value
    return shared
