"""Runs a session's own GPU work in a separate process, which ends before the workers start.

A process that has computed on a GPU holds it until it ends. If the coordinator did so, no worker could use a GPU in
exclusive mode (`nvidia-smi -c 3`), and on any other GPU the workers would have half a gigabyte less.
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
"""How long to wait for the process to end and release its GPU."""


class GpuRunner(Protocol):
    """Calls functions that use GPUs."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` and return its result or raise its error."""

    def close(self) -> None:
        """Release the GPUs that another process holds. It may be called several times."""


def runner_for(placement: Placement, device: str) -> GpuRunner:
    """Return a runner in a separate process if worker processes will use the GPUs, otherwise one in this process.

    Args:
        device: the device on which the study's trials run.
    """
    if placement.executor == "processes" and device != "cpu":
        return SeparateProcess()
    return THIS_PROCESS


class ThisProcess:
    """Calls functions directly, in this process."""

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    def close(self) -> None:
        pass


THIS_PROCESS = ThisProcess()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result or the error of a call."""

    result: Any = None
    error: BaseException | None = None


class SeparateProcess:
    """Calls functions one after the other in a child process, which the first call starts.

    Functions, arguments, results and errors are pickled. Log messages of the child are logged here.
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
            raise SuiteError(
                f"the process that tests the GPUs ended with status {code}; see the messages above"
            ) from exc
        except BaseException:  # an interruption: the work must not continue in the child
            if self._process is not None:
                self._process.kill()
            self.close()
            raise
        if outcome.error is not None:
            raise outcome.error
        result: T = outcome.result
        return result

    def close(self) -> None:
        process = self._process
        pipe = self._pipe
        self._process = self._pipe = None
        if process is None or pipe is None:
            return

        pipe.close()  # the child ends when it next waits for work
        process.join(_END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join(_END_SECONDS)

    def _start(self) -> "Connection[Any, Any]":
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of running threads
        ours, theirs = spawn.Pipe()
        output = followed_output(spawn, "testing the GPUs")
        self._process = spawn.Process(target=_main, args=(theirs, output), name="gpu", daemon=True)
        self._process.start()
        for end in (theirs, output):
            end.close()  # with an open copy here, the child's death would not end the pipe
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
    """The child's side of the pipe. A lock keeps messages whole, because several threads may log."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        self._sending = threading.Lock()

    def send(self, message: Message | _Outcome) -> None:
        with self._sending:
            self._pipe.send(message)


def _main(pipe: "Connection[Any, Any]", output: "Output[bytes, bytes]") -> None:
    """Run the child process: call what comes through the pipe until the session closes it."""
    write_to(output)
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal or batch system may signal the whole process group. The session then ends this process.
        signal.signal(number, signal.SIG_IGN)

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
        except Exception:  # some libraries raise errors that cannot be pickled
            return _Outcome(error=RuntimeError(f"{type(exc).__name__}: {exc}"))
        return _Outcome(error=exc)
