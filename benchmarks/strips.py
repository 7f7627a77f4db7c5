"""Compares enlarging a large image whole and in strips: time, peak memory and samples that differ.

    python benchmarks/strips.py [--size 1500x1000] [--scale 2 …] [--rows auto 64 …] [--weights FILE] [--device cuda:0]

Both ways take turns in one process, and times are medians over the turns. For its memory, each way has a process of its
own. The figure is its peak resident memory minus that of a process that does the same without enlarging. On a GPU it is
the peak that torch allocates. The image is computed: clouds of amplitude 1/f, edges and noise.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sr_core.config import SCALES, ModelConfig
from sr_core.images.files import Image
from sr_core.model.inference import automatic_strip_rows, super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.weights import load_model

NOTHING = "nothing"
"""The way that does not enlarge. It gives the memory that every process takes."""


def image(width: int, height: int) -> Image:
    """Returns the image to enlarge."""
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / np.maximum(frequency, 1 / max(width, height))
    clouds = np.fft.irfft2(spectrum, (height, width))
    pixels = 120 + 40 * clouds[..., None] / clouds.std() + rng.normal(0, 2, (height, width, 3))
    pixels[height // 5 : height // 2, width // 4 : width // 3] -= 60
    return pixels.clip(0, 255).astype(np.uint8)


def network(args: argparse.Namespace, scale: Any) -> A2N:
    """Returns the network of --weights, else an A2N with initial weights."""
    if args.weights:
        return load_model(args.weights, scale).to(args.device)
    model = A2N(ModelConfig(), scale)
    initialise(model, 0)
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.eval().to(args.device)


def enlarged(model: A2N, lr: Image, way: str, precision: Any) -> np.ndarray:
    """Returns the enlarged image.

    Args:
        way: "whole", "auto" or a number of rows.
    """
    rows: Any = int(way) if way.isdecimal() else way
    return super_resolve(model, lr, precision=precision, strip_rows=rows)


def peak_bytes(device: str) -> int:
    """Returns the peak memory of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    # ru_maxrss does not help, because a process inherits it from its parent.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def measure_here(args: argparse.Namespace) -> None:
    """Enlarges in one way, and prints the peak memory of this process as the only line."""
    model = network(args, args.scale[0])
    lr = image(*args.size)
    enlarged(model, lr[:32, :32], "whole", args.precision[0])
    if args.only != NOTHING:
        enlarged(model, lr, args.only, args.precision[0])
    print(peak_bytes(args.device))


def peak_of(args: argparse.Namespace, scale: int, precision: str, way: str) -> int:
    """Returns the peak memory of a new process that enlarges in one way, in bytes."""
    command = [sys.executable, __file__, "--only", way, "--scale", str(scale), "--precision", precision]
    command += ["--size", "x".join(map(str, args.size)), "--device", args.device]
    if args.weights:
        command += ["--weights", str(args.weights)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(args: argparse.Namespace, scale: int, precision: str) -> list[dict[str, Any]]:
    """Returns one row of the table per way."""
    model = network(args, scale)
    lr = image(*args.size)
    ways = ["whole", *args.rows]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    enlarged_by: dict[str, np.ndarray] = {}
    enlarged(model, lr[:32, :32], "whole", precision)
    for _ in range(args.rounds):
        for way in ways:
            begun = time.perf_counter()
            sr = enlarged(model, lr, way, precision)  # the result lies on the host, so a GPU has finished
            seconds[way].append(time.perf_counter() - begun)
            enlarged_by[way] = np.rint(sr.clip(0, 255)).astype(np.uint8)

    idle = peak_of(args, scale, precision, NOTHING)
    memory = {way: peak_of(args, scale, precision, way) - idle for way in ways}
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    rows = []
    for way in ways:
        difference = np.abs(enlarged_by[way].astype(int) - enlarged_by["whole"])
        rows.append(
            {
                "scale": scale,
                "precision": precision,
                "rows": way if way != "auto" else f"auto ({automatic_strip_rows(model, *lr.shape[:2])})",
                "seconds": round(medians[way], 3),
                "time_ratio": round(medians[way] / medians["whole"], 3),
                "peak_MiB": round(memory[way] / 2**20),
                "memory_ratio": round(memory[way] / memory["whole"], 3),
                "samples_differing_percent": float(f"{100 * (difference > 0).mean():.2g}"),
                "largest_difference_levels": int(difference.max()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=lambda text: tuple(map(int, text.split("x"))), default=(1500, 1000), help="of the LR image"
    )
    parser.add_argument("--scale", type=int, nargs="+", choices=SCALES, default=[2])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--rows", nargs="+", default=["auto"], help="strip heights to try, or auto")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way; default: 3")
    parser.add_argument("--weights", type=Path, help="weights of this scale; default: A2N with initial weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        return measure_here(args)
    table = [row for scale in args.scale for p in args.precision for row in compare(args, scale, p)]
    device = platform.machine() if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    about = {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads(), "size": args.size}
    about["load"] = round(os.getloadavg()[0], 1)
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (table[0], *(row.values() for row in table))]
    lines.insert(1, "|---" * len(table[0]) + "|")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "strips.json").write_text(json.dumps({**about, "table": table}, indent=2))
    (args.out / "strips.md").write_text("\n".join(lines) + "\n")
    print(", ".join(f"{key} {value}" for key, value in about.items()), *lines, sep="\n")
    return None


if __name__ == "__main__":
    main()
