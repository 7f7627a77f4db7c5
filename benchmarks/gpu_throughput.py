"""Measures the patches per second of every network on a GPU, captured in bf16. Each row is printed once measured.

python benchmarks/gpu_throughput.py [--device cuda:0] [--out DIR]
"""

import gc
import json
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from gpu_profile import prepared

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.runtime import Runtime
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, start

QUICKSTART = ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2, temperature=1.0)
TINY = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1)

# Name, network, scale, LR patch, batch. The most important rows come first, because time may run out.
NETWORKS: list[tuple[str, ModelConfig, int, int, int]] = [
    ("A2N x2", ModelConfig(), 2, 64, 32),
    ("A2N-M x2", ModelConfig(non_attention_kernel_size=1), 2, 64, 32),
    ("quickstart x2", QUICKSTART, 2, 24, 16),
    ("A2N x4", ModelConfig(), 4, 64, 32),
    ("A2N x3", ModelConfig(), 3, 64, 32),
    ("A2N-M x4", ModelConfig(non_attention_kernel_size=1), 4, 64, 32),
    ("A2N x2, batch 128", ModelConfig(), 2, 64, 128),
]


class Noise:
    """One batch of noise on the device, used for every step."""

    def __init__(self, data: DataConfig, batch: int, device: str) -> None:
        generator = np.random.default_rng(0)
        sides = data.lr_patch_size, data.lr_patch_size * data.scale
        arrays = [generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8) for side in sides]
        self._lr, self._hr = (torch.from_numpy(array).permute(0, 3, 1, 2).to(device) for array in arrays)

    def __call__(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._lr, self._hr

    def at(self, first: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._lr, self._hr


def row(name: str, model: ModelConfig, scale: int, side: int, batch: int, runtime: Runtime) -> dict[str, object]:
    """Returns the measurements of one network.

    Args:
        side: of the LR patches, in pixels.
    """
    data = DataConfig(scale=scale, lr_patch_size=side)  # type: ignore[arg-type]
    train = TrainConfig(batch_size=batch, budget_patches=batch * 100_000)
    network = A2N(model, scale)  # type: ignore[arg-type]
    initialise(network, 0)
    step = Step(start(network, train, runtime), train, runtime, Noise(data, batch, runtime.device))
    cuda = runtime.device != "cpu"

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(count):
            step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    warm = seconds(STEPS_BEFORE_CAPTURE + 2)
    count = 100 if cuda else 1
    typical = statistics.median(seconds(count) / count for _ in range(3))
    return {
        "network": name,
        "batch": batch,
        "LR": side,
        "ms a step": 1e3 * typical,
        "patches/s": batch / typical,
        "warm after [s]": warm,
        "peak [GB]": torch.cuda.max_memory_reserved() / 1e9 if cuda else None,
        "parts": step.micro_batch,
    }


def main() -> None:
    out, runtime = prepared(__doc__)
    on_cpu = runtime.device == "cpu"
    print("| network | batch | LR | ms per step | patches/s | peak [GB] |\n|---|---:|---:|---:|---:|---:|", flush=True)
    for name, model, scale, side, batch in NETWORKS:
        if on_cpu:
            model = replace(TINY, non_attention_kernel_size=model.non_attention_kernel_size)
            side = 12
            batch = 2
        result = row(name, model, scale, side, batch, runtime)
        with (out / "throughput.jsonl").open("a") as file:
            file.write(json.dumps(result | {"device": runtime.device_name, "torch": torch.__version__}) + "\n")
        peak = result["peak [GB]"] or float("nan")
        print(
            f"| {name} | {batch} | {side} | {result['ms a step']:.3f} | {result['patches/s']:.0f} | {peak:.1f} |",
            flush=True,
        )
        gc.collect()
        if not on_cpu:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
