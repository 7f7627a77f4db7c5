"""Loads weight files into a network.

It reads our own files (.safetensors next to config.json), the authors' released files (.pt), and checkpoints of other
training tools that contain an A2N (`unwrapping`). The content of a file decides what it is, not its suffix.
"""

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sr_core.model.published import (
    from_published,
    is_published,
    published_config,
    require_published,
    scale_of_published,
)
from sr_core.model.unwrapping import unwrapped

logger = logging.getLogger(__name__)

Note = Callable[[str], None]
"""Receives one line on what was extracted from a file and what was left out."""

_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".th", ".tar"})
_MAX_NAMES_SHOWN = 3
_OWN_NAMES = frozenset({"head.weight", "trunk_end.weight"})
"""Two tensors that every A2N has under our names. No other known network has both."""


@dataclass(frozen=True, slots=True)
class TransferReport:
    """The names of the tensors that were transferred to a network, and of the others, in the network's order."""

    taken: tuple[str, ...]
    """Tensors that were replaced by the given values."""
    fresh: tuple[str, ...]
    """Tensors that kept their own values, because no tensor of that name and shape was given."""


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Load every tensor of the network from `state`. On an error the network is unchanged.

    Args:
        origin: the source of `state`, for the error message.
    Raises:
        CheckpointError: a tensor is missing, unexpected, of another shape, or contains NaN or infinity. The message
            names some of the tensors.
    """
    own = model.state_dict()
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in reshaped],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise CheckpointError(f"{origin}: the weights do not fit a network of {len(own)} tensors: {listed}")

    with _naming(origin):
        check_finite(state)
    model.load_state_dict(state)


def transfer(model: nn.Module, state: Mapping[str, Tensor]) -> TransferReport:
    """Copy each tensor of `state` whose name and shape match into the network. The others keep their values.

    Raises:
        CheckpointError: no tensor matches, or a matching tensor contains NaN or infinity.
    """
    own = model.state_dict()
    matching = {name: state[name] for name, t in own.items() if name in state and state[name].shape == t.shape}
    if not matching:
        raise CheckpointError(
            f"none of the {len(state)} given tensors ({_some(list(state))}) has the name and shape of one of the "
            f"network's {len(own)} ({_some(list(own))}); start from weights of an A2N of the same width"
        )
    check_finite(matching)
    model.load_state_dict(matching, strict=False)
    return TransferReport(taken=tuple(matching), fresh=tuple(name for name in own if name not in matching))


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Check that all values are finite.

    Raises:
        CheckpointError: a value is NaN or infinite. The message names a tensor and its number of such values.
    """
    counts = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in state.items()}
    bad = {name: count for name, count in counts.items() if count}
    if bad:
        name, count = next(iter(bad.items()))
        others = len(bad) - 1
        more = f", as are values of {others} other tensor{'' if others == 1 else 's'}" if others else ""
        raise CheckpointError(
            f"{count} of {state[name].numel()} values of tensor {name} are NaN or infinite{more}; expected finite "
            "numbers. The training diverged or the file is damaged: use an earlier checkpoint"
        )


def read_weights(path: Path, *, note: Note = logger.info) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a weights file under our names, and the stored config (None for released weights).

    The tensors are float32 on the CPU.

    Args:
        note: called with what was extracted, if the file is a checkpoint of another training tool.
    Raises:
        CheckpointError: the file is missing or damaged, contains neither our weights nor released ones, has no
            config.json next to it although it contains our weights, or contains NaN or infinity.
    """
    tensors = _read_tensors(path, note)
    if _is_own(tensors, path):
        return tensors, _read_config(path.parent / "config.json")
    with _naming(path):
        return from_published(tensors), None


def load_model(path: Path, scale: Scale | None, *, note: Note = logger.info) -> A2N:
    """The network of a weights file, in eval mode on the CPU, in channels_last format (1.7 times as fast there).

    Args:
        scale: the expected scale, or None to use the scale in the file. Released x2 and x3 weights have the same
            tensors, so their scale must be given and cannot be checked.
        note: called with what was extracted, if the file is a checkpoint of another training tool.
    Raises:
        CheckpointError: `read_weights` fails, the file is for another scale, the weights do not fit their config, or no
            scale is given for weights that may be x2 or x3.
    """
    state = _read_tensors(path, note)
    if _is_own(state, path):
        sidecar = path.parent / "config.json"
        config, own_scale = _described_network(_read_config(sidecar), sidecar)
        scale = scale or own_scale
        if own_scale != scale:
            raise CheckpointError(
                f"{path}: enlarges by {own_scale} ({sidecar}: data.scale), expected weights for scale {scale}"
            )
    else:
        with _naming(path):
            scale = scale or scale_of_published(state)
            config = published_config(state, scale)
            state = from_published(state)
    model = A2N(config, scale)
    load_exactly(model, state, origin=str(path))
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.eval()


def _is_own(tensors: Mapping[str, Tensor], path: Path) -> bool:
    """True for weights under our names, which need a config.json. False for released A2N weights.

    Raises:
        CheckpointError: the tensors are neither.
    """
    if tensors.keys() >= _OWN_NAMES:
        return True
    if path.suffix == ".safetensors" and (path.parent / "config.json").exists() and not is_published(tensors):
        return True  # `load_exactly` reports what does not fit
    with _naming(path):
        require_published(tensors)
    return False


def _read_tensors(path: Path, note: Note) -> dict[str, Tensor]:
    """The tensors of a file as float32, by their names in the file, without the prefix of a training tool."""
    if path.suffix.lower() not in _SUFFIXES:
        if path.is_dir():
            raise CheckpointError(f"{path}: expected a weights file, got a folder; name the file in it")
        raise CheckpointError(f"{path}: expected weights as .safetensors, or as released in .pt or .pth")
    content = _bytes(path)
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: expected weights, got a Git LFS pointer file; download the weights with: git lfs pull"
        )
    if _is_safetensors(content, path):
        network = unwrapped(_load_safetensors(content, path))
    else:
        loaded = _load_pickled(content, path)
        with _naming(path):
            network = unwrapped(loaded)

    _is_own(network.tensors, path)  # first, so that another network is reported as such and not for its values
    with _naming(path):
        tensors = {name: _as_float32(name, tensor) for name, tensor in network.tensors.items()}
        check_finite(tensors)
    if network.note:
        note(f"{path}: {network.note}")
    return tensors


def _is_safetensors(content: bytes, path: Path) -> bool:
    """True if the content is safetensors: the length of a JSON header, then the header. The suffix is a fallback."""
    header_bytes = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and header_bytes <= len(content) - 8:
        return True
    return path.suffix == ".safetensors" and not content.startswith((b"PK", b"\x80"))


def _load_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(content)
    except SafetensorError as exc:
        reason = _text_in(content) or str(exc)
        if not content:
            reason = "the file is empty"
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({reason}); copy it again or retrain the network"
        ) from exc


def _load_pickled(content: bytes, path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Torch warns about pickles that it did not write, and the error below says so too.
            warnings.simplefilter("ignore")
            return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as exc:  # a damaged pickle can raise any exception
        kind = type(exc).__name__ if content else "empty"
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors ({kind}): {_why_not_loaded(content, exc)}"
        ) from exc


def _why_not_loaded(content: bytes, exc: Exception) -> str:
    """A message that says what the file is instead, and what to do."""
    advice = "save only the tensors in the program that wrote it: torch.save(model.state_dict(), FILE)"
    if not content:
        return "the file has 0 bytes; copy or download it again"
    if text := _text_in(content):
        return f"{text}; download the weights themselves"
    if content.startswith(b"PK"):
        members = _members(content)
        if members is None:
            return "a damaged zip archive; copy or download it again"
        if "constants.pkl" in members:
            return f"a TorchScript archive, which is a program; {advice}"
        if "data.pkl" not in members:
            return "a zip archive that torch.save did not write; unpack it and use the weights file in it"
    if type(exc).__name__ == "UnpicklingError":  # by name, because nothing here imports pickle
        needed = re.search(r"(?:GLOBAL |unsupported class |function )`?([\w.]+\.\w+)", str(exc))
        code = f"code ({needed[1]})" if needed else "code"
        return f"unless damaged, it needs {code} that is not run for safety; {advice}"
    return "expected a released state dict"


def _members(content: bytes) -> list[str] | None:
    """The file names in a zip archive, without folders. None if its table of contents is damaged."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return [name.rpartition("/")[2] for name in archive.namelist()]
    except Exception:  # zipfile raises BadZipFile, UnicodeDecodeError, NotImplementedError, struct.error, …
        return None


def _text_in(content: bytes) -> str:
    """A description of how a text file begins. Empty if the file is not text."""
    try:
        text = content[:200].decode("utf-8", "strict" if len(content) <= 200 else "ignore")
    except UnicodeDecodeError:
        return ""
    line = text.strip().partition("\n")[0].strip()
    if not line or not text.replace("\n", " ").isprintable():
        return ""
    return f"a text file that begins with {line[:60]!r}"


def _as_float32(name: str, tensor: Tensor) -> Tensor:
    """The tensor as float32, converted from any floating-point type.

    Raises:
        CheckpointError: the tensor is not a dense tensor of floating-point numbers.
    """
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        kind = str(tensor.dtype).removeprefix("torch.")
        layout = "" if tensor.layout == torch.strided else f" {str(tensor.layout).removeprefix('torch.')}"
        raise CheckpointError(f"tensor {name} holds {kind}{layout} values; expected dense floating-point numbers")
    return tensor.detach().to(torch.float32)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such weights file; check the path") from exc
    except IsADirectoryError as exc:
        raise CheckpointError(f"{path}: cannot read the weights ({exc.strerror}); name the file in it") from exc
    except OSError as exc:
        raise CheckpointError(f"{path}: cannot read the weights ({exc.strerror})") from exc


def _read_config(sidecar: Path) -> dict[str, Any]:
    try:
        config = json.loads(sidecar.read_bytes())
    except FileNotFoundError as exc:
        raise CheckpointError(
            f"{sidecar}: missing; weights of a trial need the trial's config.json next to them"
        ) from exc
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{sidecar}: cannot be read as JSON ({exc})") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{sidecar}: expected a JSON object, got {type(config).__name__}")
    return config


def _described_network(config: Mapping[str, Any], sidecar: Path) -> tuple[ModelConfig, Scale]:
    """The model section and the scale of a stored config.

    The section must be complete, so that a changed default cannot change the network.

    Raises:
        CheckpointError: a field is missing, unknown or not legal.
    """
    section = config.get("model")
    data = config.get("data")
    expected = {field.name for field in fields(ModelConfig)}
    if not isinstance(section, dict) or set(section) != expected:
        fields_present = ", ".join(sorted(section)) if isinstance(section, dict) else repr(section)
        raise CheckpointError(f'{sidecar}: "model" must hold {", ".join(sorted(expected))}; got {fields_present}')
    scale = data.get("scale") if isinstance(data, dict) else None
    if scale not in SCALES:
        raise CheckpointError(f"{sidecar}: data.scale must be one of {', '.join(map(str, SCALES))}; got {scale!r}")
    try:
        return ModelConfig(**section), scale
    except ConfigError as exc:
        raise CheckpointError(f"{sidecar}: {exc}") from exc


@contextmanager
def _naming(origin: object) -> Iterator[None]:
    """Put the origin of the weights in front of the message of a CheckpointError."""
    try:
        yield
    except CheckpointError as exc:
        raise CheckpointError(f"{origin}: {exc}") from exc


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MAX_NAMES_SHOWN])
    return f"{listed}, …" if len(names) > _MAX_NAMES_SHOWN else listed
