"""Checks on an NVIDIA GPU that give a number and are not tests (for those: pytest -m gpu). One line per check.

    DEVICE=cuda:0 python benchmarks/gpu_checks.py

DEVICE=cpu rehearses the checks in tiny sizes.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.metrics.evaluate import score
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.validation import validation_crops
from sr_core.store.hdf5 import PatchStore
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images
from sr_core.training.choice import choose
from sr_core.training.compiled import can_compile
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.scoring import CropScorer
from sr_core.training.step import Batches, Step, TrainState, start

DEVICE = os.environ.get("DEVICE", "cuda:0")
ON_CPU = DEVICE == "cpu"
SMALL = ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2)
FULL = SMALL if ON_CPU else ModelConfig()
DATA = DataConfig(scale=2, lr_patch_size=16 if ON_CPU else 64)
TRAIN = TrainConfig(batch_size=2 if ON_CPU else 32, budget_patches=32 * 2000, learning_rate=5e-4, schedule="constant")


def plain() -> Runtime:
    """Returns the eager fp32 runtime of DEVICE."""
    return resolve(device=None if ON_CPU else DEVICE)


def engines() -> dict[str, Runtime]:
    """Returns eager fp32 and every faster runtime of this machine, by name, the fastest last."""
    eager = plain()
    runtimes = {"eager fp32": eager, "eager bf16": replace(eager, precision="bf16")}
    if ON_CPU:
        return runtimes
    captured = replace(eager, engine="graphed", precision="bf16")
    runtimes["captured bf16"] = captured
    if can_compile(DEVICE):
        runtimes["captured, compiled bf16"] = replace(captured, compiled=True)
    return runtimes


def noise(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns LR and HR patches of noise, (N, 3, H, W), uint8. HR repeats each LR pixel."""
    lr = np.random.default_rng(first).integers(
        0, 256, (count, 3, DATA.lr_patch_size, DATA.lr_patch_size), dtype=np.uint8
    )
    return lr, np.repeat(np.repeat(lr, 2, axis=2), 2, axis=3)


def wait() -> None:
    if not ON_CPU:
        torch.cuda.synchronize()


def begin(model: ModelConfig, train: TrainConfig, runtime: Runtime, seed: int = 0) -> TrainState:
    """Returns the state of a new training of an x2 network."""
    runtime.apply()
    network = A2N(model, 2)
    initialise(network, seed)
    return start(network, train, runtime)


def losses(
    model: ModelConfig,
    train: TrainConfig,
    runtime: Runtime,
    batches: Batches,
    *,
    steps: int,
    points: int,
    seed: int = 0,
) -> tuple[list[float], TrainState]:
    """Trains for `steps` steps. Returns the mean losses of `points` equal parts of it, and the final state."""
    state = begin(model, train, runtime, seed)
    step = Step(state, train, runtime, batches)
    mean_losses = []
    for _ in range(points):
        for _ in range(steps // points):
            step()
        mean_losses.append(state.mean_loss)
        state.loss_sum.zero_()
        state.loss_steps = 0
    return mean_losses, state


def first_losses(_: PatchStore) -> str:
    """Compares the first losses in fp32, without TF32, with those of the CPU."""
    train = replace(TRAIN, batch_size=2 if ON_CPU else 8)
    runs = [losses(SMALL, train, runtime, noise, steps=10, points=10)[0] for runtime in (resolve(), plain())]
    gap = max(abs(a - b) / abs(a) for a, b in zip(*runs, strict=True))
    assert gap < 1e-3, f"losses differ by {gap:.1e}: {runs}"
    return f"ten steps as on the CPU: largest relative difference of the loss {gap:.1e}"


def validation(store: PatchStore) -> str:
    """Compares scores computed on the device with those of the NumPy reference."""
    pixels = store.validation_pixels(2, "matlab_bicubic")
    crops = validation_crops(pixels.names, pixels.lr, pixels.hr, scale=2, crops=6, lr_crop_size=96)
    runtime = plain()
    network = begin(SMALL, TRAIN, runtime).model.eval()
    scored = CropScorer(crops, scale=2, protocol="canonical", runtime=runtime)(network)
    gaps = []
    for crop, (_, on_device) in zip(crops, scored, strict=True):
        reference = score(super_resolve(network, crop.lr), crop.hr, scale=2, protocol="canonical")  # type: ignore[arg-type]
        gaps.append((abs(on_device.psnr - reference.psnr), abs(on_device.ssim - reference.ssim)))
    psnr, ssim = (max(column) for column in zip(*gaps, strict=True))
    return f"six crops scored on the device: PSNR within {psnr:.1e} dB, SSIM within {ssim:.1e} of NumPy's"


def chosen(_: PatchStore) -> str:
    """Reports the engine that the suite chooses for a short and for a long training."""
    device = None if ON_CPU else DEVICE
    budgets = (100,) if ON_CPU else (100_000, 16_000_000)
    choices = []
    for patches in budgets:
        runtime = choose(FULL, DATA, TRAIN, device=device, patches=patches)
        compiled = " and compiled" if runtime.compiled else ""
        choices.append(f"{patches:,} patches: {runtime.engine}{compiled}, {runtime.precision}")
    return "; ".join(choices)


def _small_network_seconds(steps: int) -> float:
    """Returns the seconds of that many steps of the quickstart's network in this process, after a warm-up."""
    train = TrainConfig(batch_size=16, budget_patches=16 * 1_000_000)
    runtime = plain() if ON_CPU else replace(plain(), engine="graphed", precision="bf16")
    lr = np.random.default_rng(0).integers(0, 256, (16, 3, 24, 24), dtype=np.uint8)
    batch = torch.from_numpy(lr).to(DEVICE), torch.from_numpy(lr.repeat(2, 2).repeat(2, 3)).to(DEVICE)
    step = Step(begin(SMALL, train, runtime), train, runtime, lambda first, count: batch)
    begun = 0.0
    for number in range(steps + 20):
        if number == 20:
            wait()
            begun = time.perf_counter()
        step()
    wait()
    return time.perf_counter() - begun


def two_trainings_at_once(_: PatchStore) -> str:
    """Compares two small trainings at once with one. Each has a process of its own, as slots have."""
    steps = 5 if ON_CPU else 3000
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_small_network_seconds, [20, 20]))  # afterwards both processes are warm
        alone = pool.submit(_small_network_seconds, steps).result()
        both = max(pool.map(_small_network_seconds, [steps, steps]))
    return f"two trials of the quickstart's network at once: {2 * alone / both:.2f} times the throughput of one"


CHECKS: tuple[Callable[[PatchStore], str], ...] = (first_losses, validation, chosen, two_trainings_at_once)


def main() -> int:
    """Runs every check, also after a failed one. Returns the number of failures."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        lr = [(split, 2, "matlab_bicubic") for split in ("train", "valid")]
        store = prepare_store(Path(scratch) / "store.h5", embedded_images(), lr, known=KnownImages())  # type: ignore[arg-type]
        for check in CHECKS:
            try:
                print(f"- {check.__name__}: {check(store)}", flush=True)
            except Exception as exc:  # the other checks still run
                failed += 1
                print(f"- FAILED {check.__name__}: {type(exc).__name__}: {exc}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
