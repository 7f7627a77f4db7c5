"""Measures how much subnormal numbers slow down a training on this CPU, and how much flushing them to zero helps.

The quickstart's network is trained with batch 16, learning rate 4e-3 and reduction 4, for every input range,
temperature and loss below. Each training has a process of its own. Trainings with and without flushing take turns.
Figures are medians of CPU seconds over the rounds.

    python benchmarks/subnormals.py                          # 7 rounds of 320 patches
    python benchmarks/subnormals.py --rounds 3 --patches 160
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.quickstart import BASE
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training.checkpoint import digest_of, weights_of
from sr_core.training.own_thread import OwnThread
from sr_core.training.runtime import resolve
from sr_core.training.step import Step, start
from study.question.config import TrialConfig
from study.record.provenance import cpu_model

RANGES = (1, 255)
TEMPERATURES = (0.1, 1.0, 30.0, 100.0)
LOSSES = ("l1", "l2")
MAX_RATIO = 1.5
"""Target for the time of the slowest configuration divided by that of the fastest, with flushing."""


def configuration(input_range: int, temperature: float, loss: str) -> TrialConfig:
    """Returns the configuration of a case."""
    values = {"model.input_range": input_range, "model.temperature": temperature, "train.loss": loss}
    return BASE.with_values(values | {"model.reduction": 4, "train.batch_size": 16, "train.learning_rate": 4e-3})


def smooth_images(count: int, side: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns LR and HR patches of waves, (N, 3, H, W), uint8. They are fixed, and smooth like photographs."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[: side * scale, : side * scale] / (side * scale)
    fy, fx, phase = generator.uniform(1, 8, (3, count, 3, 1, 1))
    hr = np.rint(127.5 + 127.5 * np.sin(fy * 2 * np.pi * y + fx * 2 * np.pi * x + phase)).astype(np.uint8)
    lr = np.rint(hr.reshape(count, 3, side, scale, side, scale).mean(axis=(3, 5))).astype(np.uint8)
    return lr, hr


def train(config: TrialConfig, patches: int, *, flush: bool, threads: int = 1) -> tuple[list[float], str]:
    """Returns the CPU seconds of each step, and the digest of the weights after the last step."""
    runtime = replace(resolve(threads=threads), flush_subnormals=flush)

    def steps() -> tuple[list[float], str]:
        section = replace(config.train, budget_patches=patches)
        lr, hr = smooth_images(patches, config.data.lr_patch_size, config.data.scale)
        model = A2N(config.model, config.data.scale)
        initialise(model, config.seed)
        state = start(model, section, runtime)
        step = Step(
            state, section, runtime, lambda first, count: (lr[first : first + count], hr[first : first + count])
        )
        seconds: list[float] = []
        while state.patches < patches:
            begun = time.process_time()
            step()
            seconds.append(time.process_time() - begun)
        return seconds, digest_of(weights_of(model))

    with OwnThread(runtime.apply) as thread:
        return thread(steps)


def _measured(case: tuple[int, float, str], patches: int, flush: bool) -> tuple[float, str]:
    """Returns the CPU seconds and the digest of the weights of a training in a new process."""
    command = [sys.executable, __file__, "--one", json.dumps([*case, patches, flush])]
    seconds, weights = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of all configurations; default: 7")
    parser.add_argument(
        "--patches", type=int, default=320, help="patches of a training, a multiple of 16; default: 320"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        input_range, temperature, loss, patches, flush = json.loads(args.one)
        seconds, weights = train(configuration(input_range, temperature, loss), patches, flush=flush)
        print(json.dumps([sum(seconds[1:]), weights]))  # the first step also includes one-time preparations
        return

    cases = list(product(RANGES, TEMPERATURES, LOSSES))
    times: dict[tuple[tuple[int, float, str], bool], list[float]] = {(c, f): [] for c in cases for f in (False, True)}
    weights: dict[tuple[tuple[int, float, str], bool], str] = {}
    for _ in range(args.rounds):
        for case in cases:
            for flush in (False, True):
                seconds, weights[case, flush] = _measured(case, args.patches, flush)
                times[case, flush].append(seconds)

    print(f"{cpu_model()}; {args.patches} patches, one thread, CPU seconds, medians of {args.rounds} rounds")
    print("| input range | temperature | loss | not flushed | flushed | ratio | weights |")
    print("|---:|---:|---|---:|---:|---:|---|")
    flushed_times: list[float] = []
    for case in cases:
        unflushed = statistics.median(times[case, False])
        flushed = statistics.median(times[case, True])
        flushed_times.append(flushed)
        equal = "equal" if weights[case, False] == weights[case, True] else "differ"
        ratio = unflushed / flushed
        print(f"| {case[0]} | {case[1]:g} | {case[2]} | {unflushed:.2f} | {flushed:.2f} | {ratio:.1f} | {equal} |")
    spread = max(flushed_times) / min(flushed_times)
    print(f"slowest / fastest configuration, flushed: {spread:.2f} (target: at most {MAX_RATIO})")


if __name__ == "__main__":
    main()
