"""Finds the tensors of a network in checkpoints that other training tools wrote.

BasicSR writes {"params": …, "params_ema": …}. Lightning writes {"state_dict": …, "optimizer_states": …} and prefixes
the tensor names with the name of the network's attribute. DataParallel adds the prefix `module.` and MMEditing
`generator.`.
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
"""Keys under which training tools store a network, in order of preference. Averaged weights come first."""

_PREFIXES: Final = frozenset(WRAPPERS) | {"_orig_mod", "_forward_module"}
"""Name parts that training tools put in front of a tensor's name, followed by a dot."""

_MAX_NESTING: Final = 4
"""Nested dicts are searched to this depth, because a dict from a damaged file may contain itself."""

_FIRST_TENSORS: Final = ("conv_first.weight", "head.weight")
"""A tensor that every A2N has, under its released name and under ours."""
_MAX_KEYS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A flat state dict, extracted from a checkpoint."""

    tensors: dict[str, Tensor]
    note: str
    """One line on what was extracted and what was left out. Empty if the checkpoint was a flat state dict."""


def unwrapped(content: object) -> Unwrapped:
    """The tensors of the network in a loaded checkpoint. Optimiser states, counters and settings are ignored.

    Raises:
        CheckpointError: the checkpoint does not contain a dict of tensors.
    """
    keys: list[str] = []
    other_keys: list[str] = []
    inner = content
    while isinstance(inner, Mapping) and len(keys) < _MAX_NESTING:
        present = [key for key in WRAPPERS if _holds_tensors(inner.get(key))]
        if not present:
            break
        keys.append(present[0])
        other_keys += present[1:]
        inner = inner[present[0]]

    tensors = _tensors(inner)
    if not tensors:
        raise CheckpointError(f"expected a dict of tensors by name, as released; got {_in_words(content)}")

    prefix = _prefix(tensors)
    named = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    notes = []
    if keys:
        note = f"took the tensors under {' / '.join(keys)}"
        if other_keys:
            note += f", not those under {', '.join(other_keys)}"
        notes.append(note)
    if prefix:
        note = f"removed the prefix {prefix!r} of their names"
        left_out = len(tensors) - len(named)
        if left_out:
            plural = "" if left_out == 1 else "s"
            note += f" and left out {left_out} tensor{plural} without it"
        notes.append(note)
    return Unwrapped(named, "; ".join(notes))


def _holds_tensors(value: object, depth: int = 1) -> bool:
    """True for a dict of tensors, or for a dict that contains one under a key of `WRAPPERS`."""
    if not isinstance(value, Mapping) or depth > _MAX_NESTING:
        return False
    return bool(_tensors(value)) or any(_holds_tensors(value.get(key), depth + 1) for key in WRAPPERS)


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and torch.is_tensor(value)}


def _prefix(tensors: Mapping[str, Any]) -> str:
    """The prefix of an A2N's tensor names. If there are several, prefer the prefix of averaged weights."""
    candidates: set[str] = set()
    for name in tensors:
        for first in _FIRST_TENSORS:
            if name != first and not name.endswith(f".{first}"):
                continue
            prefix = name.removesuffix(first)
            if set(prefix.split(".")[:-1]) <= _PREFIXES:
                candidates.add(prefix)
    return min(candidates, key=lambda prefix: ("ema" not in prefix, len(prefix), prefix), default="")


def _in_words(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    keys = [str(key) for key in content]
    shown = ", ".join(keys[:_MAX_KEYS_SHOWN]) or "no entries"
    if len(keys) > _MAX_KEYS_SHOWN:
        shown += ", …"
    return f"{type(content).__name__} with {shown}"
