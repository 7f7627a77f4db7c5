"""Saves and loads weights and checkpoints as safetensors files.

Files are written atomically: to a temporary file, which is synced and then renamed. Loading never executes code.
"""

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
"""Version of the checkpoint file layout."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the model by name, contiguous and on the CPU."""
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in model.state_dict().items()}


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """The SHA-256 digest of the names, types, shapes and bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the weights of the model to a file and return their digest."""
    weights = weights_of(model)
    write_durably(path, save_tensors(weights))
    return digest_of(weights)


@dataclass(frozen=True, slots=True)
class Mark:
    """The config and the owner that a checkpoint belongs to."""

    config: str
    """The hash of the trial's complete config."""
    epoch: int
    """The number of the owner that writes it. Each later owner of a study has a larger number."""
    fence: Path | None = None
    """A folder of files named after the epochs of their owners, or a file with the epoch of the current owner
    (`put_fence`). None if there cannot be another owner."""

    def check(self) -> None:
        """Check that no later owner exists, whose checkpoints this owner must not overwrite.

        Raises:
            TakenOverError: a later owner exists.
        """
        if self.fence is None:
            return
        current = _epoch_of(self.fence)
        if current > self.epoch:
            raise TakenOverError(f"{self.fence}: owner {current} is newer than this one ({self.epoch})")


def put_fence(path: Path, epoch: int) -> None:
    """Prevent earlier owners from writing any more checkpoints, even if no checkpoint exists yet."""
    write_durably(path, f"{epoch}\n".encode())


def _epoch_of(fence: Path) -> int:
    if fence.is_dir():
        return newest_epoch(fence)
    try:
        return int(fence.read_text())
    except FileNotFoundError:  # a machine that does not share the root, on which only the coordinator writes the file
        return 0


def save_checkpoint(path: Path, state: TrainState, mark: Mark) -> None:
    """Write everything that is needed to resume the run exactly. The run itself is not changed.

    Raises:
        TakenOverError: a later owner exists, or the existing checkpoint was written by one.
    """
    mark.check()
    existing = _epoch_at(path)
    if existing > mark.epoch:
        raise TakenOverError(f"{path}: written by owner {existing}, newer than this one ({mark.epoch})")

    tensors: dict[str, Tensor] = {"loss_sum": state.loss_sum.to("cpu")}
    tensors |= {f"model/{name}": tensor for name, tensor in weights_of(state.model).items()}
    tensors |= {f"average/{name}": tensor for name, tensor in weights_of(state.average.model).items()}
    steps = 0
    for name, parameter in state.model.named_parameters():
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
    """Restore a newly started run to the state of the checkpoint, bit for bit.

    Raises:
        CheckpointError: the file is missing, damaged, or belongs to another config.
        TakenOverError: the checkpoint was written by a later owner.
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
            # A fused optimiser keeps its step count as float32 on the device of the parameter.
            steps = torch.tensor(float(header["steps"]), dtype=torch.float32, device=parameter.device)
            moments = {"step": steps}
            for key in ("exp_avg", "exp_avg_sq"):
                moments[key] = torch.empty_like(parameter).copy_(tensors[f"adam/{key}/{name}"])
            state.optimizer.state[parameter] = moments
        state.loss_sum.copy_(tensors["loss_sum"])
    except (KeyError, RuntimeError) as exc:
        raise CheckpointError(f"{path}: does not fit this network ({exc}); remove the file") from exc
    state.patches = header["patches"]
    state.loss_steps = header["loss_steps"]


def _epoch_at(path: Path) -> int:
    """The epoch of the owner that wrote the existing checkpoint. 0 if there is none or it cannot be read."""
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes))
        return int(json.loads(header["__metadata__"]["state"])["epoch"])
    except (OSError, LookupError, TypeError, ValueError, OverflowError, MemoryError):
        return 0


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a checkpoint.

    Raises:
        CheckpointError: the file is missing or damaged, or has another layout.
    """
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
