"""Runs each slot of this machine in one worker process, which is kept for later trials and shares the pixels."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import cast

from sr_core.patches.placement import PatchSourceName
from sr_core.patches.shared_pixels import remove_abandoned
from sr_core.process.floats import check_that_threads_agree
from sr_core.process.parent import end_with_parent
from sr_core.store.hdf5 import PatchStore
from sr_core.training.memory import keep_to_share
from sr_core.training.runtime import Runtime
from study.executors.raw_output import Output, followed_output, write_to
from study.executors.remote import WorkerGoneError
from study.executors.trial import TrialContext
from study.executors.worker import LogUp, Message, Order, log_warnings, serve

_END_SECONDS = 5.0
"""How long to wait for a worker process to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessWorkerSetup:
    """What a worker process needs to train any trial of a study."""

    store: PatchStore
    runtime: Runtime
    source_name: PatchSourceName
    """Where the training pixels are kept."""
    max_bicubic_psnr: float | None
    """The study's upper bound for the bicubic PSNR of validation crops, in dB."""
    gpus: tuple[str, ...] = ()
    """The GPU of each slot, as CUDA_VISIBLE_DEVICES names it; empty on the CPU."""
    gpu_share: float = 1.0
    """Fraction of its GPU's memory that a worker may use."""


class ProcessWorker:
    """The coordinator's side of one worker process."""

    def __init__(self, process: SpawnProcess, pipe: "Connection[Order, Message]") -> None:
        self.process, self.pipe = process, pipe

    def send(self, order: Order) -> None:
        with suppress(OSError):  # the worker died: `receive` reports that after the worker's remaining messages
            self.pipe.send(order)

    def receive(self) -> Message:
        try:
            return self.pipe.recv()
        except Exception as exc:  # the pipe ended, perhaps in the middle of a message, which may raise anything
            self.process.join(_END_SECONDS)
            code = self.process.exitcode
            raise WorkerGoneError(_cause_of_death(code), hit=code is not None and code < 0) from exc

    def end(self) -> None:
        self.process.kill()
        self.process.join(_END_SECONDS)
        self.pipe.close()


class ProcessPool:
    """Starts worker processes that end when this process ends."""

    def __init__(self, setup: ProcessWorkerSetup) -> None:
        self._setup = setup
        self._spawn = multiprocessing.get_context("spawn")  # a fork would copy running threads' locks and CUDA's state

    def start_worker(self, slot: int) -> ProcessWorker:
        ours, theirs = self._spawn.Pipe()
        output = followed_output(self._spawn, f"slot {slot}")
        process = self._spawn.Process(
            target=_main, args=(theirs, output, self._setup, slot), name=f"slot-{slot}", daemon=True
        )
        process.start()
        for end in (theirs, output):
            end.close()  # with an open copy here, the worker's death would not end the pipe
        return ProcessWorker(process, ours)

    def ready(self, workers: Sequence[ProcessWorker], timeout: float) -> list[ProcessWorker]:
        by_pipe = {worker.pipe: worker for worker in workers}
        return [by_pipe[cast("Connection[Order, Message]", pipe)] for pipe in wait(by_pipe, timeout)]

    def close(self) -> None:
        remove_abandoned()


def _cause_of_death(code: int | None) -> str:
    """Say in words how a worker with this exit status ended; a negative status is a signal number."""
    if code is None:
        return "the worker closed its pipe"
    if code >= 0:
        return f"the worker ended with status {code}"

    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", possibly because the machine ran out of memory" if -code == signal.SIGKILL else ""
    return f"the worker was ended by {name}{hint}"


class _PipeChannel:
    """The worker's side of its pipe. A lock keeps messages whole, because a logging thread may send too."""

    def __init__(self, pipe: "Connection[Message, Order]") -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self.receive = pipe.recv
        self.waiting = pipe.poll

    def send(self, message: Message) -> None:
        with self._sending:
            self._pipe.send(message)


def _main(
    pipe: "Connection[Message, Order]", output: "Output[bytes, bytes]", setup: ProcessWorkerSetup, slot: int
) -> None:
    """Run a worker process until the coordinator closes the pipe."""
    write_to(output)
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal or batch system may signal the whole process group. The coordinator handles the signal.
        signal.signal(number, signal.SIG_IGN)
    if setup.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = setup.gpus[slot]  # CUDA reads it at its first use, which comes later

    channel = _PipeChannel(pipe)
    logging.basicConfig(level=logging.WARNING, handlers=[LogUp(channel)])
    log_warnings()
    setup.runtime.apply()  # before this process's first parallel operation
    check_that_threads_agree()
    if setup.gpu_share < 1:
        keep_to_share(setup.gpu_share)

    try:
        context = TrialContext(setup.store, setup.runtime, setup.source_name, max_bicubic_psnr=setup.max_bicubic_psnr)
        serve(channel, context)
    except (EOFError, ConnectionError):
        os._exit(0)  # the coordinator has closed the pipe or died
