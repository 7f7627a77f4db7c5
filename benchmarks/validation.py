"""Times the parts of a validation: the network, and the scores by the NumPy reference and on the device.

The variants take turns. Usage: validation.py [--device cuda:0] [--experiment a2n_x2] [--rounds 15] [--threads 1]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from sr_core.metrics.evaluate import score
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.patches.validation import Crop
from sr_core.training import scoring
from sr_core.training.runtime import Runtime, resolve
from sr_core.training.speed import measure
from study.question.config import TrialConfig
from study.question.experiment import load_experiment


def ways(base: TrialConfig, runtime: Runtime) -> dict[str, Callable[[], object]]:
    """Returns the functions to time, by name."""
    scale = base.data.scale
    protocol = base.evaluation.protocol
    side = base.evaluation.lr_crop_size
    generator = np.random.default_rng(0)
    crops = [
        Crop(str(number), *(generator.integers(0, 256, (s, s, 3), dtype=np.uint8) for s in (side, side * scale)))
        for number in range(base.evaluation.crops)
    ]
    model = A2N(base.model, scale)
    initialise(model, base.seed)
    model = runtime.place(model).eval()  # type: ignore[assignment]
    images = [super_resolve(model, crop.lr) for crop in crops]
    scorer = scoring.CropScorer(crops, scale=scale, protocol=protocol, runtime=runtime)
    lr = torch.cat([batch for batch, _ in scorer._batches])
    outputs = [model(batch) * 255 for batch, _ in scorer._batches]

    def network(at_once: int) -> Callable[[], object]:
        return lambda: [model(lr[first : first + at_once]) for first in range(0, len(lr), at_once)]

    return {
        "before: image by image, scores by NumPy": lambda: [
            score(super_resolve(model, crop.lr), crop.hr, scale=scale, protocol=protocol) for crop in crops
        ],
        "now": lambda: scorer(model),
        "  its scores": lambda: [
            originals.compare(sr) for sr, (_, originals) in zip(outputs, scorer._batches, strict=True)
        ],
        "  the same by NumPy": lambda: [
            score(sr, crop.hr, scale=scale, protocol=protocol) for sr, crop in zip(images, crops, strict=True)
        ],
        **{f"  network, {n} at once": network(n) for n in sorted({1, 2, 3, len(crops)})},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--experiment", default="quickstart")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    base = load_experiment(args.experiment)[1].base
    runtime = resolve(device=args.device, threads=args.threads)
    runtime.apply()
    times: dict[str, list[float]] = {}
    with torch.inference_mode():
        timed = ways(base, runtime)
        for _ in range(args.rounds + 1):
            for name, run in timed.items():
                begun = time.perf_counter()
                run()
                if args.device != "cpu":
                    torch.cuda.synchronize(args.device)
                times.setdefault(name, []).append(time.perf_counter() - begun)
    print("| one validation | minimum [ms] | median [ms] |\n|---|---:|---:|")
    for name, seconds in times.items():
        print(f"| {name} | {1e3 * min(seconds[1:]):.1f} | {1e3 * median(seconds[1:]):.1f} |")
    steps = measure(base.model, base.data, base.train, runtime).seconds_per_patch * base.evaluation.every_patches
    for name in list(times)[:2]:
        spent = median(times[name][1:])
        print(f"{name}: {100 * spent / (spent + steps):.1f} % of a training's time")


if __name__ == "__main__":
    main()
