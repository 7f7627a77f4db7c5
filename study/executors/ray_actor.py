"""The far end of a slot on a Ray cluster: a worker in one of the cluster's processes, and what it exchanges."""

import glob
import logging
import os
import queue
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import ray

from sr_core.errors import StoreError
from sr_core.patches.placement import PatchSourceName, choose_patch_source
from sr_core.process.durable import write_durably
from sr_core.process.floats import check_that_threads_agree
from sr_core.process.parent import is_dead
from sr_core.process.whole_file import whole_file
from sr_core.store.hdf5 import PatchStore, load_store
from sr_core.training.memory import GPU_SHARE, keep_to_share
from sr_core.training.runtime import Runtime
from study.executors.remote import WorkerGoneError
from study.executors.trial import TrialContext, TrialTask
from study.executors.worker import Begin, LogUp, Message, Order, broken, serve
from study.record import provenance
from study.record.events import Checkpointed, Finished

LOG = "study.executors.ray"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayWorkerSetup:
    """What an actor needs to train any trial of a study."""

    store: Path
    """Where the coordinator has it; a node that sees the same file there takes that."""
    fingerprint: str
    runtime: Runtime
    source: str
    """Hash of the coordinator's code."""
    max_bicubic_psnr: float | None
    """The study's bound for validation crops."""
    scale: int
    slots: int
    """Of the session, which may all be on one node."""
    slots_per_gpu: int
    slot: int = 0


@dataclass(frozen=True, slots=True)
class WorkerMessage:
    """Up: what was told, and the files that it tells of."""

    message: Message
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShippedFiles:
    """Down: a trial, and the files that it starts from."""

    task: TrialTask
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class MissingPixels:
    """Up: there is no such store here."""


@dataclass(frozen=True, slots=True)
class ShippedPixels:
    """Down: the store, in parts."""

    parts: Sequence[Any]


@dataclass(frozen=True, slots=True)
class SuitableSources:
    """Up: where the pixels would fit, as this actor finds its machine."""

    machine: str
    """Node and GPU: actors with the same one share its memory."""
    home: PatchSourceName


@dataclass(frozen=True, slots=True)
class ChosenPatchSource:
    """Down: where the pixels go, the same for all actors of a machine.

    The second actor finds less memory free than the first, whose pixels are there already.
    """

    name: PatchSourceName


Awaited = TypeVar("Awaited", ShippedPixels, ChosenPatchSource)


class RayTrialRunner:
    """The far end: a worker in a process of the cluster, whose channel is made of this actor's methods."""

    def __init__(self, setup: RayWorkerSetup) -> None:
        self._up: queue.SimpleQueue[WorkerMessage | MissingPixels | SuitableSources | Exception] = queue.SimpleQueue()
        self._down: queue.SimpleQueue[Order | ShippedFiles | ShippedPixels | ChosenPatchSource] = queue.SimpleQueue()
        self._early: deque[Order | ShippedFiles] = deque()
        """Told while the pixels or their home were awaited."""
        self._folder = _own_folder()
        self._task: TrialTask | None = None
        threading.Thread(target=self._work, args=(setup,), daemon=True).start()

    @ray.method(concurrency_group="up")  # type: ignore[untyped-decorator]
    def next(self) -> WorkerMessage | MissingPixels | SuitableSources:
        """The next message; waits for it."""
        found = self._up.get()
        if isinstance(found, Exception):
            raise found
        return found

    @ray.method(concurrency_group="down")  # type: ignore[untyped-decorator]
    def tell(self, order: Order | ShippedFiles | ShippedPixels | ChosenPatchSource) -> None:
        """Take an order."""
        self._down.put(order)

    def _work(self, setup: RayWorkerSetup) -> None:
        logging.basicConfig(level=logging.WARNING, handlers=[LogUp(self)])
        try:
            if setup.source != provenance.source_hash():
                raise WorkerGoneError(f"{socket.gethostname()} has other code than the coordinator; install the same")
            if unmet := setup.runtime.unmet():
                logging.getLogger(LOG).warning("slot %d rounds differently: %s", setup.slot, "; ".join(unmet))
            store = self._store(setup)
            runtime = setup.runtime.here()
            runtime.apply()  # in this thread, which trains
            check_that_threads_agree()
            home = self._home(setup, store, runtime.device)
            if runtime.device != "cpu" and setup.slots_per_gpu > 1:
                keep_to_share(GPU_SHARE / setup.slots_per_gpu)
            serve(self, TrialContext(store, runtime, home, max_bicubic_psnr=setup.max_bicubic_psnr))
        except OSError as exc:  # this node's disk or memory: no trial's fault
            self.send(broken(exc, self._folder))
        except Exception as exc:  # whatever it is, the coordinator has to know
            self._up.put(exc)

    def send(self, message: Message) -> None:
        self._up.put(WorkerMessage(message, self._files_of(message)))

    def receive(self) -> Order:
        order = self._early.popleft() if self._early else self._down.get()
        assert not isinstance(order, ShippedPixels | ChosenPatchSource)
        if not isinstance(order, ShippedFiles):
            return order
        folder = self._folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in order.files.items():
            write_durably(folder / name, content)
        # The fence is a file of the coordinator's machine, which looks at it when the checkpoint has come.
        self._task = replace(order.task, folder=folder, fence=None)
        return Begin(self._task)

    def waiting(self) -> bool:
        return bool(self._early) or not self._down.empty()

    def _files_of(self, message: Message) -> dict[str, bytes]:
        if self._task is None or not isinstance(message, Checkpointed | Finished):
            return {}
        path = self._task.checkpoint if isinstance(message, Checkpointed) else self._task.weights
        return {path.name: path.read_bytes()}

    def _store(self, setup: RayWorkerSetup) -> PatchStore:
        """The study's pixels: the coordinator's own file where this node sees it, else a copy in this node's memory."""
        with suppress(OSError, StoreError):
            store = load_store(setup.store)
            if store.fingerprint == setup.fingerprint:
                return store
        self._up.put(MissingPixels())
        order = self._awaited(ShippedPixels)
        path = self._folder / setup.store.name
        with whole_file(path) as file:
            for part in order.parts:
                file.write(ray.get(part))
        return load_store(path)

    def _home(self, setup: RayWorkerSetup, store: PatchStore, device: str) -> PatchSourceName:
        """Where the pixels go; the coordinator sees to it that all actors of a machine do the same."""
        slots = min(setup.slots, _slots_here(setup))
        found = choose_patch_source(store, setup.scale, device, slots=slots, slots_per_device=setup.slots_per_gpu)
        self._up.put(SuitableSources(_machine(device), found))
        return self._awaited(ChosenPatchSource).name

    def _awaited(self, kind: type[Awaited]) -> Awaited:
        """The next order of this kind; what else is told meanwhile keeps its turn."""
        while not isinstance(order := self._down.get(), kind):
            assert not isinstance(order, ShippedPixels | ChosenPatchSource)
            self._early.append(order)
        return order


def _machine(device: str) -> str:
    """The node, and the GPU of this actor if it has one."""
    node = str(ray.get_runtime_context().get_node_id())
    return node if device == "cpu" else f"{node} GPU {','.join(map(str, ray.get_gpu_ids()))}"


def _slots_here(setup: RayWorkerSetup) -> int:
    """The most slots that this node can hold: each has a core."""
    node = ray.get_runtime_context().get_node_id()
    cores = [entry.get("Resources", {}).get("CPU", 0) for entry in ray.nodes() if entry.get("NodeID") == node]
    return max(1, int(cores[0])) if cores else setup.slots


def _own_folder() -> Path:
    """A temporary folder of this process; those of this host's processes that are gone are removed."""
    prefix = f"a2n-study-{os.getuid()}-{socket.gethostname()}-"  # several hosts or containers may share the folder
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if is_dead(pid):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
