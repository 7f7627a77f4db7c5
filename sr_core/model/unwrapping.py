"""The tensors of a network, found in what other trainers write: a dict in a dict, or names with a prefix.

BasicSR writes {"params": …, "params_ema": …}, Lightning {"state_dict": …, "optimizer_states": …} with names that begin
with that of the network's attribute, DataParallel names that begin with `module.`, MMEditing `generator.`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from sr_core.errors import CheckpointError

WRAPPERS: Final = (
    "params_ema",
    "generator_ema",
    "net_g_ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net_g",
    "netG",
    "generator",
    "network",
    "net",
    "module",
    "weights",
)
"""Keys under which trainers keep a network, in the order in which one is taken; averaged weights first."""

_PREFIXES: Final = frozenset(WRAPPERS) | {"_orig_mod", "_forward_module"}
"""What can stand before a tensor's own name, with a dot behind it."""

_DEEPEST: Final = 4
"""Dicts in dicts that are looked into: a damaged file's dict may hold itself."""

_FIRST_TENSORS: Final = ("conv_first.weight", "head.weight")
"""One that every A2N has: under its released name, and under ours."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A flat state dict."""

    tensors: dict[str, Tensor]
    note: str
    """What was taken and what was not, in one line; empty if the content was a flat state dict."""


def unwrapped(content: object) -> Unwrapped:
    """The tensors of the network that a loaded checkpoint holds. Optimisers, counters and settings are passed over.

    Raises:
        CheckpointError: it holds no tensors by name.
    """
    keys: list[str] = []
    passed_over: list[str] = []
    inner = content
    while isinstance(inner, Mapping) and len(keys) < _DEEPEST:
        present = [key for key in WRAPPERS if _holds_tensors(inner.get(key))]
        if not present:
            break
        keys.append(present[0])
        passed_over += present[1:]
        inner = inner[present[0]]
    tensors = _tensors(inner)
    if not tensors:
        raise CheckpointError(f"expected a dict of tensors by name, as released; got {_in_words(content)}")
    prefix = _prefix(tensors)
    named = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    notes = []
    if keys:
        where = " / ".join(keys)
        besides = f", not those under {', '.join(passed_over)}" if passed_over else ""
        notes.append(f"took the tensors under {where}{besides}")
    if prefix:
        left = len(tensors) - len(named)
        others = f" and left out {left} tensor{'s' * (left != 1)} without it" if left else ""
        notes.append(f"removed the prefix {prefix!r} of their names{others}")
    return Unwrapped(named, "; ".join(notes))


def _holds_tensors(value: object, depth: int = 1) -> bool:
    """True for a dict of tensors, or one that holds such a dict under a key of `WRAPPERS`."""
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return False
    return bool(_tensors(value)) or any(_holds_tensors(value.get(key), depth + 1) for key in WRAPPERS)


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}


def _prefix(tensors: Mapping[str, Any]) -> str:
    """What stands before the names of an A2N's tensors; of several prefixes the one of averaged weights."""
    prefixes = {
        name.removesuffix(first)
        for name in tensors
        for first in _FIRST_TENSORS
        if name == first or name.endswith(f".{first}")
    }
    known = [prefix for prefix in prefixes if set(prefix.split(".")[:-1]) <= _PREFIXES]
    return min(known, key=lambda prefix: ("ema" not in prefix, len(prefix), prefix), default="")


def _in_words(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    keys = [str(key) for key in content]
    return f"{type(content).__name__} with {', '.join(keys[:3]) or 'nothing'}{', …' if len(keys) > 3 else ''}"
