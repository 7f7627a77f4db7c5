"""The actor that runs a slot on a Ray cluster, and the messages that it exchanges with the coordinator."""

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
    """Path of the patch store on the coordinator. A node that finds the same file there uses it."""
    fingerprint: str
    """Fingerprint of the store's content."""
    runtime: Runtime
    source: str
    """Hash of the coordinator's code."""
    max_bicubic_psnr: float | None
    """The study's upper bound for the bicubic PSNR of validation crops, in dB."""
    scale: int
    slots: int
    """Number of slots of the session. All of them may be on one node."""
    slots_per_gpu: int
    slot: int = 0


@dataclass(frozen=True, slots=True)
class WorkerMessage:
    """Up: a worker's message, and the files that it announces."""

    message: Message
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShippedFiles:
    """Down: a trial to run, and the files that it starts from."""

    task: TrialTask
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class MissingPixels:
    """Up: a request for the patch store, which this node does not have."""


@dataclass(frozen=True, slots=True)
class ShippedPixels:
    """Down: the patch store, as references to its parts."""

    parts: Sequence[Any]


@dataclass(frozen=True, slots=True)
class SuitableSources:
    """Up: the patch source that suits the free memory of this actor's machine."""

    machine: str
    """Node and GPU. Actors of the same node and GPU share its memory."""
    source_name: PatchSourceName


@dataclass(frozen=True, slots=True)
class ChosenPatchSource:
    """Down: the patch source to use, the same for all actors of a machine.

    The coordinator decides because a second actor finds less free memory than the first, which already holds pixels.
    """

    name: PatchSourceName


Awaited = TypeVar("Awaited", ShippedPixels, ChosenPatchSource)


class RayTrialRunner:
    """An actor that trains trials in a thread. The coordinator calls its methods to send orders and fetch messages."""

    def __init__(self, setup: RayWorkerSetup) -> None:
        self._up: queue.SimpleQueue[WorkerMessage | MissingPixels | SuitableSources | Exception] = queue.SimpleQueue()
        self._down: queue.SimpleQueue[Order | ShippedFiles | ShippedPixels | ChosenPatchSource] = queue.SimpleQueue()
        self._early: deque[Order | ShippedFiles] = deque()
        """Orders that arrived while the actor waited for the pixels or the patch source."""
        self._folder = _own_folder()
        self._task: TrialTask | None = None
        threading.Thread(target=self._work, args=(setup,), daemon=True).start()

    @ray.method(concurrency_group="up")  # type: ignore[untyped-decorator]
    def next(self) -> WorkerMessage | MissingPixels | SuitableSources:
        """Wait for the next message and return it. If the actor failed, raise its error instead."""
        message = self._up.get()
        if isinstance(message, Exception):
            raise message
        return message

    @ray.method(concurrency_group="down")  # type: ignore[untyped-decorator]
    def tell(self, order: Order | ShippedFiles | ShippedPixels | ChosenPatchSource) -> None:
        """Queue an order or an answer for the worker."""
        self._down.put(order)

    def _work(self, setup: RayWorkerSetup) -> None:
        logging.basicConfig(level=logging.WARNING, handlers=[LogUp(self)])
        try:
            if setup.source != provenance.source_hash():
                raise WorkerGoneError(
                    f"{socket.gethostname()} runs different code than the coordinator; install the same version"
                )
            unmet = setup.runtime.unmet()
            if unmet:
                logging.getLogger(LOG).warning("slot %d rounds differently: %s", setup.slot, "; ".join(unmet))

            store = self._store(setup)
            runtime = setup.runtime.here()
            runtime.apply()  # in this thread, which trains
            check_that_threads_agree()
            source_name = self._source_name(setup, store, runtime.device)
            if runtime.device != "cpu" and setup.slots_per_gpu > 1:
                keep_to_share(GPU_SHARE / setup.slots_per_gpu)
            serve(self, TrialContext(store, runtime, source_name, max_bicubic_psnr=setup.max_bicubic_psnr))
        except OSError as exc:  # this node's disk or memory failed, not the trial
            self.send(broken(exc, self._folder))
        except Exception as exc:  # any other error: `next` raises it, so that the coordinator learns of it
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

        # The fence is a file on the coordinator's machine. The coordinator checks it when a checkpoint arrives.
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
        """Open the study's patch store: the coordinator's own file if this node sees it, otherwise a copy sent here."""
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

    def _source_name(self, setup: RayWorkerSetup, store: PatchStore, device: str) -> PatchSourceName:
        """Propose a patch source to the coordinator, and return the one that it chose for this machine."""
        slots = min(setup.slots, _slots_here(setup))
        proposal = choose_patch_source(store, setup.scale, device, slots=slots, slots_per_device=setup.slots_per_gpu)
        self._up.put(SuitableSources(_machine(device), proposal))
        return self._awaited(ChosenPatchSource).name

    def _awaited(self, kind: type[Awaited]) -> Awaited:
        """Wait for an order of this kind and return it. Other orders are kept for later, in sequence."""
        while True:
            order = self._down.get()
            if isinstance(order, kind):
                return order
            assert not isinstance(order, ShippedPixels | ChosenPatchSource)
            self._early.append(order)


def _machine(device: str) -> str:
    """Return the name of this actor's node and, if it has one, of its GPU."""
    node = str(ray.get_runtime_context().get_node_id())
    return node if device == "cpu" else f"{node} GPU {','.join(map(str, ray.get_gpu_ids()))}"


def _slots_here(setup: RayWorkerSetup) -> int:
    """Return the largest number of slots that this node can run; each needs a core."""
    node = ray.get_runtime_context().get_node_id()
    cores = [entry.get("Resources", {}).get("CPU", 0) for entry in ray.nodes() if entry.get("NodeID") == node]
    return max(1, int(cores[0])) if cores else setup.slots


def _own_folder() -> Path:
    """Create a temporary folder for this process, and remove those of dead processes of this host."""
    prefix = f"a2n-study-{os.getuid()}-{socket.gethostname()}-"  # several hosts or containers may share the parent
    for folder in Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if is_dead(pid):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
