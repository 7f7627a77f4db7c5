"""Runs each slot as an actor of an existing Ray cluster, with one CPU core or a share of a GPU.

The nodes need no shared file system. The files that a trial starts from travel with its order. Checkpoints and weights
travel with the event that announces them, and are written to the coordinator's disk before the event is recorded. If a
node vanishes, only the training since the last checkpoint is lost. A stray process on a node cannot change the study.
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

_CHUNK_BYTES = 64 << 20
"""Size of the objects in which a store is sent."""


class RayWorker:
    """The coordinator's side of one actor."""

    def __init__(self, actor: Any, store: "_Store", sources: dict[str, PatchSourceName]) -> None:
        """
        Args:
            sources: the patch source of each machine, as its first actor proposed it; this worker adds to it.
        """
        self._actor = actor
        self._store = store
        self._sources = sources
        self._task: TrialTask | None = None
        self.next_message = actor.next.remote()

    def send(self, order: Order) -> None:
        parcel: Order | ShippedFiles = order
        if isinstance(order, Begin):
            self._task = order.task
            checkpoint = order.task.checkpoint
            files = {checkpoint.name: checkpoint.read_bytes()} if checkpoint.exists() else {}
            parcel = ShippedFiles(order.task, files)

        with suppress(RayError):  # the actor died: `receive` reports that
            self._actor.tell.remote(parcel)

    def receive(self) -> Message:
        try:
            parcel = ray.get(self.next_message)
        except RayError as exc:
            raise WorkerGoneError(_reason(exc), hit=not isinstance(exc, RayTaskError)) from exc

        self.next_message = self._actor.next.remote()
        try:
            answered = self._answer(parcel)
        except RayError as exc:  # the cluster's memory has no room for the pixels, or the actor died
            raise WorkerGoneError(_reason(exc), hit=True) from exc
        if answered is not None:
            return answered

        assert isinstance(parcel, WorkerMessage)
        message = parcel.message
        if isinstance(message, TrialEvent) and self._task is not None and message.trial == self._task.number:
            if parcel.files:
                self._task.mark.check()
            for name, content in parcel.files.items():
                write_durably(self._task.folder / name, content)
        return message

    def _answer(self, request: object) -> Logged | None:
        """Send the actor what it requests, and return a log line about it; None if this is not a request."""
        if isinstance(request, MissingPixels):
            self._actor.tell.remote(ShippedPixels(self._store.parts()))
            return Logged(LOG, logging.DEBUG, "sending the pixels to a node")
        if isinstance(request, SuitableSources):
            source_name = self._sources.setdefault(request.machine, request.source_name)
            self._actor.tell.remote(ChosenPatchSource(source_name))
            return Logged(LOG, logging.DEBUG, f"pixels on {request.machine}: {source_name}")
        return None

    def end(self) -> None:
        with suppress(RayError):
            ray.kill(self._actor)


class _Store:
    """A patch store as objects of the cluster, created when the first node needs them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[Any] = []

    def parts(self) -> list[Any]:
        """Return references to the store's parts, in order."""
        if not self._parts:
            with self._path.open("rb") as file:
                while content := file.read(_CHUNK_BYTES):
                    self._parts.append(ray.put(content))
        return self._parts


class RayPool:
    """Starts actors, which wait for free resources in the cluster and end when this process ends."""

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
        self._sources: dict[str, PatchSourceName] = {}
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
        # One thread per direction: orders keep their sequence, and no order waits for the next message.
        actor_class = ray.remote(concurrency_groups={"up": 1, "down": 1})(RayTrialRunner)
        placed = actor_class.options(max_restarts=0, **self._resources)
        return RayWorker(placed.remote(replace(self._setup, slot=slot)), self._store, self._sources)

    def ready(self, workers: Sequence[RayWorker], timeout: float) -> list[RayWorker]:
        by_message = {worker.next_message: worker for worker in workers}
        arrived, pending = ray.wait(list(by_message), num_returns=1, timeout=timeout)
        also_arrived = []
        if arrived and pending:
            also_arrived, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        return [by_message[message] for message in (*arrived, *also_arrived)]

    def close(self) -> None:
        ray.shutdown()


def resolve_there(experiment: Experiment, trials: int, placement: Placement, pixels: int) -> Runtime:
    """Return the settings under which trials train fastest on a node of the cluster, measured in one slot's share.

    Args:
        pixels: size of the training images in bytes.
    Raises:
        SuiteError: there is no cluster, or the measurement failed.
    """
    from study.executors.runtime import resolve_runtime

    connect(placement.ray_address)
    resolve = ray.remote(max_calls=1)(resolve_runtime).options(**_resources(placement))
    try:
        runtime = ray.get(resolve.remote(experiment, trials=trials, placement=placement, pixels=pixels))
    except RayError as exc:
        raise SuiteError(f"--ray-address {placement.ray_address}: {_reason(exc)}") from exc
    assert isinstance(runtime, Runtime)
    return runtime


def connect(address: str) -> None:
    """Join the Ray cluster at this address; does nothing if this process has already joined one.

    Raises:
        SuiteError: no cluster answers.
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
    """Keep the session's signal handlers, because `ray.init` installs its own for SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resources(placement: Placement) -> dict[str, float]:
    """Return the CPU cores and GPUs that a slot reserves on a node."""
    gpus = 1 / placement.trials_per_gpu if placement.device == "cuda" else 0
    return {"num_cpus": 1, "num_gpus": gpus}


def _reason(exc: RayError) -> str:
    """Return the first line of an error text that may fill a page, at most 300 characters of it."""
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
