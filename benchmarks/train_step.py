"""Times a training step of the full A2N at x2: the usual way, each improvement in turn, and this project's step.

    python benchmarks/train_step.py [--device cuda:0] [--out DIR]

On a GPU a batch has 32 LR patches of 64, on a CPU 8 of 48. Every way has a process of its own, so that none inherits
another's memory or caches. They take turns, so that the machine's load affects all alike. Figures are medians.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from step_costs import floors, traffic_of
from torch import Tensor
from torch.utils.data import DataLoader
from usual import UsualWay, write_usual_file

from sr_core.config import DataConfig, ModelConfig, TrainConfig
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.placement import open_patch_source
from sr_core.store.hdf5 import load_store
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images
from sr_core.training.compiled import can_compile
from sr_core.training.memory import keep_freed_memory
from sr_core.training.runtime import Runtime, cores, resolve
from sr_core.training.step import STEPS_BEFORE_CAPTURE, Step, start

TRAIN = TrainConfig(loss="l1", learning_rate=1e-4)


@dataclass(frozen=True)
class Way:
    """A way to make a training step."""

    name: str
    workers: int | None = None
    """Workers of a DataLoader. None takes patches from the project's own patch source."""
    item: bool = False
    """Every step waits for its loss."""
    fused: bool = True
    """Adam runs as one kernel, not tensor by tensor."""
    ours: bool = False
    """The project's Step is used, which also averages the weights."""
    memory_format: str = "contiguous"
    precision: str = "fp32"
    engine: str = "eager"
    compiled: bool = False
    deterministic: bool = False

    def runtime(self, device: str) -> Runtime:
        """Returns the settings of this way on the device."""
        return replace(
            resolve(device=None if device == "cpu" else device),
            memory_format=self.memory_format,
            precision=self.precision,
            engine=self.engine,
            compiled=self.compiled,
            deterministic=self.deterministic,
        )


def ways(device: str) -> list[Way]:
    """Returns the ways in the order of the table. Each adds one change to the one before."""
    plain = [
        Way("(a0) usual, 0 workers", 0, item=True, fused=False),
        Way(f"(a1) usual, {cores()} workers", cores(), item=True, fused=False),
        Way("(b1) no loader", item=True, fused=False),
        Way("(b2) no wait for the loss", fused=False),
        Way("(b3) fused Adam", fused=True),
        Way("(b4) the project's step, weights averaged", ours=True),
        Way("(b5) channels last", ours=True, memory_format="channels_last"),
    ]
    last = plain[-1]
    if device == "cpu":
        final = replace(last, name="(c) compiled", engine="compiled", compiled=True, deterministic=True)
        return [*plain, final]
    half = replace(last, name="(b6) bf16", precision="bf16")
    captured = replace(half, name="(b7) captured", engine="graphed")
    final = replace(captured, name="(c) captured and compiled", compiled=True)
    return [*plain, half, captured, final, replace(final, name="(c), deterministic", deterministic=True)]


def serve(way: Way, device: str, store: Path, usual: Path, batch: int, side: int) -> None:
    """Prints the seconds of the warm-up, then for every number n on standard input the seconds of n steps."""
    runtime = way.runtime(device)
    if way.ours:
        runtime.apply()
    else:
        torch.set_num_threads(runtime.threads)
    train = replace(TRAIN, batch_size=batch, budget_patches=batch * 1_000_000)
    network = A2N(ModelConfig(), 2)
    initialise(network, 0)
    step = step_of(way, network, train, runtime, store, usual, side)

    print(seconds_of(step, STEPS_BEFORE_CAPTURE + 2, device), flush=True)
    for line in sys.stdin:
        print(seconds_of(step, int(line), device), flush=True)


def seconds_of(step: Callable[[], None], count: int, device: str) -> float:
    """Returns the wall time of this number of steps, until the device has finished them."""
    begun = time.perf_counter()
    for _ in range(count):
        step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def step_of(
    way: Way, network: A2N, train: TrainConfig, runtime: Runtime, store: Path, usual: Path, side: int
) -> Callable[[], object]:
    """Returns a function that makes one step in this way.

    Args:
        usual: the HDF5 file of the usual way.
        side: of the LR patches, in pixels.
    """
    data = DataConfig(scale=2, lr_patch_size=side)
    if way.workers is None:
        patches = open_patch_source(load_store(store), 2, runtime.device).patches(data, 1)
        if way.ours:
            return Step(start(network, train, runtime), train, runtime, patches.batch)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            first = 0
            while True:
                lr, hr = (
                    torch.as_tensor(p).to(runtime.device).contiguous() for p in patches.batch(first, train.batch_size)
                )
                yield lr / 255, hr / 255
                first += train.batch_size

        source: Iterator[Any] = batches()
    else:
        source = iter(
            DataLoader(
                UsualWay(usual, side), train.batch_size, num_workers=way.workers, pin_memory=runtime.device != "cpu"
            )
        )
    network.to(runtime.device).train()
    adam = torch.optim.Adam(
        network.parameters(), lr=train.learning_rate, fused=way.fused, foreach=False if not way.fused else None
    )

    def step() -> None:
        lr, hr = (t.to(runtime.device) for t in next(source))
        adam.zero_grad()
        loss = (network(lr) - hr).abs().mean()
        loss.backward()
        adam.step()
        if way.item:
            loss.item()

    return step


def measure(device: str, rounds: int, steps: int, scratch: Path, batch: int, side: int) -> list[dict[str, Any]]:
    """Measures all ways in turns, and returns the rows of the table.

    Args:
        steps: per turn.
    """
    store = scratch / "store.h5"
    usual = scratch / "usual.h5"
    prepared = prepare_store(
        store, embedded_images(), [(s, 2, "matlab_bicubic") for s in ("train", "valid")], known=KnownImages()
    )
    write_usual_file(usual, prepared)
    running: list[tuple[Way, subprocess.Popen[str], float]] = []
    for number, way in enumerate(ways(device)):
        if way.compiled and not can_compile(device):
            print(f"{way.name}: left out, because no compiler is installed", flush=True)
            continue
        command = [sys.executable, __file__, "--serve", str(number), "--device", device, "--out", str(scratch)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        running.append((way, process, float(process.stdout.readline())))
        print(f"{way.name}: warm after {running[-1][2]:.1f} s", flush=True)
    seconds: dict[str, list[float]] = {way.name: [] for way, _, _ in running}
    for _ in range(rounds):
        for way, process, _ in running:
            assert process.stdin and process.stdout
            print(steps, file=process.stdin, flush=True)
            seconds[way.name].append(float(process.stdout.readline()) / steps)
    for _, process, _ in running:
        assert process.stdin
        process.stdin.close()
        process.wait()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = [medians[way.name] for way, _, _ in running]
    return [
        {
            "way": way.name,
            "ms a step": 1e3 * medians[way.name],
            "patches/s": batch / medians[way.name],
            "times (a0)": reference[0] / medians[way.name],
            "times (a1)": reference[1] / medians[way.name],
            "times (b3)": reference[4] / medians[way.name],
            "to warm up [s]": warm,
        }
        for way, _, warm in running
    ]


def table(report: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    rows = report["ways"]
    lines = [
        f"{report['machine']}. Full A2N x2, batch {report['batch']}, LR {report['side']}.",
        "",
        "| way | ms per step | patches/s | speed-up over (a0) | over (a1) | over (b3) | warm after [s] |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['way']} | {r['ms a step']:.1f} | {r['patches/s']:.0f} | {r['times (a0)']:.2f} | {r['times (a1)']:.2f} "
        f"| {r['times (b3)']:.2f} | {r['to warm up [s]']:.1f} |"
        for r in rows
    ]
    cost = report["step"]
    floor = report["floors"]
    final = [row for row in rows if "deterministic" not in row["way"]][-1]
    lines += [
        "",
        f"A step in {cost['precision']} takes {cost['GFLOP']:.0f} GFLOP, and moves {cost['GB']:.2f} GB if every "
        f"operation reads and writes memory. Measured here: {floor['GB/s']:.0f} GB/s in a copy, "
        f"{floor['GFLOP/s']:.0f} GFLOP/s in a matrix product. Floors: {cost['memory ms']:.2f} ms of memory, "
        f"{cost['compute ms']:.2f} ms of arithmetic. {final['way']} reaches "
        f"{100 * cost['memory ms'] / final['ms a step']:.0f} % of the speed of the memory floor, and "
        f"{100 * cost['compute ms'] / final['ms a step']:.0f} % of that of the arithmetic floor.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way; default: 7")
    parser.add_argument("--steps", type=int, help="steps per turn; default: 3 on a CPU, 50 on a GPU")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    on_cpu = args.device == "cpu"
    batch, side = (8, 48) if on_cpu else (32, 64)
    if args.serve is not None:
        way = ways(args.device)[args.serve]
        serve(way, args.device, args.out / "store.h5", args.out / "usual.h5", batch, side)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    precision = "fp32" if on_cpu else "bf16"
    report: dict[str, Any] = {"batch": batch, "side": side}
    name = platform.processor() or platform.machine() if on_cpu else torch.cuda.get_device_name(args.device)
    report["machine"] = f"{name}, {cores()} cores, torch {torch.__version__}"
    if on_cpu:
        keep_freed_memory()
    report["floors"] = floors(args.device, precision)
    report["step"] = {"precision": precision} | traffic_of(args.device, precision, batch, side, report["floors"])
    with tempfile.TemporaryDirectory(prefix="benchmark-step-", dir=args.out) as scratch:
        steps = args.steps or (3 if on_cpu else 50)
        report["ways"] = measure(args.device, args.rounds, steps, Path(scratch), batch, side)
    text = table(report)
    (args.out / "train_step.json").write_text(json.dumps(report, indent=1))
    (args.out / "train_step.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
