"""Everything that waits for an NVIDIA GPU, in one process: checks first, then a table of training speed.

Needs torch, numpy, h5py, opencv, pillow and scikit-image, not Optuna nor MLflow. Usage: gpu_checks.py OUT_FOLDER
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.data.patches import LANES, draw
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training import fit as training
from sr_core.training.runtime import Runtime, resolve

DATA = DataConfig(lr_patch_size=64)
TRAIN = TrainConfig(batch_size=32, budget_patches=32 * 40, learning_rate=5e-4)


def check_patch_numbers() -> str:
    """The patch generator gives the same bits on the GPU as in NumPy."""
    k = np.arange(1_000_000, dtype=np.int64)
    for lane in range(LANES):
        there = draw(7, torch.from_numpy(k).cuda(), lane).cpu().numpy()
        assert (there == draw(7, k, lane)).all(), f"lane {lane} differs"
    return f"{LANES} lanes of {len(k):,} draws equal NumPy's"


def check_first_losses() -> str:
    """The first steps on the GPU follow those on the CPU to float32 rounding."""
    model = ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2)
    losses = [
        _losses(model, replace(TRAIN, batch_size=8, budget_patches=80), resolve(device=d)) for d in ("cpu", "cuda:0")
    ]
    gap = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    assert gap < 1e-3, f"losses part by {gap:.1e}: {losses}"
    return f"ten steps, largest relative difference of the loss {gap:.1e}"


def step_times() -> list[dict[str, object]]:
    """Median time of the eager fp32 step of the full A2N at x2, LR 64, batch 32, in both memory formats."""
    rows: list[dict[str, object]] = []
    for layout in ("contiguous", "channels_last"):
        runtime = replace(resolve(device="cuda:0"), memory_format=layout)
        times: list[float] = []
        _losses(ModelConfig(), TRAIN, runtime, times)
        seconds = float(np.median(times[10:]))
        rows.append({"engine": "eager fp32", "layout": layout, "ms": 1e3 * seconds, "patches_per_s": 32 / seconds})
    return rows


def _losses(model: ModelConfig, train: TrainConfig, runtime: Runtime, times: list[float] | None = None) -> list[float]:
    runtime.apply()
    generator = np.random.default_rng(0)
    side = DATA.lr_patch_size
    shape = (train.batch_size, 3, side, side)
    lr = generator.integers(0, 256, shape, dtype=np.uint8)
    hr = np.repeat(np.repeat(lr, 2, axis=2), 2, axis=3)
    network = A2N(model, 2)
    initialise(network, 0)
    state = training.start(network, train, runtime)
    losses = []
    while state.patches < train.budget_patches:
        begun = time.perf_counter()
        training.step(state, train, runtime, lambda first, count: (lr, hr))
        if runtime.device != "cpu":
            torch.cuda.synchronize()
        if times is not None:
            times.append(time.perf_counter() - begun)
        losses.append(state.mean_loss)
    return losses


def main(out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}", ""]
    for check in (check_patch_numbers, check_first_losses):
        lines.append(f"- {check.__name__}: {check()}")
    rows = step_times()
    lines += ["", "| engine | layout | ms a step | patches/s |", "|---|---|---|---|"]
    lines += [f"| {r['engine']} | {r['layout']} | {r['ms']:.2f} | {r['patches_per_s']:.0f} |" for r in rows]
    (out / "gpu.md").write_text("\n".join(lines) + "\n")
    (out / "gpu.json").write_text(json.dumps(rows, indent=2))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
