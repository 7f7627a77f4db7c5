"""Measures the data path: patches per second of each patch source, the cost of sampling, and resampling.

    python benchmarks/data.py [--images DIR] [--out benchmarks/out]

Patch sources are compared with the usual way, resampling with Pillow's. Everything is x2, LR patches of 64, batches of
32, ready as float32 tensors in 0..1. The usual way is a torch DataLoader over an HDF5 file of float32 sub-images of
480x480, which is opened again for every sample. It makes the same random crops, flips and turns, with no worker and
with one per core. All ways take turns in one run. The figures are medians over the turns.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from usual import UsualWay, write_usual_file

from experiments.quickstart import EXPERIMENT
from sr_core.config import DataConfig
from sr_core.images.resize import imresize
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.placement import open_patch_source
from sr_core.store.hdf5 import PatchStore
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images, folder_images
from sr_core.training.inputs import Inputs
from sr_core.training.runtime import cores, resolve
from sr_core.training.step import Step, start

BATCH = 32
SIDE = 64
"""Side of the LR patches in pixels."""


def usual_batches(path: Path, workers: int) -> Iterator[Any]:
    """Returns the batches of the usual way."""
    return iter(DataLoader(UsualWay(path, SIDE), BATCH, shuffle=False, num_workers=workers))


def source_batches(store: PatchStore, name: str, seed: int, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of a patch source: `host`, `disk` or `device`."""
    runtime = resolve(device=None if device == "cpu" else device)
    runtime.apply()  # as every training does; the usual ways run in this process too, and gain from it
    inputs = Inputs(runtime)
    patches = open_patch_source(store, 2, device, name).patches(DataConfig(scale=2, lr_patch_size=SIDE), seed)  # type: ignore[arg-type]
    first = 0
    while True:
        yield inputs.fill(*patches.batch(first, BATCH))
        first += BATCH


def rate(batches: Iterator[Any], seconds: float, wait: Callable[[], None]) -> float:
    """Returns patches per second, measured over at least `seconds`."""
    begun = time.perf_counter()
    patches = 0
    while time.perf_counter() - begun < seconds:
        next(batches)
        patches += BATCH
    wait()
    return patches / (time.perf_counter() - begun)


def drop_from_cache(path: Path) -> None:
    """Asks the operating system to drop a file from its page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def patch_rates(store: PatchStore, folder: Path, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Returns the median patches per second of every way, with a cold and with a warm page cache."""
    usual = folder / "usual.h5"
    entries = write_usual_file(usual, store)
    print(f"usual file: {entries} sub-images, {usual.stat().st_size / 1e6:.0f} MB", flush=True)
    ways: dict[str, tuple[Path, Callable[[int], Iterator[Any]]]] = {
        "host": (store.path, lambda seed: source_batches(store, "host", seed)),
        "disk": (store.path, lambda seed: source_batches(store, "disk", seed)),
        "usual, 0 workers": (usual, lambda seed: usual_batches(usual, 0)),
        f"usual, {cores()} workers": (usual, lambda seed: usual_batches(usual, cores())),
    }
    wait: Callable[[], None] = lambda: None  # noqa: E731
    if torch.cuda.is_available():
        ways["device (cuda:0)"] = (store.path, lambda seed: source_batches(store, "device", seed, "cuda:0"))
        wait = torch.cuda.synchronize
    rates: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in ways}
    for turn in range(rounds):
        for name, (path, batches_of) in ways.items():
            drop_from_cache(path)
            begun = time.perf_counter()
            batches = batches_of(turn)
            for _ in range(10):
                next(batches)
            wait()
            rates[name]["cold"].append(10 * BATCH / (time.perf_counter() - begun))
            rate(batches, seconds, wait)  # the disk source and the usual way fill the page cache meanwhile
            rates[name]["warm"].append(rate(batches, seconds, wait))
            del batches
    return {name: {kind: statistics.median(values) for kind, values in kinds.items()} for name, kinds in rates.items()}


def sampling_share(store: PatchStore) -> float:
    """Returns the time to make a batch, as a fraction of a whole training step of the quickstart's network."""
    base = EXPERIMENT.base
    runtime = resolve(threads=1)
    runtime.apply()
    patches = open_patch_source(store, 2, "cpu", "host").patches(base.data, 1)
    network = A2N(base.model, 2)
    initialise(network, 0)
    step = Step(start(network, base.train, runtime), base.train, runtime, patches.batch)
    step_seconds = []
    batch_seconds = []
    for number in range(40):
        begun = time.perf_counter()
        step()
        between = time.perf_counter()
        patches.batch(number * base.train.batch_size, base.train.batch_size)
        step_seconds.append(between - begun)
        batch_seconds.append(time.perf_counter() - between)
    return statistics.median(batch_seconds) / statistics.median(step_seconds)


def resampling(rounds: int) -> dict[str, float]:
    """Returns the milliseconds of `imresize` and Pillow for x2, x3 and x4 LR of one 2040x1356 image, and their ratio.

    One core is used.
    """
    small = np.random.default_rng(0).integers(0, 256, (114, 171, 3), dtype=np.uint8)
    image = np.array(PIL.Image.fromarray(small).resize((2040, 1356), PIL.Image.Resampling.BICUBIC))

    def pillow(scale: int) -> None:
        size = 2040 // scale, 1356 // scale
        np.array(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BICUBIC))

    times: dict[str, list[float]] = {"imresize": [], "Pillow": []}
    for _ in range(rounds):
        for name, work in (("imresize", lambda s: imresize(image, 1 / s)), ("Pillow", pillow)):
            begun = time.perf_counter()
            for scale in (2, 3, 4):
                work(scale)
            times[name].append(1e3 * (time.perf_counter() - begun))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {**medians, "ratio": medians["imresize"] / medians["Pillow"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of images; default: the photographs in scikit-image's wheel"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "out", metavar="DIR", help="folder for the results"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way; default: 5")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of each measurement; default: 1.5")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    images = folder_images(args.images) if args.images else embedded_images()
    with tempfile.TemporaryDirectory(prefix="benchmark-data-", dir=args.out) as scratch:
        folder = Path(scratch)
        begun = time.perf_counter()
        lr = [(split, scale, "matlab_bicubic") for split in ("train", "valid") for scale in (2, 3, 4)]
        store = prepare_store(folder / "store.h5", images, lr, known=KnownImages(), workers=1)  # type: ignore[arg-type]
        seconds = time.perf_counter() - begun
        megapixels = sum(record.height * record.width for record in store.manifest) / 1e6
        report: dict[str, Any] = {
            "machine": f"{platform.processor() or platform.machine()}, {cores()} cores, torch {torch.__version__}",
            "load before": Path("/proc/loadavg").read_text().split()[0] if Path("/proc/loadavg").exists() else "",
            "prepare, x2 x3 x4, one core [Mpx/s]": megapixels / seconds,
            "resampling [ms]": resampling(9),
            "sampling / training step": sampling_share(store),
            "patches/s": patch_rates(store, folder, args.rounds, args.seconds),
        }
    text = table(report)
    (args.out / "data.json").write_text(json.dumps(report, indent=1))
    (args.out / "data.md").write_text(text)
    print(text)


def table(report: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    rates = report["patches/s"]
    best = max(kinds["warm"] for name, kinds in rates.items() if name.startswith("usual"))
    lines = ["| way | cold [patches/s] | warm [patches/s] | warm / best usual |", "|---|---:|---:|---:|"]
    lines += [f"| {n} | {k['cold']:.0f} | {k['warm']:.0f} | {k['warm'] / best:.1f} |" for n, k in rates.items()]
    resampled = report["resampling [ms]"]
    lines += [
        "",
        f"{report['machine']}; load average before: {report['load before']}. Cold: opening and the first ten batches, "
        "with the file dropped from the page cache.",
        f"Sampling takes {100 * report['sampling / training step']:.1f} % of a training step of the quickstart's "
        "network on one core.",
        f"x2, x3 and x4 LR of a 2040x1356 image: {resampled['imresize']:.0f} ms, Pillow's bicubic "
        f"{resampled['Pillow']:.0f} ms, ratio {resampled['ratio']:.2f}.",
        f"prepare, x2 x3 x4 on one core: {report['prepare, x2 x3 x4, one core [Mpx/s]']:.1f} Mpx/s.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
