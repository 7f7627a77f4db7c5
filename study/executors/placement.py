"""Where trials run: how many at once, on what, and with which share of it. Changes no result (contract 2).

What changes results, the kind of device and the threads of a training, is resolved when a study begins and stays;
which of several equal GPUs trains a trial, and how many trials run beside it, may differ from session to session, as
far as the cores go round.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sr_core.errors import SuiteError
from study.commandline import at_least_one, seconds

ExecutorName = Literal["inline", "processes", "ray"]

_HANG_SECONDS = 600.0
_RETRIES = 2
_THREADS_STAY = "; a study keeps the threads that it began with: begin one under another --study-name"


def add_placement_flags(parser: argparse.ArgumentParser) -> None:
    """How many trials run at once and where, and when a worker is given up."""
    parser.add_argument(
        "--executor",
        choices=("inline", "processes", "ray"),
        help="trials in this process, in one each, or on a Ray cluster (default: processes for more than one slot)",
    )
    parser.add_argument(
        "--slots", type=at_least_one, metavar="N", help="trials at once on the CPU, or on Ray (default: 1)"
    )
    parser.add_argument(
        "--gpus", type=_gpus, default=(), metavar="N,N…", help="train on these GPUs for the study's life (default: CPU)"
    )
    parser.add_argument(
        "--trials-per-gpu", type=at_least_one, metavar="N", help="trials at once on each GPU (default: 1); with Ray a "
        "slot takes such a share of any GPU (default: none, one core)"
    )  # fmt: skip
    parser.add_argument(
        "--ray-address", metavar="HOST:PORT", help="the cluster for --executor ray (default: the one this host is in)"
    )
    parser.add_argument(
        "--retries", type=int, default=_RETRIES, choices=range(100), metavar="N",
        help=f"how often a trial goes on after its worker died (default: {_RETRIES})",
    )  # fmt: skip
    parser.add_argument(
        "--hang-timeout", type=seconds, default=_HANG_SECONDS, metavar="T",
        help="a worker process without a sign of life for this time is ended (default: 10m)",
    )  # fmt: skip
    parser.add_argument(
        "--trial-timeout", type=seconds, metavar="T",
        help="a worker process that is at one trial for longer is ended (default: never)",
    )  # fmt: skip


def _gpus(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise argparse.ArgumentTypeError(f"expected different numbers of GPUs such as 0 or 0,1, got {text!r}")
    return tuple(map(int, parts))


def check_gpus(asked: tuple[str, ...], models: list[str]) -> None:
    """Raises SuiteError where the GPUs that were asked for are not there, or would not compute alike.

    Args:
        models: of those of the GPUs that CUDA finds, once no others are visible.
    """
    named = ",".join(dict.fromkeys(asked))
    if len(models) < len(set(asked)):
        found = f"CUDA finds {len(models)} of them" if models else "CUDA finds none of them"
        raise SuiteError(f"--gpus {named}: {found}; leave --gpus out to train on the CPU")
    if len(set(models)) > 1:
        raise SuiteError(
            f"--gpus {named} are different models ({', '.join(models)}), which round differently: "
            "run a study of its own on each"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The slots of one session."""

    executor: ExecutorName = "inline"
    slots: int = 1
    gpus: tuple[str, ...] = ()
    """For each slot the one GPU that it sees, as CUDA_VISIBLE_DEVICES names it; empty on the CPU and on Ray."""
    trials_per_gpu: int = 0
    """On Ray: a slot takes one of so many parts of a GPU; 0 for none."""
    ray_address: str = "auto"
    hang_timeout: float = _HANG_SECONDS
    """Seconds without a sign of life after which a worker is ended."""
    retries: int = _RETRIES
    """How often a trial goes on after its worker was lost."""
    trial_timeout: float | None = None
    """Seconds at one trial after which a worker is ended."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The kind of device; which one of its kind does not decide bits."""
        return "cuda" if self.gpus or self.trials_per_gpu else "cpu"

    @property
    def slots_per_device(self) -> int:
        """Trials at once on each GPU, or on the CPU; on Ray, on the GPU of a slot."""
        if self.executor == "ray":
            return self.trials_per_gpu or 1
        return self.slots // max(1, len(set(self.gpus)))

    def cores_each(self, cores: int) -> int:
        """The share of one slot in so many cores; on Ray it has one."""
        return 1 if self.executor == "ray" else max(1, cores // self.slots)

    def check(self, runtime: Mapping[str, Any], cores: int) -> None:
        """Raises SuiteError where the slots of this session would want more cores than there are."""
        if self.executor == "ray":
            return  # there it waits until the cluster has room
        threads = runtime["threads"] if self.device == "cpu" else 1
        if self.slots > 1 and self.slots * threads > cores:
            raise SuiteError(
                f"--slots {self.slots}: expected at most {max(1, cores // threads)}, for each trains with {threads} "
                f"thread{'s' * (threads > 1)} and the machine offers {cores} core{'s' * (cores > 1)}"
                f"{_THREADS_STAY * (threads > 1)}"
            )


def placement_of(args: argparse.Namespace) -> Placement:
    """The slots that the flags ask for. Restricts this process to the GPUs that they name.

    Raises:
        SuiteError: flags contradict each other.
    """
    if args.executor == "ray":
        return _on_ray(args)
    if args.ray_address:
        raise SuiteError("--ray-address needs --executor ray")
    if args.gpus and args.slots:
        raise SuiteError("--slots counts trials on the CPU: with --gpus it is --trials-per-gpu")
    if args.trials_per_gpu and not args.gpus:
        raise SuiteError("--trials-per-gpu needs --gpus")
    per_gpu = args.trials_per_gpu or 1
    slots = len(args.gpus) * per_gpu if args.gpus else args.slots or 1
    executor: ExecutorName = args.executor or ("processes" if slots > 1 else "inline")
    if executor == "inline" and slots > 1:
        raise SuiteError(f"--executor inline has one slot, {slots} were asked for; use processes")
    if args.trial_timeout and executor == "inline":
        raise SuiteError("--trial-timeout ends worker processes: add --executor processes")
    return Placement(
        executor=executor,
        slots=slots,
        gpus=_visible(args.gpus) * per_gpu,
        retries=args.retries,
        hang_timeout=args.hang_timeout,
        trial_timeout=args.trial_timeout,
    )


def _on_ray(args: argparse.Namespace) -> Placement:
    if args.gpus:
        raise SuiteError("--gpus names GPUs of this machine: on Ray say how many share one, --trials-per-gpu 1")
    return Placement(
        executor="ray",
        slots=args.slots or 1,
        trials_per_gpu=args.trials_per_gpu or 0,
        ray_address=args.ray_address or "auto",
        retries=args.retries,
        hang_timeout=args.hang_timeout,
        trial_timeout=args.trial_timeout,
    )


def _visible(numbers: tuple[int, ...]) -> tuple[str, ...]:
    """These of the GPUs that this process may see, by the names that its children need; from now on it sees no others.

    CUDA reads the variable when it is first used.
    """
    if not numbers:
        return ()
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts; CUDA's own order is by speed
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if allowed is None else _devices_in(allowed)
    if names is not None and max(numbers) >= len(names):
        left = f"leaves {len(names)}, counted from 0" if names else "leaves none"
        raise SuiteError(f"--gpus {max(numbers)}: CUDA_VISIBLE_DEVICES={allowed} {left}; leave --gpus out to train on "
                         "the CPU, or ask the batch system for GPUs")  # fmt: skip
    chosen = tuple(str(n) if names is None else names[n] for n in numbers)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return chosen


def _devices_in(visible: str) -> tuple[str, ...]:
    """The devices that this value of CUDA_VISIBLE_DEVICES leaves, as CUDA reads it.

    The first word that names no device ends the list: batch systems write "", "-1" or "NoDevFiles" for none. A device
    that is named twice makes the whole list void.
    """
    names: list[str] = []
    for word in visible.split(","):
        name = word.strip()
        if name.isascii() and name.isdecimal():
            name = str(int(name))
        elif not name.startswith(("GPU-", "MIG-")):
            break
        if name in names:
            return ()
        names.append(name)
    return tuple(names)
