"""What is worth a number on an NVIDIA GPU and is no test (those: pytest -m gpu): one line a check.

    DEVICE=cuda:0 python benchmarks/gpu_checks.py

DEVICE=cpu rehearses it in tiny sizes.
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
    return resolve(device=None if ON_CPU else DEVICE)


def engines() -> dict[str, Runtime]:
    """Eager fp32, and every faster way that this machine has."""
    eager = plain()
    if ON_CPU:
        return {"eager fp32": eager, "eager bf16": replace(eager, precision="bf16")}
    captured = replace(eager, engine="graphed", precision="bf16")
    found = {"eager fp32": eager, "eager bf16": replace(eager, precision="bf16"), "captured bf16": captured}
    return found | ({"captured, compiled bf16": replace(captured, compiled=True)} if can_compile(DEVICE) else {})


def noise(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    lr = np.random.default_rng(first).integers(
        0, 256, (count, 3, DATA.lr_patch_size, DATA.lr_patch_size), dtype=np.uint8
    )
    return lr, np.repeat(np.repeat(lr, 2, axis=2), 2, axis=3)


def wait() -> None:
    if not ON_CPU:
        torch.cuda.synchronize()


def begin(model: ModelConfig, train: TrainConfig, runtime: Runtime, seed: int = 0) -> TrainState:
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
    """Mean losses of `points` equal stretches of the training."""
    state = begin(model, train, runtime, seed)
    step, found = Step(state, train, runtime, batches), []
    for _ in range(points):
        for _ in range(steps // points):
            step()
        found.append(state.mean_loss)
        state.loss_sum.zero_()
        state.loss_steps = 0
    return found, state


def first_losses(_: PatchStore) -> str:
    """In fp32, which uses no TF32."""
    train = replace(TRAIN, batch_size=2 if ON_CPU else 8)
    runs = [losses(SMALL, train, runtime, noise, steps=10, points=10)[0] for runtime in (resolve(), plain())]
    gap = max(abs(a - b) / abs(a) for a, b in zip(*runs, strict=True))
    assert gap < 1e-3, f"losses part by {gap:.1e}: {runs}"
    return f"ten steps follow the CPU's, largest relative difference of the loss {gap:.1e}"


def validation(store: PatchStore) -> str:
    pixels = store.validation_pixels(2, "matlab_bicubic")
    crops = validation_crops(pixels.names, pixels.lr, pixels.hr, scale=2, crops=6, lr_crop_size=96)
    runtime = plain()
    network = begin(SMALL, TRAIN, runtime).model.eval()
    found = CropScorer(crops, scale=2, protocol="canonical", runtime=runtime)(network)
    gaps = []
    for crop, (_, here) in zip(crops, found, strict=True):
        reference = score(super_resolve(network, crop.lr), crop.hr, scale=2, protocol="canonical")  # type: ignore[arg-type]
        gaps.append((abs(here.psnr - reference.psnr), abs(here.ssim - reference.ssim)))
    psnr, ssim = (max(column) for column in zip(*gaps, strict=True))
    return f"six crops scored on the device: PSNR within {psnr:.1e} dB, SSIM within {ssim:.1e} of NumPy's"


def chosen(_: PatchStore) -> str:
    device = None if ON_CPU else DEVICE
    budgets = (100,) if ON_CPU else (100_000, 16_000_000)
    found = {n: choose(FULL, DATA, TRAIN, device=device, patches=n) for n in budgets}
    return "; ".join(
        f"{n:,} patches: {r.engine}{' and compiled' * r.compiled}, {r.precision}" for n, r in found.items()
    )


def _small_network_seconds(steps: int) -> float:
    """Of that many steps of the quickstart's network in this process, warm."""
    train = TrainConfig(batch_size=16, budget_patches=16 * 1_000_000)
    runtime = plain() if ON_CPU else replace(plain(), engine="graphed", precision="bf16")
    lr = np.random.default_rng(0).integers(0, 256, (16, 3, 24, 24), dtype=np.uint8)
    there = torch.from_numpy(lr).to(DEVICE), torch.from_numpy(lr.repeat(2, 2).repeat(2, 3)).to(DEVICE)
    step = Step(begin(SMALL, train, runtime), train, runtime, lambda first, count: there)
    begun = 0.0
    for number in range(steps + 20):
        if number == 20:
            wait()
            begun = time.perf_counter()
        step()
    wait()
    return time.perf_counter() - begun


def beside(_: PatchStore) -> str:
    """Two small trainings at once against one: in processes of their own, as slots are."""
    steps = 5 if ON_CPU else 3000
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_small_network_seconds, [20, 20]))  # both processes are up and warm
        alone = pool.submit(_small_network_seconds, steps).result()
        both = max(pool.map(_small_network_seconds, [steps, steps]))
    return f"two trials of the quickstart's network at once: {2 * alone / both:.2f} times the throughput of one"


CHECKS: tuple[Callable[[PatchStore], str], ...] = (first_losses, validation, chosen, beside)


def main() -> int:
    """Every check, whatever the others come to; the number of those that failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        lr = [(split, 2, "matlab_bicubic") for split in ("train", "valid")]
        store = prepare_store(Path(scratch) / "store.h5", embedded_images(), lr, known=KnownImages())  # type: ignore[arg-type]
        for check in CHECKS:
            try:
                print(f"- {check.__name__}: {check(store)}", flush=True)
            except Exception as exc:  # the next check is worth its time all the same
                failed += 1
                print(f"- FAILED {check.__name__}: {type(exc).__name__}: {exc}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
