"""The worker's side of a slot: it trains one trial after the other and reports their events.

Orders come down a channel, and messages go up. After every event but a tick, a trial waits for an answer, so that
results do not depend on timing.
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
    """Down: train this trial."""

    task: TrialTask


@dataclass(frozen=True, slots=True)
class Answer:
    """Down: the answer to the event with which the trial waits. None means leave the slot without a checkpoint."""

    command: Command | None


@dataclass(frozen=True, slots=True)
class Suspend:
    """Down, at any time: write a checkpoint at the next event, and leave the slot."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Up: the worker has started."""


@dataclass(frozen=True, slots=True)
class Left:
    """Up: the trial has left its slot."""

    trial: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Up: the machine failed, not the trial. Examples are a full disk and a vanished file system."""

    number: int
    """errno."""
    text: str
    path: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Up: the study has a new owner, so that the trial cannot write its files."""

    text: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Up: a log message."""

    logger: str
    level: int
    text: str


Message = TrialEvent | Ready | Left | Broken | TakenOver | Logged
"""What a worker sends to the coordinator."""
Order = Begin | Answer | Suspend
"""What the coordinator sends to a worker."""


class Channel(Protocol):
    """The worker's side of its connection to the coordinator.

    Its methods raise EOFError or ConnectionError if the coordinator is gone.
    """

    def send(self, message: Message) -> None: ...

    def receive(self) -> Order:
        """Wait for the next order and return it."""

    def waiting(self) -> bool:
        """Return True if an order has arrived."""


def broken(error: OSError, folder: Path) -> Broken:
    """Return the message about a failure of the machine.

    Args:
        folder: named in the message if the error names no file.
    """
    return Broken(error.errno or 0, error.strerror or str(error), str(error.filename or folder))


def serve(channel: Channel, context: TrialContext) -> None:
    """Train each trial that the channel brings. Return when this process must be replaced by a fresh one.

    Raises:
        EOFError, ConnectionError: the coordinator has closed the channel.
    """
    channel.send(Ready())
    healthy = True
    while healthy:
        order = channel.receive()
        if isinstance(order, Begin):  # any other order was meant for a trial that has just ended
            healthy = _train(channel, order.task, context)


def _train(channel: Channel, task: TrialTask, context: TrialContext) -> bool:
    """Train one trial. Return False if it may have damaged this process for the next trial."""
    trial = run_trial(task, context)
    healthy = True
    suspended = False
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
            healthy = False  # an error inside a CUDA kernel leaves this process unable to use the GPU

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
    """Sends messages to the coordinator."""

    def send(self, message: Message) -> None: ...


class LogUp(logging.Handler):
    """Sends log messages to the coordinator, which owns the terminal."""

    def __init__(self, channel: Sender) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(Logged(record.name, record.levelno, record.getMessage()))


def log_warnings() -> None:
    """Log Python's warnings in this process instead of printing them, because the coordinator owns the terminal."""

    def log(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        logging.getLogger("warnings").warning("%s: %s", category.__name__, " ".join(str(message).split()))

    warnings.showwarning = log
