"""Weights from a file into a network: ours (.safetensors beside config.json) and the authors' released ones (.pt)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from sr_core.config import SCALES, ModelConfig, Scale
from sr_core.errors import CheckpointError, ConfigError
from sr_core.model.network import A2N
from sr_core.model.published import from_published, published_config, told_scale

_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What became of each tensor of the network, by name, in the network's order."""

    taken: tuple[str, ...]
    """Now holds the given values."""
    fresh: tuple[str, ...]
    """Kept its own: no tensor of that name and shape was given."""


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Fill every tensor of the network from `state`, or change nothing.

    Args:
        origin: where `state` came from, for the message.
    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; one line that names some of each kind.
    """
    own = model.state_dict()
    differing = [name for name in own if name in state and state[name].shape != own[name].shape]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in differing],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{origin}: the weights do not fit a network of {len(own)} tensors: {found}")
    model.load_state_dict(state)


def transfer(model: nn.Module, state: Mapping[str, Tensor]) -> TransferReport:
    """Start from other weights: each tensor whose name and shape match is taken, the rest stays as it is.

    Raises:
        CheckpointError: not one tensor matches.
    """
    own = model.state_dict()
    matching = {name: state[name] for name, t in own.items() if name in state and state[name].shape == t.shape}
    if not matching:
        raise CheckpointError(
            f"not one of {len(state)} tensors given ({_some(list(state))}) has the name and shape of one of the "
            f"network's {len(own)} ({_some(list(own))}); start from weights of an A2N of the same width"
        )
    model.load_state_dict(matching, strict=False)
    return TransferReport(taken=tuple(matching), fresh=tuple(name for name in own if name not in matching))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a file under our names, on the CPU, and the config beside them (None for released weights).

    Raises:
        CheckpointError: the file is missing, damaged, or neither a .safetensors with a config.json nor a released .pt.
    """
    if path.suffix == ".safetensors":
        return _read_tensors(path), _read_config(path.parent / "config.json")
    with _naming(path):
        return from_published(_read_released(path)), None


def load_model(path: Path, scale: Scale | None) -> A2N:
    """The network of a weights file, in eval mode on the CPU, channels_last (1.7 times as fast there).

    Args:
        scale: None is the file's own. Released x2 and x3 weights cannot be told apart: theirs is taken on trust.
    Raises:
        CheckpointError: as read_weights; or the file is for another scale, or does not fit the network it describes,
            or no scale was given where the file does not tell its own.
    """
    if path.suffix == ".safetensors":
        state, sidecar = _read_tensors(path), path.parent / "config.json"
        config, own_scale = _described_network(_read_config(sidecar), sidecar)
        scale = scale or own_scale
        if own_scale != scale:
            raise CheckpointError(f"{path}: enlarges by {own_scale} ({sidecar}: data.scale), asked for scale {scale}")
    else:
        released = _read_released(path)
        with _naming(path):
            scale = scale or told_scale(released)
            config, state = published_config(released, scale), from_published(released)
    model = A2N(config, scale)
    load_exactly(model, state, origin=str(path))
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.eval()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(_bytes(path))
    except SafetensorError as exc:
        raise CheckpointError(f"{path}: not a whole safetensors file ({exc}); copy or train it again") from exc


def _read_released(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".pt", ".pth"):
        raise CheckpointError(f"{path}: expected weights as .safetensors, or as released in .pt or .pth")
    content = _bytes(path)
    try:
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as exc:  # a damaged pickle is a damaged program: what it raises has no list
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors ({type(exc).__name__}); expected a released state dict"
        ) from exc
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(t) for k, t in state.items()):
        raise CheckpointError(f"{path}: expected a dict of tensors by name, as released; got {type(state).__name__}")
    return state


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such weights file; check the path") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot read the weights ({exc.strerror})") from exc


def _read_config(sidecar: Path) -> dict[str, Any]:
    try:
        config = json.loads(sidecar.read_bytes())
    except FileNotFoundError as exc:
        raise CheckpointError(f"{sidecar}: missing; weights need their trial's config beside them") from exc
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{sidecar}: cannot be read as JSON ({exc})") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{sidecar}: expected a JSON object, got {type(config).__name__}")
    return config


def _described_network(config: Mapping[str, Any], sidecar: Path) -> tuple[ModelConfig, Scale]:
    """Model section and scale of a stored config; it is complete, so that a changed default cannot change a network."""
    section, data = config.get("model"), config.get("data")
    expected = {field.name for field in fields(ModelConfig)}
    if not isinstance(section, dict) or set(section) != expected:
        got = ", ".join(sorted(section)) if isinstance(section, dict) else repr(section)
        raise CheckpointError(f'{sidecar}: "model" must hold {", ".join(sorted(expected))}; got {got}')
    scale = data.get("scale") if isinstance(data, dict) else None
    if scale not in SCALES:
        raise CheckpointError(f"{sidecar}: data.scale must be one of {', '.join(map(str, SCALES))}; got {scale!r}")
    try:
        return ModelConfig(**section), scale
    except ConfigError as exc:
        raise CheckpointError(f"{sidecar}: {exc}") from exc


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
