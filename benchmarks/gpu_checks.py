"""Everything about training that has to be right on an NVIDIA GPU: one line a check, and the curves of the losses.

Needs torch, numpy, h5py, opencv, pillow and scikit-image, not Optuna nor MLflow. Usage: gpu_checks.py OUT_FOLDER
"""

import json
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
from sr_core.data.homes import open_home
from sr_core.data.known import KnownPictures
from sr_core.data.patches import LANES, draw
from sr_core.data.preparation import prepare_store
from sr_core.data.sources import embedded_pictures
from sr_core.data.store import PatchStore
from sr_core.data.validation import validation_crops
from sr_core.metrics.evaluate import score
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.checkpoint import Mark, load_checkpoint, save_checkpoint, weights_of
from sr_core.training.choice import choose
from sr_core.training.compiled import can_compile
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.scoring import CropScorer
from sr_core.training.step import Batches, Step, TrainState, start

DEVICE = "cuda:0"
DATA = DataConfig(scale=2, lr_patch_size=64)
TRAIN = TrainConfig(batch_size=32, budget_patches=32 * 2000, learning_rate=5e-4, schedule="constant")
SMALL = ModelConfig(n_feats=24, upsampler_feats=16, n_blocks=2)
CURVE_STEPS, CURVE_POINTS = 2000, 20


def engines() -> dict[str, Runtime]:
    """Eager fp32, and every faster way that this machine has."""
    eager = resolve(device=DEVICE)
    captured = replace(eager, engine="graphed", precision="bf16")
    found = {"eager fp32": eager, "eager bf16": replace(eager, precision="bf16"), "captured bf16": captured}
    return found | ({"captured, compiled bf16": replace(captured, compiled=True)} if can_compile(DEVICE) else {})


def noise(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    lr = np.random.default_rng(first).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    return lr, np.repeat(np.repeat(lr, 2, axis=2), 2, axis=3)


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


def patch_numbers(_: PatchStore) -> str:
    k = np.arange(1_000_000, dtype=np.int64)
    for lane in range(LANES):
        there = draw(7, torch.from_numpy(k).to(DEVICE), lane).cpu().numpy()
        assert (there == draw(7, k, lane)).all(), f"lane {lane} differs"
    return f"{LANES} lanes of {len(k):,} draws equal NumPy's"


def patches(store: PatchStore) -> str:
    on_gpu, on_host = (open_home(store, 2, DEVICE, name).patches(DATA, 3) for name in ("device", "host"))  # type: ignore[arg-type]
    for first in range(0, 640, 32):
        for there, here in zip(on_gpu.batch(first, 32), on_host.batch(first, 32), strict=True):
            assert np.array_equal(there.cpu().numpy(), here), f"patches {first} to {first + 31} differ"
    return "640 patches of the device home equal the host's in every sample"


def first_losses(_: PatchStore) -> str:
    """fp32 in earnest: cuDNN's TF32 is off here."""
    torch.backends.cudnn.allow_tf32 = False
    train = replace(TRAIN, batch_size=8)
    runs = [losses(SMALL, train, resolve(device=d), noise, steps=10, points=10)[0] for d in (None, DEVICE)]
    torch.backends.cudnn.allow_tf32 = True
    gap = max(abs(a - b) / abs(a) for a, b in zip(*runs, strict=True))
    assert gap < 1e-3, f"losses part by {gap:.1e}: {runs}"
    return f"ten steps follow the CPU's, largest relative difference of the loss {gap:.1e}"


def bits(_: PatchStore) -> str:
    for name, runtime in engines().items():
        fixed = replace(runtime, deterministic=True)
        first, second = (losses(SMALL, TRAIN, fixed, noise, steps=20, points=1)[1] for _ in range(2))
        for (key, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name}: {key} differs between two deterministic runs"
    return f"deterministic: 20 steps twice give the same bits ({', '.join(engines())})"


def resumed(_: PatchStore) -> str:
    """A run that goes on from its checkpoint takes its first steps kernel by kernel, where the other replays."""
    for name, runtime in engines().items():
        fixed = replace(runtime, deterministic=True)
        whole = losses(SMALL, TRAIN, fixed, noise, steps=16, points=2)[1]
        first = losses(SMALL, TRAIN, fixed, noise, steps=8, points=1)[1]
        second = begin(SMALL, TRAIN, fixed)
        with tempfile.TemporaryDirectory() as scratch:
            save_checkpoint(Path(scratch) / "checkpoint", first, Mark("", 0))
            load_checkpoint(Path(scratch) / "checkpoint", second, Mark("", 0))
        step = Step(second, TRAIN, fixed, noise)
        for _ in range(8):
            step()
        for key, tensor in weights_of(whole.model).items():
            assert torch.equal(tensor, weights_of(second.model)[key]), f"{name}: {key} differs after a resumption"
    return f"deterministic: 8 and 8 steps give the bits of 16 ({', '.join(engines())})"


def no_waiting(store: PatchStore) -> str:
    stream = open_home(store, 2, DEVICE, "device").patches(DATA, 3)
    for name, runtime in engines().items():
        state = begin(SMALL, TRAIN, runtime)
        step = Step(state, TRAIN, runtime, stream.batch)
        for _ in range(6):
            step()
        torch.cuda.set_sync_debug_mode("error")  # raises where the host waits for the device
        try:
            for _ in range(20):
                step()
        except RuntimeError as exc:
            raise AssertionError(f"{name}: {exc}") from exc
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "20 steps, patches and all, without a host synchronisation"


def room(_: PatchStore) -> str:
    """A batch that does not fit, for want of memory that this process may have."""
    runtime = replace(resolve(device=DEVICE), precision="bf16")
    state = begin(ModelConfig(), TRAIN, runtime)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(DEVICE)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2.5e9) / total))
    try:
        step = Step(state, TRAIN, runtime, noise)
        step()
        step()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert 0 < step.micro_batch < 32, step.micro_batch
    assert np.isfinite(state.mean_loss)
    return f"with 2.5 GB, 32 patches go through the network {step.micro_batch} at a time"


def validation(store: PatchStore) -> str:
    pixels = store.validation_pixels(2, "matlab_bicubic")
    crops = validation_crops(pixels.names, pixels.lr, pixels.hr, scale=2, crops=6, lr_crop_size=96)
    runtime = resolve(device=DEVICE)
    network = begin(SMALL, TRAIN, runtime).model.eval()
    found = CropScorer(crops, scale=2, protocol="canonical", runtime=runtime)(network)
    gaps = []
    for crop, (_, here) in zip(crops, found, strict=True):
        reference = score(super_resolve(network, crop.lr), crop.hr, scale=2, protocol="canonical")  # type: ignore[arg-type]
        gaps.append((abs(here.psnr - reference.psnr), abs(here.ssim - reference.ssim)))
    psnr, ssim = (max(column) for column in zip(*gaps, strict=True))
    return f"six crops scored on the device: PSNR within {psnr:.1e} dB, SSIM within {ssim:.1e} of NumPy's"


def chosen(_: PatchStore) -> str:
    found = {n: choose(ModelConfig(), DATA, TRAIN, device=DEVICE, patches=n) for n in (100_000, 16_000_000)}
    return "; ".join(
        f"{n:,} patches: {r.engine}{' and compiled' * r.compiled}, {r.precision}" for n, r in found.items()
    )


def _small_network_seconds(steps: int) -> float:
    """Of that many steps of the quickstart's network in this process, warm."""
    train = TrainConfig(batch_size=16, budget_patches=16 * 1_000_000)
    runtime = replace(resolve(device=DEVICE), engine="graphed", precision="bf16")
    lr = np.random.default_rng(0).integers(0, 256, (16, 3, 24, 24), dtype=np.uint8)
    there = torch.from_numpy(lr).to(DEVICE), torch.from_numpy(lr.repeat(2, 2).repeat(2, 3)).to(DEVICE)
    step = Step(begin(SMALL, train, runtime), train, runtime, lambda first, count: there)
    begun = 0.0
    for number in range(steps + 20):
        if number == 20:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        step()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def beside(_: PatchStore) -> str:
    """Two small trainings at once against one: in processes of their own, as slots are."""
    steps = 3000
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_small_network_seconds, [20, 20]))  # both processes are up and warm
        alone = pool.submit(_small_network_seconds, steps).result()
        both = max(pool.map(_small_network_seconds, [steps, steps]))
    return f"two trials of the quickstart's network at once: {2 * alone / both:.2f} times the throughput of one"


def curves(store: PatchStore) -> tuple[str, dict[str, list[float]]]:
    """Whether the final engine learns as eager fp32 does: within what three seeds of that differ by."""
    runs: dict[str, list[float]] = {}
    for seed in range(3):
        stream = open_home(store, 2, DEVICE, "device").patches(DATA, seed)
        eager, run = resolve(device=DEVICE), {"steps": CURVE_STEPS, "points": CURVE_POINTS, "seed": seed}
        runs[f"eager fp32, seed {seed}"] = losses(ModelConfig(), TRAIN, eager, stream.batch, **run)[0]
    final = list(engines())[-1]
    stream = open_home(store, 2, DEVICE, "device").patches(DATA, 0)
    runs[final] = losses(
        ModelConfig(), TRAIN, engines()[final], stream.batch, steps=CURVE_STEPS, points=CURVE_POINTS
    )[0]  # fmt: skip
    values = np.array(list(runs.values()))
    low, high = values[:3].min(axis=0), values[:3].max(axis=0)
    inside = int(((values[3] >= low) & (values[3] <= high)).sum())
    gap, spread = np.abs(values[3] / values[0] - 1).max(), (high / low - 1).max()
    return (
        f"{final} beside eager fp32, {CURVE_STEPS} steps: {inside} of {CURVE_POINTS} stretches in the range of three "
        f"seeds; at most {100 * gap:.2f} % from the same seed's, three seeds differ by up to {100 * spread:.2f} %"
    ), runs


CHECKS: tuple[Callable[[PatchStore], str], ...] = (
    patch_numbers, patches, first_losses, bits, resumed, no_waiting, room, validation, chosen, beside,
)  # fmt: skip


def main(out: Path) -> int:
    """Every check, whatever the others come to; the number of those that failed."""
    out.mkdir(parents=True, exist_ok=True)
    lines, failed, runs = [f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}", ""], 0, {}
    with tempfile.TemporaryDirectory() as scratch:
        lr = [(split, 2, "matlab_bicubic") for split in ("train", "valid")]
        store = prepare_store(Path(scratch) / "store.h5", embedded_pictures(), lr, known=KnownPictures())  # type: ignore[arg-type]
        for check in (*CHECKS, curves):
            try:
                found = check(store)
                said, runs = found if isinstance(found, tuple) else (found, runs)
                lines.append(f"- {check.__name__}: {said}")
            except Exception as exc:  # the next check is worth its time all the same
                failed += 1
                lines.append(f"- FAILED {check.__name__}: {type(exc).__name__}: {exc}")
            print(lines[-1], flush=True)
            (out / "gpu.md").write_text("\n".join(lines) + "\n")
    (out / "gpu.json").write_text(json.dumps(runs, indent=1))
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
