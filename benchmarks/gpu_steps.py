"""The table of `train_step.py` on a GPU. Each row is written as soon as it is measured.

    python benchmarks/gpu_steps.py --rows plain|compiled|usual [--device cuda:0] [--out DIR] [--tiny]

Rows that are not compiled share a process. The floors are the bytes and operations of a step, divided by the throughput
of a large copy and of a large matrix product on this device.
"""

import argparse
import gc
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from step_costs import floors, traffic_of
from train_step import TRAIN, Way, seconds_of, step_of, ways
from usual import write_usual_file

from sr_core.config import ModelConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images
from sr_core.training.compiled import can_compile
from sr_core.training.step import STEPS_BEFORE_CAPTURE

FUSED = 10.2 / 20.5
"""The fraction of a step's bytes that remains if pointwise operations are fused (docs/development/performance.md)."""
ROUNDS = 5
ROUND_SECONDS = 0.6


def chosen(kind: str, device: str) -> Iterator[Way]:
    """Yields the ways of one kind, the fastest first, because time may run out."""
    for way in reversed(ways(device)):
        if way.workers is not None:
            kind_of_way = "usual"
        else:
            kind_of_way = "compiled" if way.compiled else "plain"
        if kind == kind_of_way:
            yield way


def measured(
    way: Way, model: ModelConfig, device: str, store: Path, usual: Path, batch: int, side: int
) -> dict[str, Any]:
    """Returns the milliseconds of a step, as the median of ROUNDS rounds in this process, and of the warm-up."""
    runtime = way.runtime(device)
    runtime.apply()
    if not way.ours:  # PyTorch's defaults
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(False)
    train = replace(TRAIN, batch_size=batch, budget_patches=batch * 1_000_000)
    network = A2N(model, 2)
    initialise(network, 0)
    step = step_of(way, network, train, runtime, store, usual, side)

    if device == "cpu":
        warm = seconds_of(step, 1, device)
        return {"ms a step": 1e3 * seconds_of(step, 1, device), "warm after [s]": warm}

    warm = seconds_of(step, STEPS_BEFORE_CAPTURE + 2, device)
    count = max(3, min(100, int(ROUND_SECONDS / (seconds_of(step, 3, device) / 3))))
    rounds = [1e3 * seconds_of(step, count, device) / count for _ in range(ROUNDS)]
    return {"ms a step": statistics.median(rounds), "rounds": rounds, "steps a round": count, "warm after [s]": warm}


def limits(device: str, batch: int, side: int) -> dict[str, float]:
    """Prints and returns the floors: lower bounds for a step's time, in milliseconds."""
    precision = "fp32" if device == "cpu" else "bf16"
    reached = floors(device, precision)
    costs = traffic_of(device, precision, batch, side, reached)
    fused = costs["memory ms"] * FUSED
    print(
        f"A step in {precision} takes {costs['GFLOP']:.0f} GFLOP and moves {costs['GB']:.1f} GB without fusion. "
        f"Measured here: {reached['GB/s']:.0f} GB/s, {reached['GFLOP/s'] / 1e3:.0f} TFLOP/s. "
        f"Floors: {costs['compute ms']:.2f} ms of arithmetic, {costs['memory ms']:.2f} ms of memory, {fused:.2f} ms "
        "of memory with pointwise operations fused.\n"
    )
    return {"arithmetic": costs["compute ms"], "memory": costs["memory ms"], "fused": fused}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--rows", choices=("plain", "compiled", "usual"), required=True)
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes, to rehearse")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    batch, side = (2, 16) if args.tiny else (32, 64)
    model = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1) if args.tiny else ModelConfig()
    if args.rows == "compiled" and not can_compile(args.device):
        print("left out: no compiler is installed")
        return
    floor = limits(args.device, batch, side)
    print("| way | ms per step | patches/s | of the memory floor | of the arithmetic floor | warm after [s] |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store.h5"
        usual = Path(scratch) / "usual.h5"
        prepared = prepare_store(store, embedded_images(), [("train", 2, "matlab_bicubic")], known=KnownImages())
        if args.rows == "usual":
            write_usual_file(usual, prepared)
        for way in chosen(args.rows, args.device):
            result = measured(way, model, args.device, store, usual, batch, side)
            took = result["ms a step"]
            line = result | {"way": way.name, "batch": batch, "side": side, "floors": floor, "torch": torch.__version__}
            with (args.out / "table.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(
                f"| {way.name} | {took:.2f} | {1e3 * batch / took:.0f} | {100 * floor['memory'] / took:.0f} % | "
                f"{100 * floor['arithmetic'] / took:.0f} % | {result['warm after [s]']:.1f} |",
                flush=True,
            )
            gc.collect()
            if args.device != "cpu":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
