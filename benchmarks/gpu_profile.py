"""Profiles twenty steps of the full A2N: the CUDA calls of the host, and the time of each kernel on the device.

    python benchmarks/gpu_profile.py [--device cuda:0] [--out DIR]

The steps are captured in bf16. They are profiled twice: with patches drawn inside the graph, and outside of it.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.placement import open_patch_source
from sr_core.store.hdf5 import PatchStore
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, start

STEPS = 20
CALLS = ("launch", "memcpy", "memset", "synchronize")
"""CUDA calls with one of these words in their names are counted."""


def step_of(runtime: Runtime, store: PatchStore, *, in_graph: bool, tiny: bool) -> Callable[[], None]:
    """Returns a function that makes one step of the full A2N, or of a tiny network."""
    model = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1) if tiny else ModelConfig()
    data = DataConfig(scale=2, lr_patch_size=16 if tiny else 64)
    train = TrainConfig(batch_size=4 if tiny else 32, budget_patches=32_000)
    network = A2N(model, 2)
    initialise(network, 0)
    patches = open_patch_source(store, 2, runtime.device, "device").patches(data, 1).batch
    batches = patches if in_graph else lambda first, count: patches(first, count)
    return Step(start(network, train, runtime), train, runtime, batches)


def wait(runtime: Runtime) -> None:
    """Waits until the device has finished."""
    if runtime.device != "cpu":
        torch.cuda.synchronize()


def milliseconds(step: Callable[[], None], runtime: Runtime) -> tuple[float, float]:
    """Returns the milliseconds until a step is done, and until it is queued, without the profiler."""
    wait(runtime)
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    queued = time.perf_counter() - begun
    wait(runtime)
    return 1e3 * (time.perf_counter() - begun) / STEPS, 1e3 * queued / STEPS


def profiled(step: Callable[[], None], runtime: Runtime) -> list[Any]:
    """Returns the profiler's rows of STEPS steps."""
    activities = [ProfilerActivity.CPU]
    if runtime.device != "cpu":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            step()
        wait(runtime)
    return list(profiler.key_averages())


def calls(rows: list[Any]) -> Counter[str]:
    """Returns how often each CUDA call was made, including the wait at the end. On a CPU, operations are counted."""
    counts: Counter[str] = Counter()
    for row in rows:
        name = row.key.lower()
        if name.startswith(("cuda", "cu")) and any(word in name for word in CALLS):
            counts[row.key] += row.count
    return counts or Counter({row.key: row.count for row in rows if row.key.startswith("aten::")})


def device_us(row: Any) -> float:
    """Returns the microseconds of the device; 0 for a row of the host, where the profiler repeats its kernels' time."""
    if row.device_type == DeviceType.CPU or getattr(row, "is_user_annotation", False):
        return 0.0
    return float(row.self_device_time_total)


def prepared(documentation: str) -> tuple[Path, Runtime]:
    """Parses the arguments of a script and returns its output folder and settings, which are applied.

    Args:
        documentation: the script's docstring; its first line describes the command.
    """
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    runtime = resolve(device=None if args.device == "cpu" else args.device)
    if runtime.device != "cpu":
        runtime = replace(runtime, engine="graphed", precision="bf16")
    runtime.apply()
    return args.out, runtime


def main() -> None:
    out, runtime = prepared(__doc__)
    on_cpu = runtime.device == "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        store = prepare_store(
            Path(scratch) / "s.h5", embedded_images(), [("train", 2, "matlab_bicubic")], known=KnownImages()
        )
        for in_graph in (True, False):
            step = step_of(runtime, store, in_graph=in_graph, tiny=on_cpu)
            for _ in range(STEPS_BEFORE_CAPTURE + 3):
                step()
            done, queued = milliseconds(step, runtime)
            rows = profiled(step, runtime)
            busy = sum(map(device_us, rows)) / STEPS / 1e3
            where = "inside" if in_graph else "outside"
            print(
                f"- patches drawn {where} the graph: {done:.3f} ms per step, queued in {queued:.3f} ms; the device is "
                f"busy for {busy:.3f} ms of it"
            )
            per_step = [f"{number / STEPS:g} {name}" for name, number in calls(rows).most_common(12)]
            print(f"  - calls per step: {', '.join(per_step)}", flush=True)
            if in_graph:
                slowest = sorted(rows, key=device_us, reverse=True)[:25]
                kernels = [f"{device_us(row) / STEPS:9.1f} us {row.count / STEPS:6.1f} x  {row.key}" for row in slowest]
                (out / "profile.txt").write_text("\n".join(["Time per step, by kernel:", *kernels]) + "\n")
                print("\n".join(["", "```", *(line[:150] for line in kernels[:10]), "```", ""]), flush=True)


if __name__ == "__main__":
    main()
