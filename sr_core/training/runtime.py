"""How a training runs on a machine: the settings that decide bits but not the question (contract 2).

They are resolved once per study (`sr_core.training.choice`), written to its record, and restored by every resume and
reproduction.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.utils.deterministic
from torch import nn

from sr_core.errors import ConfigError
from sr_core.process.floats import can_flush, flush_subnormals, settle_vector_math
from sr_core.process.machine import cores
from sr_core.process.precision import check_environment, set_multiplication
from sr_core.process.stored import fill, since
from sr_core.training.compiled import can_compile
from sr_core.training.memory import keep_freed_memory

_NOT_RESTORED_EVERYWHERE = (
    "device",
    "device_name",
    "engine",
    "compiled",
    "precision",
    "flush_subnormals",
    "cpu_capability",
    "torch",
    "cudnn",
)
"""Settings that a machine has or lacks; `Runtime.here` puts its own in their place."""


def _unknown_on_a_gpu(settings: Mapping[str, Any]) -> str | None:
    return "" if settings["device"] == "cpu" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Bits are promised where all of these are equal."""

    device: str
    """Torch device: "cpu", "cuda:0", or "cuda" for the one that this process computes on."""
    device_name: str
    """The accelerator's model; empty on a CPU, whose instruction set says enough."""
    threads: int
    """Threads of one torch process."""
    memory_format: Literal["contiguous", "channels_last"]
    """Layout of weights and activations."""
    engine: Literal["eager", "compiled", "graphed"]
    """How a step is executed: kernel by kernel; with the network compiled; or (CUDA) captured once and replayed."""
    compiled: bool = False
    """Whether the network is compiled; a captured step may do with or without."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Of the network's arithmetic: fp32 with all digits on every device; fp32 but for a GPU's convolutions, which round
    their factors to 10 bits (tf32); or bf16. Weights, loss, optimiser and validations are fp32."""
    deterministic: bool = True
    """Whether only kernels are used that give the same bits every time."""
    micro_batch: int = 0
    """The most patches of a batch that go through the network at once, 0 for all: gradients add up over the parts."""
    flush_subnormals: bool = since(2, implied=False, default=False)
    """Whether the CPU takes numbers below 1.2e-38 for zero; some configurations train several times as fast then."""
    cpu_capability: str
    """Instruction set that torch's CPU kernels use, e.g. AVX2."""
    torch: str
    """Version of the torch build."""
    cudnn: str | None = since(2, implied=_unknown_on_a_gpu, default=cast("str | None", ""))
    """Version of the library that computes a GPU's convolutions, which may be exchanged below an unchanged torch; empty
    on a CPU."""

    def apply(self) -> None:
        """Make this process compute under these settings.

        Subnormal numbers are a matter of the calling thread and of OpenMP threads that are born to it later: call this
        before its first parallel operation, or in a new thread (`sr_core.training.own_thread`).
        """
        check_environment(self.device)
        set_multiplication("tf32" if self.precision == "tf32" else "ieee")
        flush_subnormals(self.flush_subnormals)
        settle_vector_math()
        torch.set_num_threads(self.threads)
        if self.device == "cpu":
            keep_freed_memory()
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses to be deterministic
            if (index := torch.device(self.device).index) is not None:
                torch.cuda.set_device(index)  # where streams, events and graphs belong that do not name a device
        if self.compiled:
            torch.use_deterministic_algorithms(self.deterministic)
        else:  # the same, but for its compiler's own switch, which takes two seconds to import
            torch.set_deterministic_debug_mode("error" if self.deterministic else "default")
        # Deterministic mode also overwrites all fresh memory, to make reads of it repeatable: nothing here reads it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = not self.deterministic

    def place(self, model: nn.Module) -> nn.Module:
        """The model on this device in this memory format."""
        placed = model.to(self.device)
        if self.memory_format == "channels_last":
            placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
        return placed

    @property
    def layout(self) -> Any:
        """Torch's name for the memory format."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], *, format: int | None = None) -> "Runtime":
        """The settings that a record holds; those that it is too old to name as older code implied them.

        Args:
            format: of the journal that holds them, whose settings have to be all there.
        Raises:
            ConfigError: a setting is unknown or missing.
        """
        values = fill(cls, stored, "recorded settings (runtime)", format=format)
        if values["cudnn"] is None and values["precision"] == "fp32":
            values["precision"] = "tf32"  # what version 0.1 called fp32 on a GPU
        return cls(**values)

    def here(self) -> "Runtime":
        """The nearest to these settings that this machine can restore: on the CPU where it lacks the GPU."""
        present = resolve(device=self.device if _is_cuda_device(self.device) else None, threads=self.threads)
        compiled = self.compiled and can_compile(present.device)
        engine = self.engine
        if engine == "graphed" and present.device == "cpu":
            engine = "compiled"
        if engine == "compiled" and not compiled:
            engine = "eager"
        return replace(
            self,
            device=present.device,
            device_name=present.device_name,
            engine=engine,
            compiled=compiled,
            precision="fp32" if self.precision == "tf32" and present.device == "cpu" else self.precision,
            flush_subnormals=self.flush_subnormals and can_flush(),
            cpu_capability=present.cpu_capability,
            torch=present.torch,
            cudnn=present.cudnn,
        )

    def unmet(self) -> list[str]:
        """Settings that this machine cannot restore, in words; empty where it can restore all.

        Those that nobody knows any more are told by `unknown`.
        """
        here = self.here()
        return [
            f"{name} {_spoken(getattr(self, name))} then, {_spoken(getattr(here, name))} here"
            for name in _NOT_RESTORED_EVERYWHERE
            if getattr(self, name) is not None and getattr(self, name) != getattr(here, name)
        ]

    def unknown(self) -> list[str]:
        """Settings that the record is too old to name and that decide bits here, in words.

        A field's value is None if older code neither stored nor implied it, and empty if it does not apply to the
        device. Bits may be equal, and cannot be demanded.
        """
        here = self.here()
        return [
            f"{name} is not in the record, {getattr(here, name)} here"
            for name in _NOT_RESTORED_EVERYWHERE
            if getattr(self, name) is None and getattr(here, name)
        ]

    @property
    def promises_bits(self) -> bool:
        """Whether equal settings give equal bits; else kernels are free to add in any order."""
        return self.deterministic


def _spoken(value: object) -> object:
    return "none" if value == "" else value


def resolve(*, device: str | None = None, threads: int | None = None) -> Runtime:
    """Plain settings on this machine: eager, fp32; on the CPU deterministic, and without subnormal numbers if it can.

    Args:
        device: a torch device; by default the CPU.
        threads: of one training; by default one per core.
    Raises:
        ConfigError: there is no such device, or an environment variable changes how it computes.
    """
    chosen = device or "cpu"
    if chosen != "cpu" and not _is_cuda_device(chosen):
        raise ConfigError(
            f"device {chosen} is not available here ({torch.cuda.device_count()} CUDA devices); use cpu or cuda:N"
        )
    check_environment(chosen)
    return Runtime(
        device=chosen,
        device_name="" if chosen == "cpu" else torch.cuda.get_device_name(chosen),
        threads=threads or cores(),
        memory_format="channels_last",
        engine="eager",
        deterministic=chosen == "cpu",
        flush_subnormals=chosen == "cpu" and can_flush(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        cudnn="" if chosen == "cpu" else str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    )


def gpu_models() -> list[str]:
    """The model of each CUDA device that this process may use."""
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _is_cuda_device(name: str) -> bool:
    try:
        device = torch.device(name)
    except RuntimeError:  # no such kind of device, or not a number
        return False
    return device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
