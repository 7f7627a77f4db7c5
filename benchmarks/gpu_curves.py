"""Compares the losses of the fastest engine with those of eager fp32 over 600 steps.

    DEVICE=cuda:0 python benchmarks/gpu_curves.py [--out DIR]

Both engines train with the same seed. A second seed in eager fp32 shows how large a difference between seeds is.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from gpu_checks import DATA, DEVICE, FULL, ON_CPU, TRAIN, engines, losses

from sr_core.patches.placement import open_patch_source
from sr_core.store.hdf5 import PatchStore
from sr_core.store.known import KnownImages
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import embedded_images

STEPS, POINTS = (6, 3) if ON_CPU else (600, 12)


def curve(store: PatchStore, engine: str, seed: int) -> list[float]:
    """Returns the mean losses of POINTS equal parts of a training."""
    patches = open_patch_source(store, 2, DEVICE, "device").patches(DATA, seed)
    return losses(FULL, TRAIN, engines()[engine], patches.batch, steps=STEPS, points=POINTS, seed=seed)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fastest = list(engines())[-1]
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        lr = [("train", 2, "matlab_bicubic")]
        store = prepare_store(Path(scratch) / "store.h5", embedded_images(), lr, known=KnownImages())  # type: ignore[arg-type]
        for engine, seed in ((fastest, 0), ("eager fp32", 0), ("eager fp32", 1)):
            name = f"{engine}, seed {seed}"
            curves[name] = curve(store, engine, seed)
            print(f"- {name}: {' '.join(f'{loss:.5f}' for loss in curves[name])}", flush=True)
            (args.out / "curves.json").write_text(json.dumps(curves, indent=1))
    fast, same, other = map(np.array, curves.values())
    print(
        f"- {STEPS} steps: {fastest} differs from eager fp32 with the same seed by at most "
        f"{100 * np.abs(fast / same - 1).max():.2f} %; eager fp32 with another seed differs by up to "
        f"{100 * np.abs(other / same - 1).max():.2f} %"
    )


if __name__ == "__main__":
    main()
