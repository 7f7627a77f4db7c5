"""Measures time and memory for a data set of full size without a download: simulated 2K images.

    python benchmarks/simulated_div2k.py --to /tmp/simulated --count 800

Four base images are computed: clouds of amplitude 1/f in correlated colours, behind overlapping rectangles and discs
that provide edges and flat regions. Every image is one of them shifted, mirrored, with another contrast and with
rectangles of its own. File sizes and work are therefore those of photographs. Networks learn nothing useful from them.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image

from sr_core.process.workers import Workers

HEIGHT, WIDTH = 1356, 2040
BASES = 4


@cache
def base(number: int) -> np.ndarray:
    """Returns a base image: (HEIGHT, WIDTH, 3), float32, about 0..255."""
    rng = np.random.default_rng([1, number])
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    amplitude = 1 / np.maximum(frequency, 1 / WIDTH)
    clouds = np.empty((HEIGHT, WIDTH, 4), np.float32)
    for channel in range(4):
        noise = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
        field = np.fft.irfft2(noise * amplitude, (HEIGHT, WIDTH))
        clouds[..., channel] = field / field.std()
    image = 120 + 42 * clouds[..., 3:] + 14 * clouds[..., :3]
    y, x = np.mgrid[-200:200, -200:200]
    for _ in range(60):
        top = rng.integers(HEIGHT - 400)
        left = rng.integers(WIDTH - 400)
        radius = rng.integers(10, 200)
        shape = np.hypot(y, x) < radius
        if rng.random() < 0.5:
            shape = (abs(y) < radius) & (abs(x) < rng.integers(10, 200))
        window = image[top : top + 400, left : left + 400]
        window[shape] = 0.4 * window[shape] + rng.uniform(0, 150, 3)
    return image + rng.normal(0, 1.5, image.shape).astype(np.float32)  # a sensor's noise


def make(task: tuple[Path, int]) -> None:
    """Writes one image, unless it exists.

    Args:
        task: the folder, and the image's number.
    """
    folder, number = task
    path = folder / f"{number:04}.png"
    if path.exists():
        return
    rng = np.random.default_rng([2, number])
    image = np.roll(base(number % BASES), rng.integers((HEIGHT, WIDTH)), axis=(0, 1))
    image = image[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    image = (image - 120) * rng.uniform(0.7, 1.2) + rng.uniform(90, 150, 3)
    for _ in range(20):
        top, left = rng.integers((HEIGHT - 200, WIDTH - 200))
        image[top : top + rng.integers(8, 200), left : left + rng.integers(8, 200)] += rng.uniform(-60, 60, 3)
    partial = path.with_suffix(".partial")
    PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(partial, format="PNG", compress_level=1)
    partial.replace(path)


PREPARE = """
import json, resource, sys
from sr_core.prepare import main
assert main(sys.argv[1:]) == 0
peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"peak_MiB_starter": peaks[0], "peak_MiB_worker": peaks[1]}))
"""

TRAIN = """
import json, resource, sys, time
from pathlib import Path
from sr_core.config import DataConfig
from sr_core.patches.placement import open_patch_source, pixel_bytes
from sr_core.store.hdf5 import load_store
from sr_core.training.inputs import Inputs
from sr_core.training.runtime import resolve
store, inputs = load_store(Path(sys.argv[1])), Inputs(resolve(threads=1))
begun = time.perf_counter()
patches = open_patch_source(store, 2, "cpu", sys.argv[2]).patches(DataConfig(), 1)
opened = time.perf_counter()
for step in range(1000):
    inputs.fill(*patches.batch(32 * step, 32))
ended = time.perf_counter()
print(json.dumps({
    "home": sys.argv[2], "seconds_to_open": opened - begun, "patches_per_second": 32000 / (ended - opened),
    "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "resident_MiB": pixel_bytes(store, 2) / 2**20 if sys.argv[2] == "host" else 0,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for images and store (27 GB)")
    parser.add_argument("--count", type=int, default=800, help="images; default: 800")
    parser.add_argument("--workers", type=int, default=2, help="processes that make and prepare images; default: 2")
    parser.add_argument("--homes", nargs="*", default=["disk", "host"], help="patch sources to train from")
    args = parser.parse_args()
    folder = args.to / "train"
    store = args.to / "store.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with Workers(args.workers) as pool:
        for _ in pool.results(make, [(folder, number) for number in range(args.count)]):
            pass
    report: dict[str, object] = {"images": args.count, "workers": args.workers}
    begun = time.perf_counter()
    command = [sys.executable, "-c", PREPARE, "--images", str(args.to), "--out", str(store)]
    command += ["--workers", str(args.workers)]
    prepared = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    peaks = json.loads(prepared.stdout.splitlines()[-1])
    report["prepare"] = {
        "seconds": seconds,
        "Mpx_per_second": args.count * HEIGHT * WIDTH / 1e6 / seconds,
        "peak_MiB_at_most": peaks["peak_MiB_starter"] + args.workers * peaks["peak_MiB_worker"],
        **peaks,
    }
    report["homes"] = []
    for home in args.homes:
        trained = subprocess.run(
            [sys.executable, "-c", TRAIN, str(store), home], check=True, capture_output=True, text=True
        )
        report["homes"].append(json.loads(trained.stdout))  # type: ignore[attr-defined]
    print(json.dumps(report, indent=1))
    (args.to / "report.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
