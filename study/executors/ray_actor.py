"""The far end of a slot on a Ray cluster: a worker in one of the cluster's processes, and what it exchanges."""

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
from typing import Any

import ray

from sr_core.data.store import PatchStore, load_store
from sr_core.data.whole_file import whole_file
from sr_core.durable import write_durably
from sr_core.errors import StoreError
from sr_core.training.runtime import Runtime
from study import provenance
from study.events import Checkpointed, Finished
from study.executors.remote import WorkerGoneError
from study.executors.worker import Begin, LogUp, Message, Order, serve
from study.trial import Bench, TrialTask

LOG = "study.executors.ray"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What an actor needs to train any trial of a study."""

    store: Path
    """Where the coordinator has it; a node that sees the same file there takes that."""
    fingerprint: str
    runtime: Runtime
    source: str
    """Hash of the coordinator's code."""
    max_bicubic_psnr: float | None
    """The study's bound for validation crops."""
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Parcel:
    """Up: what was told, and the files that it tells of."""

    message: Message
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Consignment:
    """Down: a trial, and the files that it starts from."""

    task: TrialTask
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Lacking:
    """Up: there is no such store here."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Down: the store, in parts."""

    parts: Sequence[Any]


class Far:
    """The far end: a worker in a process of the cluster, whose channel is made of this actor's methods."""

    def __init__(self, setup: Setup) -> None:
        self._up: queue.SimpleQueue[Parcel | Lacking | Exception] = queue.SimpleQueue()
        self._down: queue.SimpleQueue[Order | Consignment | Pixels] = queue.SimpleQueue()
        self._early: deque[Order | Consignment] = deque()
        """Told while the pixels were awaited."""
        self._folder = _own_folder()
        self._task: TrialTask | None = None
        threading.Thread(target=self._work, args=(setup,), daemon=True).start()

    @ray.method(concurrency_group="up")  # type: ignore[untyped-decorator]
    def next(self) -> Parcel | Lacking:
        """The next message; waits for it."""
        found = self._up.get()
        if isinstance(found, Exception):
            raise found
        return found

    @ray.method(concurrency_group="down")  # type: ignore[untyped-decorator]
    def tell(self, order: Order | Consignment | Pixels) -> None:
        """Take an order."""
        self._down.put(order)

    def _work(self, setup: Setup) -> None:
        logging.basicConfig(level=logging.WARNING, handlers=[LogUp(self)])
        try:
            if setup.source != provenance.source_hash():
                raise WorkerGoneError(f"{socket.gethostname()} has other code than the coordinator; install the same")
            if unmet := setup.runtime.unmet():
                logging.getLogger(LOG).warning("slot %d rounds differently: %s", setup.slot, "; ".join(unmet))
            store = self._store(setup)
            runtime = setup.runtime.here()
            runtime.apply()  # in this thread, which trains
            serve(self, Bench(store, runtime, max_bicubic_psnr=setup.max_bicubic_psnr))
        except Exception as exc:  # whatever it is, the coordinator has to know
            self._up.put(exc)

    def send(self, message: Message) -> None:
        self._up.put(Parcel(message, self._files_of(message)))

    def receive(self) -> Order:
        order = self._early.popleft() if self._early else self._down.get()
        assert not isinstance(order, Pixels)
        if not isinstance(order, Consignment):
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

    def _store(self, setup: Setup) -> PatchStore:
        """The study's pixels: the coordinator's own file where this node sees it, else a copy in this node's memory."""
        with suppress(OSError, StoreError):
            store = load_store(setup.store)
            if store.fingerprint == setup.fingerprint:
                return store
        self._up.put(Lacking())
        while not isinstance(order := self._down.get(), Pixels):
            self._early.append(order)
        path = self._folder / setup.store.name
        with whole_file(path) as file:
            for part in order.parts:
                file.write(ray.get(part))
        return load_store(path)


def _own_folder() -> Path:
    """A temporary folder of this process; those of processes that are gone are removed."""
    prefix = f"a2n-study-{os.getuid()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
