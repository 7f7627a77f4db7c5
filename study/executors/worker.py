"""The far end of a slot: trains one trial after the other as it is told, and tells what happens in them.

Commands come down a channel, events go up it. After a validation or an ending a trial waits for its answer, so what
is trained never depends on timing; a tick waits for nothing.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sr_core.errors import TakenOverError
from study.executors.trial import Command, TrialContext, TrialTask, run_trial
from study.record.events import Failed, Ticked, TrialEvent


@dataclass(frozen=True, slots=True)
class Begin:
    """Down: train this."""

    task: TrialTask


@dataclass(frozen=True, slots=True)
class Answer:
    """Down, to the event that the trial waits with: go on, suspend, or (None) leave the slot as it stands."""

    command: Command | None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Down, at any time: write a checkpoint soon, and leave the slot."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Up: the worker has started."""


@dataclass(frozen=True, slots=True)
class Left:
    """Up: the trial is off its slot."""

    trial: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Up: the machine failed, not the trial: a full disk, a lost root."""

    number: int
    """errno."""
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Up: what the trial left belongs to a later owner of the study."""

    text: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Up: a line of the log."""

    logger: str
    level: int
    text: str


Message = TrialEvent | Ready | Left | Broken | TakenOver | Logged
"""What a worker tells."""
Order = Begin | Answer | Suspend
"""What a worker is told."""


class Channel(Protocol):
    """The worker's end. Its methods raise EOFError or ConnectionError when the other end is gone."""

    def send(self, message: Message) -> None: ...

    def receive(self) -> Order:
        """The next order; waits for it."""

    def waiting(self) -> bool:
        """Whether there is an order."""


def broken(error: OSError, folder: Path) -> Broken:
    """What to tell of an error of the machine that was met in this folder or below."""
    return Broken(error.errno or 0, error.strerror or str(error), str(error.filename or folder))


def serve(channel: Channel, context: TrialContext) -> None:
    """Train what comes down the channel, until it ends or this process should be replaced by a fresh one."""
    channel.send(Ready())
    healthy = True
    while healthy:
        order = channel.receive()
        if isinstance(order, Begin):  # anything else was said to a trial that had just ended
            healthy = _train(channel, order.task, context)


def _train(channel: Channel, task: TrialTask, context: TrialContext) -> bool:
    """One trial; False where a next one could suffer from it."""
    trial = run_trial(task, context)
    healthy, suspended = True, False
    command: Command | None = None
    while True:
        try:
            event = next(trial) if command is None else trial.send(command)
        except StopIteration:
            break
        except OSError as exc:
            channel.send(broken(exc, task.folder))
            break
        except TakenOverError as exc:
            channel.send(TakenOver(str(exc)))
            break
        if isinstance(event, Failed) and event.cause == "bug" and context.runtime.device != "cpu":
            healthy = False  # an error inside a CUDA kernel leaves the process's context unusable
        channel.send(event)
        command = Command.CONTINUE
        while channel.waiting() or not isinstance(event, Ticked):
            order = channel.receive()
            if isinstance(order, Answer):
                command = order.command
                break
            suspended = suspended or isinstance(order, Suspend)
        if command is None:
            trial.close()
            break
        if suspended:
            command = Command.SUSPEND
    channel.send(Left(task.number))
    return healthy


class Sender(Protocol):
    """What hands messages up."""

    def send(self, message: Message) -> None: ...


class LogUp(logging.Handler):
    """Hands log lines to the coordinator, whose terminal it is."""

    def __init__(self, channel: Sender) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(Logged(record.name, record.levelno, record.getMessage()))


def log_warnings() -> None:
    """From now on Python's warnings in this process are lines of its log, for the terminal is the coordinator's."""

    def log(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        logging.getLogger("warnings").warning("%s: %s", category.__name__, " ".join(str(message).split()))

    warnings.showwarning = log
