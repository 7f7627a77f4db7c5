"""Checks that new processes compute the same bits. Each makes the first steps of a training, and digests are compared.

One line per case and number of threads says how many different digests of SR, loss, gradients and weights the processes
computed. One of each is right. The cases are the losses on the base configuration, and both recipes of
`experiments/literature.py`.

    python benchmarks/same_floats.py                           # 40 forks and 4 new interpreters per case
    python benchmarks/same_floats.py --forks 500 --unsettled   # without the remedy: shows the race in MKL

A fork of a process that has imported torch but computed nothing shows a race between first calls as well as a new
interpreter does, and starts within milliseconds. New interpreters also show effects of memory addresses. Before it
trains, each process allocates memory of a random size, so that its arrays lie elsewhere. `--load` keeps other processes
busy meanwhile.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # optimisers import it; here it is imported once instead of in every fork

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.literature import references
from experiments.quickstart import BASE
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.training import runtime as settings
from sr_core.training.checkpoint import digest_of, weights_of
from sr_core.training.inputs import unit_range
from sr_core.training.loss import pixel_loss
from sr_core.training.own_thread import OwnThread
from sr_core.training.runtime import resolve
from sr_core.training.step import Step, start
from study.question.config import TrialConfig

WHAT = ("SR", "loss", "gradients", "weights")
MAX_OFFSET_BYTES = 1 << 22
"""Upper bound of the memory that a process allocates before it trains."""


def cases() -> dict[str, TrialConfig]:
    """Returns the configurations by name."""
    losses = {loss: BASE.with_values({"train.loss": loss}) for loss in ("l1", "l2", "charbonnier")}
    return losses | references(BASE)


def digests(config: TrialConfig, threads: int, steps: int) -> dict[str, str]:
    """Returns the digests of SR, loss and gradients before the first step, and of the weights after all steps.

    The training runs in a thread, as trials do.
    """
    with OwnThread(resolve(threads=threads).apply) as thread:
        return thread(_digests, config, threads, steps)


def _digests(config: TrialConfig, threads: int, steps: int) -> dict[str, str]:
    runtime = resolve(threads=threads)
    train = replace(config.train, budget_patches=config.train.batch_size * steps)
    side, scale = config.data.lr_patch_size, config.data.scale
    generator = np.random.default_rng(0)
    lr = generator.integers(0, 256, (train.batch_size, 3, side, side), dtype=np.uint8)
    hr = generator.integers(0, 256, (train.batch_size, 3, side * scale, side * scale), dtype=np.uint8)
    model = A2N(config.model, scale)
    initialise(model, config.seed)
    step = Step(start(model, train, runtime), train, runtime, lambda first, count: (lr, hr))
    sr = model(unit_range(torch.from_numpy(lr), runtime))
    loss = pixel_loss(sr, unit_range(torch.from_numpy(hr), runtime), train)
    loss.backward()  # type: ignore[no-untyped-call]
    result = {"SR": _digest([sr]), "loss": _digest([loss]), "gradients": _digest([p.grad for p in model.parameters()])}
    for _ in range(steps):
        step()
    return result | {"weights": digest_of(weights_of(model))[:16]}


def _digest(tensors: list[torch.Tensor | None]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        assert tensor is not None
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def forked(config: TrialConfig, threads: int, steps: int, count: int) -> Iterator[dict[str, str]]:
    """Yields the digests of forks of this process, one after the other. It must not have computed anything before."""
    for number in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                offset = bytearray(random.Random(number).randrange(MAX_OFFSET_BYTES))
                os.write(writer, json.dumps(digests(config, threads, steps)).encode())
                del offset
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        yield json.loads(text)


def fresh(config: TrialConfig, threads: int, steps: int, count: int) -> Iterator[dict[str, str]]:
    """Yields the digests of new interpreters, one after the other."""
    for number in range(count):
        encoded = json.dumps(config.to_json())
        command = [sys.executable, __file__, "--one", encoded, str(threads), str(steps), str(number)]
        yield json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def counted(samples: list[dict[str, str]]) -> dict[str, int]:
    """Returns how many different digests there are of each result."""
    return {what: len({sample[what] for sample in samples}) for what in WHAT}


@contextmanager
def _load(processes: int) -> Iterator[None]:
    """Keeps that many other processes busy while the block runs."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--forks", type=int, default=40, help="forks per case and number of threads; default: 40")
    add("--fresh", type=int, default=4, help="new interpreters per case and number of threads; default: 4")
    add("--steps", type=int, default=10, help="steps of each process; default: 10")
    add("--threads", type=int, nargs="+", default=[1, 2], help="threads of a training; default: 1 2")
    add("--cases", nargs="+", choices=list(cases()), default=list(cases()), help="default: all")
    add("--batch", type=int, help="patches per step; default: that of the case")
    add("--load", type=int, default=1, help="other busy processes meanwhile; default: 1")
    add("--unsettled", action="store_true", help="leave out the call that settles vector math, with forks only")
    add("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        encoded, threads, steps, number = args.one
        offset = bytearray(random.Random(int(number)).randrange(MAX_OFFSET_BYTES))
        print(json.dumps(digests(TrialConfig.from_json(json.loads(encoded)), int(threads), int(steps))))
        del offset
        return

    if args.unsettled:
        settings.settle_vector_math = lambda: None
    ways: dict[str, tuple[Callable[..., Iterator[dict[str, str]]], int]] = {
        "forks": (forked, args.forks),
        "fresh": (fresh, 0 if args.unsettled else args.fresh),
    }
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {args.steps} steps per process")
    with _load(args.load):
        for name in args.cases:
            config = cases()[name]
            if args.batch:
                config = config.with_values({"train.batch_size": args.batch})
            for threads in args.threads:
                samples = []
                for way, count in ways.values():
                    samples += way(config, threads, args.steps, count)
                counts = ", ".join(f"{what} {count}" for what, count in counted(samples).items())
                print(f"{name:<12} {threads} threads, {len(samples)} processes: different {counts}", flush=True)


if __name__ == "__main__":
    main()
