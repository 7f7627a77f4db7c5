"""Whether the fastest engine learns as eager fp32 does: mean losses of 600 steps, next to those of another seed.

    DEVICE=cuda:0 python benchmarks/gpu_curves.py [--out DIR]

The same seed under both engines, and a second seed in eager fp32, whose distance says how large a difference is common.
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
    patches = open_patch_source(store, 2, DEVICE, "device").patches(DATA, seed)
    return losses(FULL, TRAIN, engines()[engine], patches.batch, steps=STEPS, points=POINTS, seed=seed)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    args = parser.parse_args()
    final = list(engines())[-1]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        lr = [("train", 2, "matlab_bicubic")]
        store = prepare_store(Path(scratch) / "store.h5", embedded_images(), lr, known=KnownImages())  # type: ignore[arg-type]
        for engine, seed in ((final, 0), ("eager fp32", 0), ("eager fp32", 1)):
            found[f"{engine}, seed {seed}"] = curve(store, engine, seed)
            print(
                f"- {engine}, seed {seed}: {' '.join(f'{v:.5f}' for v in found[f'{engine}, seed {seed}'])}", flush=True
            )
            (args.out / "curves.json").write_text(json.dumps(found, indent=1))
    fast, same, other = map(np.array, found.values())
    print(
        f"- {STEPS} steps: {final} is at most {100 * np.abs(fast / same - 1).max():.2f} % from eager fp32 of its seed; "
        f"another seed of that is up to {100 * np.abs(other / same - 1).max():.2f} % away"
    )


if __name__ == "__main__":
    main()
