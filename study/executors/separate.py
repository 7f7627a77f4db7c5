"""Work on a GPU that a session has before its workers train there, in a process of its own that ends before they start.

A process that has once computed on a GPU holds it until it ends. On a GPU in exclusive mode (`nvidia-smi -c 3`) no
worker could start beside such a coordinator, and on any other it would take half a gigabyte from them.
"""

import logging
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, ParamSpec, Protocol, TypeVar

from sr_core.errors import SuiteError
from sr_core.process.parent import end_with_parent
from study.executors.placement import Placement
from study.executors.raw_output import Output, followed_output, write_to
from study.executors.worker import Logged, LogUp, Message, log_warnings

P = ParamSpec("P")
T = TypeVar("T")

_END_SECONDS = 20.0
"""What a process may take to give its GPU back."""


class GpuRunner(Protocol):
    """Runs what uses GPUs; returns its result, or raises its error."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def close(self) -> None:
        """Give the GPUs back, as far as another process has them. It may be closed again."""


def runner_for(placement: Placement, device: str) -> GpuRunner:
    """Where the session does what uses GPUs: in another process if worker processes will have them, else in this one.

    Args:
        device: that the study's trainings run on.
    """
    if placement.executor == "processes" and device != "cpu":
        return SeparateProcess()
    return THIS_PROCESS


class ThisProcess:
    """Runs it here."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    def close(self) -> None:
        pass


THIS_PROCESS = ThisProcess()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the work gave."""

    result: Any = None
    error: BaseException | None = None


class SeparateProcess:
    """Runs one piece of work after the other in a process that the first one starts.

    Work, arguments and results are pickled. What is logged there is logged here.
    """

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        pipe = self._pipe or self._start()
        try:
            pipe.send((work, args, kwargs))
            outcome = _outcome_of(pipe)
        except (EOFError, ConnectionError) as exc:
            process = self._process
            self.close()
            code = process.exitcode if process is not None else None
            raise SuiteError(f"the process that tries the GPUs ended with status {code}; see the lines above") from exc
        except BaseException:  # an interruption: the work must not go on there
            if self._process is not None:
                self._process.kill()
            self.close()
            raise
        if outcome.error is not None:
            raise outcome.error
        result: T = outcome.result
        return result

    def close(self) -> None:
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is None or pipe is None:
            return
        pipe.close()  # it ends by itself when it waits for work
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join(_END_SECONDS)

    def _start(self) -> "Connection[Any, Any]":
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of running threads
        ours, theirs = spawn.Pipe()
        output = followed_output(spawn, "trying the GPUs")
        self._process = spawn.Process(target=_main, args=(theirs, output), name="gpu", daemon=True)
        self._process.start()
        for end in (theirs, output):
            end.close()  # or its death would not end the pipe
        self._pipe = ours
        return ours


def _outcome_of(pipe: "Connection[Any, Any]") -> _Outcome:
    while True:
        message = pipe.recv()
        if isinstance(message, _Outcome):
            return message
        assert isinstance(message, Logged)
        logging.getLogger(message.logger).log(message.level, "%s", message.text)


class _Channel:
    """The far end of the pipe, as a log handler knows it."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe, self._sending = pipe, threading.Lock()

    def send(self, message: Message | _Outcome) -> None:
        with self._sending:  # a thread may log while another does
            self._pipe.send(message)


def _main(pipe: "Connection[Any, Any]", output: "Output[bytes, bytes]") -> None:
    """The other process's life."""
    write_to(output)
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they may go to a whole group; the session then ends this process
    channel = _Channel(pipe)
    logging.basicConfig(level=logging.INFO, handlers=[LogUp(channel)])
    log_warnings()
    with suppress(EOFError, ConnectionError):
        while True:
            work, args, kwargs = pipe.recv()
            channel.send(_outcome(work, args, kwargs))


def _outcome(work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outcome:
    try:
        return _Outcome(work(*args, **kwargs))
    except Exception as exc:
        if not isinstance(exc, SuiteError):
            exc.add_note(f"In another process:\n{traceback.format_exc()}")
        try:
            ForkingPickler.loads(ForkingPickler.dumps(exc))
        except Exception:  # an error of a library that cannot be told to another process as it is
            return _Outcome(error=RuntimeError(f"{type(exc).__name__}: {exc}"))
        return _Outcome(error=exc)
