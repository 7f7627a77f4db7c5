"""Weights from a file into a network: ours (.safetensors beside config.json) and the authors' released ones (.pt).

Released ones may also come from other trainers' checkpoints (`unwrapping`). What a file is, its content says.
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
from sr_core.model.published import from_published, is_published, published_config, require_published, told_scale
from sr_core.model.unwrapping import unwrapped

logger = logging.getLogger(__name__)

Note = Callable[[str], None]
"""Is told in one line what of a file was taken and what was not."""

_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".th", ".tar"})
_NAMED_AT_MOST = 3
_OWN = frozenset({"head.weight", "trunk_end.weight"})
"""Of the tensors that every A2N has under our names; both together are in no other network."""


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
        CheckpointError: a tensor is missing, unexpected or of another shape (one line that names some of each kind),
            or holds NaN or infinity.
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
    with _naming(origin):
        check_finite(state)
    model.load_state_dict(state)


def transfer(model: nn.Module, state: Mapping[str, Tensor]) -> TransferReport:
    """Start from other weights: each tensor whose name and shape match is taken, the rest stays as it is.

    Raises:
        CheckpointError: not one tensor matches, or one that does holds NaN or infinity.
    """
    own = model.state_dict()
    matching = {name: state[name] for name, t in own.items() if name in state and state[name].shape == t.shape}
    if not matching:
        raise CheckpointError(
            f"not one of {len(state)} tensors given ({_some(list(state))}) has the name and shape of one of the "
            f"network's {len(own)} ({_some(list(own))}); start from weights of an A2N of the same width"
        )
    check_finite(matching)
    model.load_state_dict(matching, strict=False)
    return TransferReport(taken=tuple(matching), fresh=tuple(name for name in own if name not in matching))


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError, with the tensor and how many of its values, if one is NaN or infinite."""
    found = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in state.items()}
    bad = {name: count for name, count in found.items() if count}
    if bad:
        name, count = next(iter(bad.items()))
        more = f", and {len(bad) - 1} other tensors hold some" if len(bad) > 1 else ""
        raise CheckpointError(
            f"{count} of {state[name].numel()} values of tensor {name} are NaN or infinite{more}; expected finite "
            "numbers, so the training diverged or the file was damaged: use an earlier checkpoint"
        )


def read_weights(path: Path, *, note: Note = logger.info) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of a file under our names, float32 on the CPU, and the config beside them (None for released ones).

    Args:
        note: told what was unwrapped, if the file is another trainer's checkpoint.
    Raises:
        CheckpointError: the file is missing, damaged, or holds neither our weights, with a config.json beside them, nor
            released ones; or a value is NaN or infinite.
    """
    tensors = _read_tensors(path, note)
    if _is_own(tensors, path):
        return tensors, _read_config(path.parent / "config.json")
    with _naming(path):
        return from_published(tensors), None


def load_model(path: Path, scale: Scale | None, *, note: Note = logger.info) -> A2N:
    """The network of a weights file, in eval mode on the CPU, channels_last (1.7 times as fast there).

    Args:
        scale: None is the file's own. Released x2 and x3 weights cannot be told apart: theirs is taken on trust.
        note: as of `read_weights`.
    Raises:
        CheckpointError: as read_weights; or the file is for another scale, or does not fit the network it describes,
            or no scale was given where the file does not tell its own.
    """
    state = _read_tensors(path, note)
    if _is_own(state, path):
        sidecar = path.parent / "config.json"
        config, own_scale = _described_network(_read_config(sidecar), sidecar)
        scale = scale or own_scale
        if own_scale != scale:
            raise CheckpointError(f"{path}: enlarges by {own_scale} ({sidecar}: data.scale), asked for scale {scale}")
    else:
        with _naming(path):
            scale = scale or told_scale(state)
            config, state = published_config(state, scale), from_published(state)
    model = A2N(config, scale)
    load_exactly(model, state, origin=str(path))
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.eval()


def _is_own(tensors: Mapping[str, Tensor], path: Path) -> bool:
    """True for weights under our names, which need a config.json; false for those of a released A2N.

    Raises:
        CheckpointError: they are neither.
    """
    if tensors.keys() >= _OWN:
        return True
    if path.suffix == ".safetensors" and (path.parent / "config.json").exists() and not is_published(tensors):
        return True  # what does not fit is told when the network is filled
    with _naming(path):
        require_published(tensors)
    return False


def _read_tensors(path: Path, note: Note) -> dict[str, Tensor]:
    """The file's tensors as float32, by the names that they have there without a trainer's prefix."""
    if path.suffix.lower() not in _SUFFIXES:
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder; name the file in it")
        raise CheckpointError(f"{path}: expected weights as .safetensors, or as released in .pt or .pth")
    content = _bytes(path)
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: is a pointer of git-lfs and not the weights themselves; fetch them with: git lfs pull"
        )
    if _is_safetensors(content, path):
        found = unwrapped(_load_safetensors(content, path))
    else:
        loaded = _load_pickled(content, path)
        with _naming(path):
            found = unwrapped(loaded)
    _is_own(found.tensors, path)  # of another network nothing else is said
    with _naming(path):
        tensors = {name: _as_float32(name, tensor) for name, tensor in found.tensors.items()}
        check_finite(tensors)
    if found.note:
        note(f"{path}: {found.note}")
    return tensors


def _is_safetensors(content: bytes, path: Path) -> bool:
    """Whatever the name says: the length of a JSON header, and the header."""
    header = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and header <= len(content) - 8:
        return True
    return path.suffix == ".safetensors" and not content.startswith((b"PK", b"\x80"))


def _load_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(content)
    except SafetensorError as exc:
        reason = "it is empty" if not content else _text_in(content) or str(exc)
        raise CheckpointError(f"{path}: not a whole safetensors file ({reason}); copy or train it again") from exc


def _load_pickled(content: bytes, path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that torch did not write: the error says so, in one line
            return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as exc:  # a damaged pickle is a damaged program: what it raises has no list
        kind = type(exc).__name__ if content else "empty"
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors ({kind}): {_why_not_loaded(content, exc)}"
        ) from exc


def _why_not_loaded(content: bytes, exc: Exception) -> str:
    """What the file is instead, and what to do."""
    alone = "save the tensors alone where it was made: torch.save(model.state_dict(), FILE)"
    if not content:
        return "the file has 0 bytes; copy or download it again"
    if text := _text_in(content):
        return f"{text}; download the weights themselves"
    if content.startswith(b"PK"):
        members = _members(content)
        if members is None:
            return "a damaged zip archive; copy or download it again"
        if "constants.pkl" in members:
            return f"a TorchScript archive, which is a program; {alone}"
        if "data.pkl" not in members:
            return "a zip archive that torch.save did not write; unpack it and give the weights in it"
    if type(exc).__name__ == "UnpicklingError":  # of a library that nothing here imports
        needed = re.search(r"(?:GLOBAL |unsupported class |function )`?([\w.]+\.\w+)", str(exc))
        code = f"code ({needed[1]})" if needed else "code"
        return f"if whole, it needs {code} that is not run here; {alone}"
    return "expected a released state dict"


def _members(content: bytes) -> list[str] | None:
    """Names of the files in a zip archive, without their folders; None if its table of contents is damaged."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return [name.rpartition("/")[2] for name in archive.namelist()]
    except Exception:  # zipfile raises BadZipFile, UnicodeDecodeError, NotImplementedError, struct.error, …
        return None


def _text_in(content: bytes) -> str:
    """How a text file begins, in words; empty for a file that is not text."""
    try:
        text = content[:200].decode("utf-8", "strict" if len(content) <= 200 else "ignore")
    except UnicodeDecodeError:
        return ""
    line = text.strip().partition("\n")[0].strip()
    return f"a text file that begins with {line[:60]!r}" if line and text.replace("\n", " ").isprintable() else ""


def _as_float32(name: str, tensor: Tensor) -> Tensor:
    """Half, bfloat16 and float64 become float32, which is what a network computes with."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        kind = str(tensor.dtype).removeprefix("torch.")
        how = "" if tensor.layout == torch.strided else f" {str(tensor.layout).removeprefix('torch.')}"
        raise CheckpointError(f"tensor {name} holds {kind}{how} values; expected floating-point numbers, dense")
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
def _naming(origin: object) -> Iterator[None]:
    try:
        yield
    except CheckpointError as exc:
        raise CheckpointError(f"{origin}: {exc}") from exc


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_AT_MOST]) + (", …" if len(names) > _NAMED_AT_MOST else "")
