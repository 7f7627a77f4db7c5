"""A whole session with worker processes on GPUs, on a machine that only claims to have them."""

from pathlib import Path
from typing import Any

CLAIMED = """
from dataclasses import replace

import torch

from sr_core.training import choice
from sr_core.training import runtime as settings
from study.session import session
from study.executors import opening as executors
from study.executors.inline import InlineExecutor
from study.executors.trial import TrialContext

on_cpu = settings.resolve(threads=1)
on_gpu = replace(on_cpu, device="cuda", device_name="a GPU", precision="tf32", cudnn="91900")


class Elsewhere:
    '''The process that may use the GPUs.'''

    inside = False

    def __call__(self, work, *args, **options):
        Elsewhere.inside = True
        try:
            return work(*args, **options)
        finally:
            Elsewhere.inside = False

    def close(self):
        print("the GPUs are given back", flush=True)


def there(result):
    def look(*_, **__):
        assert Elsewhere.inside, "the coordinator has used a GPU"
        return result

    return look


def workers(setup, slots, limits):
    print("workers:", setup.runtime.device, setup.source_name, setup.gpu_share, flush=True)
    bench = TrialContext(setup.store, on_cpu, "host", max_bicubic_psnr=setup.max_bicubic_psnr)
    executor = InlineExecutor(bench)
    close = executor.close

    def closed():
        print("the workers have ended", flush=True)
        close()

    executor.close = closed
    return executor


def concluded(*given, **options):
    print("the conclusion begins on", options["device"], flush=True)
    return conclude(*given, **options)


assert not torch.cuda.is_available()
for name, result in {
    "_lazy_init": None, "init": None, "device_count": 1, "mem_get_info": (60 << 30, 80 << 30),
    "get_device_name": "a GPU", "get_device_capability": (9, 0),
}.items():
    setattr(torch.cuda, name, there(result))
settings.resolve = there(on_gpu)
choice.choose = there(on_gpu)
executors.ProcessPool = lambda setup: setup
executors.RemoteExecutor = workers
conclude, session.conclude = session.conclude, concluded


def runner(placement, device):
    assert (placement.executor, device) == ("processes", "cuda")
    return Elsewhere()


session.runner_for = runner
"""


def test_the_coordinator_uses_no_gpu_from_its_first_line_to_its_last(
    commands: Any, tiny: Any, state_of: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    argv = tiny.argv(root, "--gpus", 0, "--executor", "processes", trials=3)
    ended = commands.run("study.run", *argv, first=CLAIMED)
    assert (ended.status, ended.err) == (0, "")
    state = state_of(root)
    assert (state.opened.runtime["device"], state.opened.runtime["cudnn"]) == ("cuda", "91900")
    lines = [line for line in ended.out.splitlines() if line.startswith(("workers:", "the "))]
    assert lines[:4] == [
        "workers: cuda device 1.0",
        "the GPUs are given back",
        "the workers have ended",
        "the conclusion begins on cuda",
    ], "in this order"
    again = commands.run("study.run", *tiny.argv(root, "--gpus", 0, "--executor", "processes", trials=4), first=CLAIMED)
    assert (again.status, again.err) == (0, "")
