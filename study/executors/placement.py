"""Placement says how many trials run at once, on which devices, and how the devices are shared.

Placement does not change results (promise 2). The settings that do change results, the kind of device and the number
of threads per trial, are resolved when a study begins and then stay fixed. The choice among GPUs of one model and the
number of concurrent trials may differ from session to session, within the number of available cores.
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
_THREADS_STAY_FIXED = (
    "; a study keeps the number of threads that it began with: begin a new study under another --study-name"
)


def add_placement_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for slots, devices, retries and timeouts to a parser."""
    parser.add_argument(
        "--executor",
        choices=("inline", "processes", "ray"),
        help="run trials in this process, in one worker process per slot, or on a Ray cluster "
        "(default: inline for one slot, processes for several)",
    )
    parser.add_argument(
        "--slots", type=at_least_one, metavar="N", help="number of concurrent trials, on the CPU or on Ray (default: 1)"
    )
    parser.add_argument(
        "--gpus",
        type=_gpus,
        default=(),
        metavar="N,N…",
        help="train on these GPUs; a study cannot change between CPU and GPU later (default: CPU)",
    )
    parser.add_argument(
        "--trials-per-gpu",
        type=at_least_one,
        metavar="N",
        help="number of concurrent trials per GPU (default: 1); on Ray, each slot reserves 1/N of a GPU "
        "(default on Ray: one CPU core, no GPU)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="address of the cluster for --executor ray (default: the cluster of this host)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=_RETRIES,
        choices=range(100),
        metavar="N",
        help=f"how often a trial is resumed after its worker died (default: {_RETRIES})",
    )
    parser.add_argument(
        "--hang-timeout",
        type=seconds,
        default=_HANG_SECONDS,
        metavar="T",
        help="end a worker process that shows no sign of life for this long (default: 10m)",
    )
    parser.add_argument(
        "--trial-timeout",
        type=seconds,
        metavar="T",
        help="end a worker process that spends longer than this on one trial (default: never)",
    )


def _gpus(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise argparse.ArgumentTypeError(f"expected distinct GPU numbers such as 0 or 0,1, got {text!r}")

    return tuple(map(int, parts))


def check_gpus(requested: tuple[str, ...], models: list[str]) -> None:
    """Check that CUDA finds every requested GPU and that all are of one model.

    Args:
        requested: the GPU of each slot, as CUDA_VISIBLE_DEVICES names it.
        models: model names of the GPUs that CUDA finds while only the requested ones are visible.
    Raises:
        SuiteError: a GPU is missing, or the GPUs are of different models.
    """
    names = ",".join(dict.fromkeys(requested))
    if len(models) < len(set(requested)):
        count = str(len(models)) if models else "none"
        raise SuiteError(f"--gpus {names}: CUDA finds {count} of them; leave --gpus out to train on the CPU")
    if len(set(models)) > 1:
        raise SuiteError(
            f"--gpus {names} are different models ({', '.join(models)}), which round differently: "
            "run a separate study on each model"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """The slots of one session and the limits of their workers."""

    executor: ExecutorName = "inline"
    slots: int = 1
    """Number of concurrent trials."""
    gpus: tuple[str, ...] = ()
    """The GPU of each slot, as CUDA_VISIBLE_DEVICES names it; empty on the CPU and on Ray."""
    trials_per_gpu: int = 0
    """On Ray, each slot reserves 1/trials_per_gpu of a GPU; 0 means no GPU."""
    ray_address: str = "auto"
    hang_timeout: float = _HANG_SECONDS
    """Seconds without a sign of life after which a worker is ended."""
    retries: int = _RETRIES
    """How often a trial is resumed after its worker was lost."""
    trial_timeout: float | None = None
    """Seconds that a worker may spend on one trial before it is ended; None means no limit."""

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The kind of device. Results do not depend on which device of that kind runs a trial."""
        return "cuda" if self.gpus or self.trials_per_gpu else "cpu"

    @property
    def slots_per_device(self) -> int:
        """The number of concurrent trials on each GPU or, without GPUs, on the CPU."""
        if self.executor == "ray":
            return self.trials_per_gpu or 1
        return self.slots // max(1, len(set(self.gpus)))

    def cores_each(self, cores: int) -> int:
        """Return how many of `cores` cores each slot gets; on Ray a slot has one."""
        if self.executor == "ray":
            return 1
        return max(1, cores // self.slots)

    def check(self, runtime: Mapping[str, Any], cores: int) -> None:
        """Check that the machine has enough cores for all slots. On Ray a slot waits for a free core instead.

        Args:
            runtime: the study's recorded settings.
        Raises:
            SuiteError: the slots need more cores than the machine has.
        """
        if self.executor == "ray":
            return
        threads = runtime["threads"] if self.device == "cpu" else 1
        if self.slots == 1 or self.slots * threads <= cores:
            return

        threads_text = "1 thread" if threads == 1 else f"{threads} threads"
        cores_text = "1 core" if cores == 1 else f"{cores} cores"
        advice = _THREADS_STAY_FIXED if threads > 1 else ""
        raise SuiteError(
            f"--slots {self.slots}: expected at most {max(1, cores // threads)}, because each slot needs "
            f"{threads_text} and the machine has {cores_text}{advice}"
        )


def placement_of(args: argparse.Namespace) -> Placement:
    """Return the placement that the flags describe, and make only the GPUs that they name visible to this process.

    Raises:
        SuiteError: flags contradict each other, or a GPU is not visible.
    """
    if args.executor == "ray":
        return _on_ray(args)
    if args.ray_address:
        raise SuiteError("--ray-address needs --executor ray")
    if args.gpus and args.slots:
        raise SuiteError("--slots counts trials on the CPU; with --gpus, use --trials-per-gpu")
    if args.trials_per_gpu and not args.gpus:
        raise SuiteError("--trials-per-gpu needs --gpus")

    per_gpu = args.trials_per_gpu or 1
    slots = len(args.gpus) * per_gpu if args.gpus else args.slots or 1
    executor: ExecutorName = args.executor or ("processes" if slots > 1 else "inline")
    if executor == "inline" and slots > 1:
        raise SuiteError(f"--executor inline has one slot, {slots} were asked for; use --executor processes")
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
        raise SuiteError(
            "--gpus names GPUs of this machine; on Ray, use --trials-per-gpu N to give each slot 1/N of a GPU"
        )
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
    """Make only these GPUs visible to this process, and return their names for CUDA_VISIBLE_DEVICES.

    Call this before CUDA is first used, because CUDA reads the variable then.

    Args:
        numbers: GPU numbers, counted among the GPUs that are visible now.
    Raises:
        SuiteError: fewer GPUs are visible.
    """
    if not numbers:
        return ()

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as in nvidia-smi; by default CUDA sorts by speed
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if allowed is None else _devices_in(allowed)
    if names is not None and max(numbers) >= len(names):
        left = f"leaves {len(names)}, counted from 0" if names else "leaves none"
        raise SuiteError(
            f"--gpus {max(numbers)}: CUDA_VISIBLE_DEVICES={allowed} {left}; leave --gpus out to train on the CPU, or "
            "ask the batch system for GPUs"
        )

    chosen = tuple(str(n) if names is None else names[n] for n in numbers)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    return chosen


def _devices_in(visible: str) -> tuple[str, ...]:
    """Return the devices that a value of CUDA_VISIBLE_DEVICES leaves visible, parsed as CUDA does.

    The first word that names no device ends the list: batch systems write "", "-1" or "NoDevFiles" for no device.
    If a device is named twice, no device is visible.
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
