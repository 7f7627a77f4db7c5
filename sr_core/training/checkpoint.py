"""Weights and resumable state on disk: safetensors, written aside, synced, then renamed; never executed on load."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from sr_core.errors import CheckpointError, TakenOverError
from sr_core.process.durable import write_durably
from sr_core.process.locks import newest_epoch
from sr_core.training.step import TrainState

_LAYOUT = 1


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors by name, contiguous, on the CPU."""
    return {name: t.detach().to("cpu").contiguous() for name, t in model.state_dict().items()}


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names: equal if every bit is."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the model's weights; returns their digest."""
    weights = weights_of(model)
    write_durably(path, save_tensors(weights))
    return digest_of(weights)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a checkpoint belongs to."""

    config: str
    """Hash of the trial's complete config."""
    epoch: int
    """The owner's epoch when it was written."""
    fence: Path | None = None
    """A folder of files that are named by their owners' epochs, or a file that holds the present owner's (`put_fence`);
    None where there can be no other owner."""

    def check(self) -> None:
        """Raises TakenOverError if there is a later owner by now: what this one would write is not wanted any more."""
        if self.fence is not None and (now := _epoch_of(self.fence)) > self.epoch:
            raise TakenOverError(f"{self.fence}: owner {now} is newer than this one ({self.epoch})")


def put_fence(path: Path, epoch: int) -> None:
    """From now on nobody writes a checkpoint for an earlier owner, not even where there is none yet."""
    write_durably(path, f"{epoch}\n".encode())


def _epoch_of(fence: Path) -> int:
    if fence.is_dir():
        return newest_epoch(fence)
    try:
        return int(fence.read_text())
    except FileNotFoundError:  # as on a machine that does not share the root: there the coordinator alone writes it
        return 0


def save_checkpoint(path: Path, state: TrainState, mark: Mark) -> None:
    """Write all that an exact resumption needs; changes no bit of the run.

    Raises:
        TakenOverError: there is a later owner, or a later owner's checkpoint.
    """
    mark.check()
    if (there := _epoch_at(path)) > mark.epoch:
        raise TakenOverError(f"{path}: written by owner {there}, newer than this one ({mark.epoch})")
    named = dict(state.model.named_parameters())
    tensors: dict[str, Tensor] = {"loss_sum": state.loss_sum.to("cpu")}
    tensors |= {f"model/{name}": t for name, t in weights_of(state.model).items()}
    tensors |= {f"average/{name}": t for name, t in weights_of(state.average.model).items()}
    steps = 0
    for name, parameter in named.items():
        moments = state.optimizer.state[parameter]
        steps = int(moments["step"])
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"adam/{key}/{name}"] = moments[key].detach().to("cpu").contiguous()
    header = {
        "layout": _LAYOUT,
        "config": mark.config,
        "epoch": mark.epoch,
        "patches": state.patches,
        "steps": steps,
        "loss_steps": state.loss_steps,
        "digest": digest_of(tensors),
    }
    write_durably(path, save_tensors(tensors, metadata={"state": json.dumps(header, sort_keys=True)}))


def load_checkpoint(path: Path, state: TrainState, mark: Mark) -> None:
    """Bring a freshly started run to where the checkpoint was written, bit for bit.

    Raises:
        CheckpointError: the file is missing, damaged, or of another config.
        TakenOverError: it was written by a later owner.
    """
    header, tensors = _read(path)
    if header["config"] != mark.config:
        raise CheckpointError(f"{path}: belongs to config {header['config']}, not to {mark.config}; remove the file")
    if header["epoch"] > mark.epoch:
        raise TakenOverError(f"{path}: written by owner {header['epoch']}, newer than this one ({mark.epoch})")
    try:
        _fill(state.model, tensors, "model/")
        _fill(state.average.model, tensors, "average/")
        for name, parameter in state.model.named_parameters():
            state.optimizer.state[parameter] = {
                # A fused optimiser keeps its step count as float32 beside the parameter.
                "step": torch.tensor(float(header["steps"]), dtype=torch.float32, device=parameter.device),
                **{
                    key: torch.empty_like(parameter).copy_(tensors[f"adam/{key}/{name}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }
        state.loss_sum.copy_(tensors["loss_sum"])
    except (KeyError, RuntimeError) as exc:
        raise CheckpointError(f"{path}: does not fit this network ({exc}); remove the file") from exc
    state.patches = header["patches"]
    state.loss_steps = header["loss_steps"]


def _epoch_at(path: Path) -> int:
    """The owner's epoch of the checkpoint that is there; 0 if there is none, or none that can be read."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return int(json.loads(header["__metadata__"]["state"])["epoch"])
    except (OSError, LookupError, TypeError, ValueError, OverflowError, MemoryError):
        return 0


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        stored = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])
        if stored["layout"] != _LAYOUT:
            raise CheckpointError(f"{path}: expected checkpoint layout {_LAYOUT}, got {stored['layout']!r}")
        header = {name: stored[name] for name in ("config", "epoch", "patches", "steps", "loss_steps")}
        if stored["digest"] != digest_of(tensors):
            raise CheckpointError(f"{path}: does not match its checksum; remove the file to start over")
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path}: no such checkpoint") from exc
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path}: not a whole checkpoint ({exc}); remove the file to start over") from exc
    return header, tensors


@torch.no_grad()
def _fill(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    for name, parameter in model.state_dict(keep_vars=True).items():
        parameter.copy_(tensors[prefix + name])
