"""The settings of a training on a machine, which decide the bits of a result but not the question (promise 2).

They are chosen once per study (`sr_core.training.choice`), written to its record, and restored by every resume and
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
"""Settings that depend on the machine. `Runtime.here` replaces them with those of this machine."""


def _unknown_on_a_gpu(settings: Mapping[str, Any]) -> str | None:
    return "" if settings["device"] == "cpu" else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The settings of a training. Equal settings give bitwise equal results if `deterministic` is true."""

    device: str
    """The torch device: "cpu", "cuda:0", or "cuda" for the current GPU of the process."""
    device_name: str
    """The model of the GPU. Empty on a CPU, which `cpu_capability` describes."""
    threads: int
    """Number of threads of a torch process."""
    memory_format: Literal["contiguous", "channels_last"]
    """Memory layout of weights and activations."""
    engine: Literal["eager", "compiled", "graphed"]
    """How a step is executed: kernel by kernel, with a compiled network, or captured once and replayed (CUDA only)."""
    compiled: bool = False
    """Whether the network is compiled. A captured step may use a compiled network or not."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Arithmetic of the network. "fp32" is exact on every device. "tf32" is fp32, except that a GPU's convolutions
    round their factors to 10 bits. Weights, loss, optimiser and validation always use fp32."""
    deterministic: bool = True
    """Whether all kernels give the same bits every time."""
    micro_batch: int = 0
    """The most patches of a batch that are processed at once, with summed gradients. 0 means all."""
    flush_subnormals: bool = since(2, implied=False, default=False)
    """Whether the CPU treats numbers below 1.2e-38 as 0, which makes some configurations several times as fast."""
    cpu_capability: str
    """The instruction set that torch's CPU kernels use, e.g. AVX2."""
    torch: str
    """The version of torch, including its build."""
    cudnn: str | None = since(2, implied=_unknown_on_a_gpu, default=cast("str | None", ""))
    """The version of cuDNN, the library for convolutions on a GPU. It may change without torch. Empty on a CPU."""

    def apply(self) -> None:
        """Apply these settings to this process.

        The setting for subnormal numbers applies to the calling thread and to the OpenMP threads that it starts later.
        Call this before the thread's first parallel operation, or in a new thread (`sr_core.training.own_thread`).

        Raises:
            ConfigError: an environment variable changes how the device computes.
        """
        check_environment(self.device)
        set_multiplication("tf32" if self.precision == "tf32" else "ieee")
        flush_subnormals(self.flush_subnormals)
        settle_vector_math()
        torch.set_num_threads(self.threads)
        if self.device == "cpu":
            keep_freed_memory()
        else:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it for determinism
            index = torch.device(self.device).index
            if index is not None:
                torch.cuda.set_device(index)  # the device of streams, events and graphs without an explicit device

        if self.compiled:
            torch.use_deterministic_algorithms(self.deterministic)
        else:  # the same except for a switch of the compiler, which takes two seconds to import
            torch.set_deterministic_debug_mode("error" if self.deterministic else "default")
        # Deterministic mode also fills new memory, so that reading it gives repeatable values. Nothing here reads it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = not self.deterministic

    def place(self, model: nn.Module) -> nn.Module:
        """The model on this device, in this memory format."""
        placed = model.to(self.device)
        if self.memory_format == "channels_last":
            placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
        return placed

    @property
    def layout(self) -> Any:
        """The memory format as a torch constant."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object, as a record stores them."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], *, format: int | None = None) -> "Runtime":
        """The settings in a record. Settings that an old record lacks get the values that the old code implied.

        Args:
            format: the format of the journal that contains the settings. All settings of that format must be present.
        Raises:
            ConfigError: a setting is unknown or missing.
        """
        values = fill(cls, stored, "recorded settings (runtime)", format=format)
        if values["cudnn"] is None and values["precision"] == "fp32":
            values["precision"] = "tf32"  # version 0.1 used tf32 on a GPU and called it fp32
        return cls(**values)

    def here(self) -> "Runtime":
        """The closest settings that this machine supports. It uses the CPU if the GPU does not exist."""
        device = self.device if _is_cuda_device(self.device) else None
        present = resolve(device=device, threads=self.threads)
        compiled = self.compiled and can_compile(present.device)
        engine = self.engine
        if engine == "graphed" and present.device == "cpu":
            engine = "compiled"
        if engine == "compiled" and not compiled:
            engine = "eager"
        precision = self.precision
        if precision == "tf32" and present.device == "cpu":
            precision = "fp32"
        return replace(
            self,
            device=present.device,
            device_name=present.device_name,
            engine=engine,
            compiled=compiled,
            precision=precision,
            flush_subnormals=self.flush_subnormals and can_flush(),
            cpu_capability=present.cpu_capability,
            torch=present.torch,
            cudnn=present.cudnn,
        )

    def unmet(self) -> list[str]:
        """Descriptions of the settings that this machine cannot restore. Empty if it can restore all of them.

        `unknown` describes the settings that the record does not contain.
        """
        here = self.here()
        descriptions = []
        for name in _NOT_RESTORED_EVERYWHERE:
            recorded = getattr(self, name)
            current = getattr(here, name)
            if recorded is not None and recorded != current:
                descriptions.append(f"{name} {_described(recorded)} then, {_described(current)} here")
        return descriptions

    def unknown(self) -> list[str]:
        """Descriptions of the settings that an old record does not contain although they affect the bits here.

        A value is None if the old code neither stored nor implied it. It is empty if it does not apply to the device.
        Bits may be equal, but they cannot be demanded.
        """
        here = self.here()
        descriptions = []
        for name in _NOT_RESTORED_EVERYWHERE:
            current = getattr(here, name)
            if getattr(self, name) is None and current:
                descriptions.append(f"{name} is not in the record, {current} here")
        return descriptions

    @property
    def promises_bits(self) -> bool:
        """True if equal settings give equal bits. Otherwise kernels may add numbers in any order."""
        return self.deterministic


def _described(value: object) -> object:
    return "none" if value == "" else value


def resolve(*, device: str | None = None, threads: int | None = None) -> Runtime:
    """The basic settings for this machine: eager and fp32, on a CPU also deterministic and without subnormal numbers.

    Args:
        device: a torch device. The CPU by default.
        threads: number of threads of a training. One per core by default.
    Raises:
        ConfigError: the device does not exist, or an environment variable changes how it computes.
    """
    selected = device or "cpu"
    if selected != "cpu" and not _is_cuda_device(selected):
        raise ConfigError(
            f"device {selected} is not available here ({torch.cuda.device_count()} CUDA devices); use cpu or cuda:N"
        )
    check_environment(selected)
    return Runtime(
        device=selected,
        device_name="" if selected == "cpu" else torch.cuda.get_device_name(selected),
        threads=threads or cores(),
        memory_format="channels_last",
        engine="eager",
        deterministic=selected == "cpu",
        flush_subnormals=selected == "cpu" and can_flush(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        cudnn="" if selected == "cpu" else str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    )


def gpu_models() -> list[str]:
    """The model names of all CUDA devices that this process may use."""
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _is_cuda_device(name: str) -> bool:
    try:
        device = torch.device(name)
    except RuntimeError:  # an unknown device type, or an index that is not a number
        return False
    return device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
