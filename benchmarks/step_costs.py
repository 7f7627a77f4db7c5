"""Lower bounds for the time of a training step: its bytes and operations, divided by what the device reaches."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sr_core.config import ModelConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, as if each were a kernel of its own. Views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__ and "detach" not in func.__name__:
            tensors = [
                t for t in (*tree_leaves(args), *tree_leaves(kwargs), *tree_leaves(out)) if isinstance(t, Tensor)
            ]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def traffic_of(device: str, precision: str, batch: int, side: int, floors: dict[str, float]) -> dict[str, float]:
    """Returns GFLOP and GB of a step's forward and backward pass at x2, and the milliseconds that the floors imply.

    Args:
        side: of the LR patches, in pixels.
        floors: the result of `floors` for this device and precision.
    """
    network = A2N(ModelConfig(), 2)
    initialise(network, 0)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    lr = torch.rand(batch, 3, side, side, device=device)
    hr = torch.rand(batch, 3, 2 * side, 2 * side, device=device)

    def step() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            sr = network(lr)
        (sr - hr).abs().mean().backward()

    step()
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    operations = flops.get_total_flops()
    moved = traffic.bytes
    return {
        "GFLOP": operations / 1e9,
        "GB": moved / 1e9,
        "memory ms": moved / floors["GB/s"] / 1e6,
        "compute ms": operations / floors["GFLOP/s"] / 1e6,
    }


def floors(device: str, precision: str) -> dict[str, float]:
    """Returns the throughput of a large copy and of a large matrix product of this precision."""
    on_cpu = device == "cpu"
    size = 1 << 26 if on_cpu else 1 << 30
    side = 3072 if on_cpu else 16384
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.rand(side, side, device=device).to(kind)
    copy = fastest(lambda: target.copy_(source), device)
    product = fastest(lambda: left @ left, device)
    return {"GB/s": 2 * size / copy / 1e9, "GFLOP/s": 2 * side**3 / product / 1e9}


def fastest(work: Callable[[], object], device: str) -> float:
    """Returns the seconds of the fastest of ten calls."""
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times)
