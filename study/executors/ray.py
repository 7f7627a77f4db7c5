"""Slots on an existing Ray cluster: an actor for each, with one core or a share of a GPU.

Nothing but the cluster's own network is asked of its nodes. What a trial starts from goes down with it; a checkpoint
and the weights come up with the event that tells of them, and are in the coordinator's root before it is journaled. So
a node that vanishes costs what was trained since the last checkpoint, and a stray process can write nothing.
"""

import logging
import signal
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from sr_core.errors import SuiteError
from sr_core.patches.placement import PatchSourceName
from sr_core.process.durable import write_durably
from sr_core.store.hdf5 import PatchStore
from sr_core.training.runtime import Runtime
from study.executors.placement import Placement
from study.executors.ray_actor import (
    LOG,
    ChosenPatchSource,
    MissingPixels,
    RayTrialRunner,
    RayWorkerSetup,
    ShippedFiles,
    ShippedPixels,
    SuitableSources,
    WorkerMessage,
)
from study.executors.remote import WorkerGoneError
from study.executors.trial import TrialTask
from study.executors.worker import Begin, Logged, Message, Order
from study.question.experiment import Experiment
from study.record import provenance
from study.record.events import TrialEvent

_CHUNK = 64 << 20
"""Bytes of a store that are sent as one object."""


class RayWorker:
    """The coordinator's end of one actor."""

    def __init__(self, actor: Any, store: "_Store", homes: dict[str, PatchSourceName]) -> None:
        """
        Args:
            homes: by machine, what its first actor found suitable for the pixels.
        """
        self._actor, self._store, self._homes = actor, store, homes
        self._task: TrialTask | None = None
        self.coming = actor.next.remote()

    def send(self, order: Order) -> None:
        sent: Order | ShippedFiles = order
        if isinstance(order, Begin):
            self._task = order.task
            checkpoint = order.task.checkpoint
            files = {checkpoint.name: checkpoint.read_bytes()} if checkpoint.exists() else {}
            sent = ShippedFiles(order.task, files)
        with suppress(RayError):  # it has died: that is what comes up next
            self._actor.tell.remote(sent)

    def receive(self) -> Message:
        try:
            found = ray.get(self.coming)
        except RayError as exc:
            raise WorkerGoneError(_reason(exc), hit=not isinstance(exc, RayTaskError)) from exc
        self.coming = self._actor.next.remote()
        try:
            if (answered := self._answer(found)) is not None:
                return answered
        except RayError as exc:  # no room in the cluster's memory for the pixels, or the actor is gone
            raise WorkerGoneError(_reason(exc), hit=True) from exc
        assert isinstance(found, WorkerMessage)
        message = found.message
        if isinstance(message, TrialEvent) and self._task is not None and message.trial == self._task.number:
            if found.files:
                self._task.mark.check()
            for name, content in found.files.items():
                write_durably(self._task.folder / name, content)
        return message

    def _answer(self, found: object) -> Logged | None:
        """Give the actor what it asks for; None if it asked for nothing."""
        if isinstance(found, MissingPixels):
            self._actor.tell.remote(ShippedPixels(self._store.parts()))
            return Logged(LOG, logging.DEBUG, "the pixels are sent to a node")
        if isinstance(found, SuitableSources):
            self._actor.tell.remote(ChosenPatchSource(self._homes.setdefault(found.machine, found.home)))
            return Logged(LOG, logging.DEBUG, f"pixels on {found.machine}: {self._homes[found.machine]}")
        return None

    def end(self) -> None:
        with suppress(RayError):
            ray.kill(self._actor)


class _Store:
    """A store as objects of the cluster, made when a node lacks it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[Any] = []

    def parts(self) -> list[Any]:
        if not self._parts:
            with self._path.open("rb") as file:
                while content := file.read(_CHUNK):
                    self._parts.append(ray.put(content))
        return self._parts


class RayPool:
    """Hires actors; they wait for room in the cluster, and end with this process."""

    def __init__(
        self,
        placement: Placement,
        store: PatchStore,
        runtime: Runtime,
        scale: int,
        max_bicubic_psnr: float | None,
    ) -> None:
        connect(placement.ray_address)
        self._resources = _resources(placement)
        self._store = _Store(store.path)
        self._homes: dict[str, PatchSourceName] = {}
        self._setup = RayWorkerSetup(
            store=store.path.resolve(),
            fingerprint=store.fingerprint,
            runtime=runtime,
            source=provenance.source_hash(),
            scale=scale,
            slots=placement.slots,
            slots_per_gpu=placement.slots_per_device,
            max_bicubic_psnr=max_bicubic_psnr,
        )

    def start_worker(self, slot: int) -> RayWorker:
        # A group of one thread each: orders keep their sequence, and none waits for the next message.
        actor = ray.remote(concurrency_groups={"up": 1, "down": 1})(RayTrialRunner)
        placed = actor.options(max_restarts=0, **self._resources)
        return RayWorker(placed.remote(replace(self._setup, slot=slot)), self._store, self._homes)

    def ready(self, workers: Sequence[RayWorker], timeout: float) -> list[RayWorker]:
        by_message = {worker.coming: worker for worker in workers}
        first, rest = ray.wait(list(by_message), num_returns=1, timeout=timeout)
        more = ray.wait(rest, num_returns=len(rest), timeout=0)[0] if first and rest else []
        return [by_message[message] for message in (*first, *more)]

    def close(self) -> None:
        ray.shutdown()


def resolve_there(experiment: Experiment, trials: int, placement: Placement, pixels: int) -> Runtime:
    """The settings under which trials train fastest on a node of the cluster, with the share that a slot gets.

    Args:
        pixels: bytes of the training images.
    """
    from study.executors.runtime import resolve_runtime

    connect(placement.ray_address)
    resolve = ray.remote(max_calls=1)(resolve_runtime).options(**_resources(placement))
    try:
        found = ray.get(resolve.remote(experiment, trials=trials, placement=placement, pixels=pixels))
    except RayError as exc:
        raise SuiteError(f"--ray-address {placement.ray_address}: {_reason(exc)}") from exc
    assert isinstance(found, Runtime)
    return found


def connect(address: str) -> None:
    """Join the cluster.

    Raises:
        SuiteError: there is none.
    """
    if ray.is_initialized():
        return
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        text = str(exc).strip().partition("\n")[0]
        raise SuiteError(f"--ray-address {address}: no Ray cluster ({text}); start one: ray start --head") from exc


@contextmanager
def _own_signals() -> Any:
    """Ray puts its own handler for SIGTERM in place of the session's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resources(placement: Placement) -> dict[str, float]:
    """What a slot occupies of a node."""
    return {"num_cpus": 1, "num_gpus": 1 / placement.trials_per_gpu if placement.device == "cuda" else 0}


def _reason(exc: RayError) -> str:
    """One line of what may be a page."""
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
