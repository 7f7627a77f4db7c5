"""What subnormal numbers cost a training on this CPU, and what is left of it when they are flushed to zero.

The quickstart's network, batch 16, learning rate 4e-3, reduction 4, for every input range, temperature and loss below.
Each training has a process of its own; flushed and unflushed ones take turns. Figures are medians of CPU seconds over
the rounds.

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

RANGES, TEMPERATURES, LOSSES = (1, 255), (0.1, 1.0, 30.0, 100.0), ("l1", "l2")
AIM = 1.5
"""Slowest over fastest configuration, flushed."""


def configuration(input_range: int, temperature: float, loss: str) -> TrialConfig:
    values = {"model.input_range": input_range, "model.temperature": temperature, "train.loss": loss}
    return BASE.with_values(values | {"model.reduction": 4, "train.batch_size": 16, "train.learning_rate": 4e-3})


def smooth_images(count: int, side: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """LR and HR patches of waves, (N, 3, H, W), uint8: the same every time, and smooth as photographs are."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[: side * scale, : side * scale] / (side * scale)
    fy, fx, phase = generator.uniform(1, 8, (3, count, 3, 1, 1))
    hr = np.rint(127.5 + 127.5 * np.sin(fy * 2 * np.pi * y + fx * 2 * np.pi * x + phase)).astype(np.uint8)
    lr = np.rint(hr.reshape(count, 3, side, scale, side, scale).mean(axis=(3, 5))).astype(np.uint8)
    return lr, hr


def train(config: TrialConfig, patches: int, *, flush: bool, threads: int = 1) -> tuple[list[float], str]:
    """CPU seconds of each step, and the digest of the weights after the last."""
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
    command = [sys.executable, __file__, "--one", json.dumps([*case, patches, flush])]
    seconds, weights = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="of all configurations (default: 7)")
    parser.add_argument("--patches", type=int, default=320, help="of a training, a multiple of 16 (default: 320)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        input_range, temperature, loss, patches, flush = json.loads(args.one)
        seconds, weights = train(configuration(input_range, temperature, loss), patches, flush=flush)
        print(json.dumps([sum(seconds[1:]), weights]))  # the first step also pays for what every process prepares
        return
    cases = list(product(RANGES, TEMPERATURES, LOSSES))
    times: dict[tuple[tuple[int, float, str], bool], list[float]] = {(c, f): [] for c in cases for f in (False, True)}
    weights: dict[tuple[tuple[int, float, str], bool], str] = {}
    for _ in range(args.rounds):
        for case in cases:
            for flush in (False, True):
                seconds, weights[case, flush] = _measured(case, args.patches, flush)
                times[case, flush].append(seconds)
    print(f"{cpu_model()}; {args.patches} patches, one thread, CPU seconds, medians of {args.rounds}")
    print("| input range | temperature | loss | kept | flushed | times | weights |\n|---:|---:|---|---:|---:|---:|---|")
    flushed: list[float] = []
    for case in cases:
        kept, fast = (statistics.median(times[case, flush]) for flush in (False, True))
        flushed.append(fast)
        equal = "equal" if weights[case, False] == weights[case, True] else "differ"
        print(f"| {case[0]} | {case[1]:g} | {case[2]} | {kept:.2f} | {fast:.2f} | {kept / fast:.1f} | {equal} |")
    print(f"slowest / fastest configuration, flushed: {max(flushed) / min(flushed):.2f} (aim: at most {AIM})")


if __name__ == "__main__":
    main()
