"""Runs each slot in a worker outside this process, and replaces workers that die, hang or exceed their time limit."""

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sr_core.errors import SuiteError, TakenOverError
from study.executors.trial import Command, TrialTask
from study.executors.worker import Answer, Begin, Broken, Left, Logged, Message, Order, Ready, Suspend, TakenOver
from study.record.events import Ticked, TrialEvent, WorkerLost

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.5
"""How long to wait for an event before the coordinator can check deadlines and signals."""
_MAX_GAP_SECONDS = 5.0
"""If this process itself was stopped for longer, time limits of workers are extended by that gap."""
_MAX_FAILED_STARTS = 3
"""How many workers of one slot in a row may fail before they are ready."""
_MAX_KILLED_STARTS = 20
"""How many workers of one slot in a row may be killed from outside before they are ready."""


class WorkerGoneError(Exception):
    """A worker has died. The message says how."""

    def __init__(self, reason: str, *, hit: bool = False) -> None:
        """
        Args:
            hit: True if something outside the worker killed it, for example a signal.
        """
        super().__init__(reason)
        self.hit = hit


class Worker(Protocol):
    """The coordinator's side of one slot."""

    def send(self, order: Order) -> None:
        """Send an order without blocking. An order to a dead worker is dropped."""

    def receive(self) -> Message:
        """Return the next message of a worker that `WorkerPool.ready` listed.

        Raises:
            WorkerGoneError: the worker has died.
        """

    def end(self) -> None:
        """End the worker at once, so that it writes nothing more."""


W = TypeVar("W", bound=Worker)


class WorkerPool(Protocol[W]):
    """Starts workers, and waits for their messages."""

    def start_worker(self, slot: int) -> W:
        """Start and return a worker for the slot. It may still be starting when this returns."""

    def ready(self, workers: Sequence[W], timeout: float) -> list[W]:
        """Wait until a worker has a message or has died, and return all such workers; none after `timeout` seconds."""

    def close(self) -> None:
        """Release what the workers shared. Call it after the last worker has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Time limits of a worker, in seconds. A worker that exceeds one is ended and replaced."""

    silence: float = 600.0
    """Longest time without a message. A worker sends none while it reads all images into memory."""
    start: float = 600.0
    """Longest time until a new worker is ready."""
    trial: float = math.inf
    """Longest time for one trial, measured from when it took its slot."""
    suspension: float = 15.0
    """Longest time between the order to suspend and the end of the suspension."""


@dataclass(slots=True)
class _Slot(Generic[W]):
    number: int
    worker: W | None = None
    ready: bool = False
    deaths: int = 0
    """Number of workers in a row that died before they were ready."""
    trial: int | None = None
    begun: float = 0.0
    """When its trial took the slot, by the monotonic clock like the times below."""
    last_message: float = 0.0
    given_up: bool = False
    """True if the slot gets no more trials in this session."""
    suspended: float | None = None
    """When its trial was ordered to suspend; None if it was not."""


class RemoteExecutor(Generic[W]):
    """Runs one trial at a time on each of several workers.

    A slot's worker is started when the slot gets its first trial, and restarted after it has died.
    """

    def __init__(self, pool: WorkerPool[W], slots: int, limits: Limits, *, one_machine: bool = True) -> None:
        """
        Args:
            one_machine: True if all slots are on one machine, so that a machine failure ends the session. If False,
                a machine failure only costs the slots of that machine, and the session ends with the last slot.
        """
        self._pool = pool
        self._limits = limits
        self._one_machine = one_machine
        self._slots = [_Slot[W](number) for number in range(slots)]
        self._inbox: deque[tuple[_Slot[W], W, Message | WorkerGoneError]] = deque()
        self._awaiting_answer: _Slot[W] | None = None
        """The slot whose trial waits for the answer to the event returned last."""
        self._last_poll = time.monotonic()

    def free_slots(self) -> list[int]:
        return [slot.number for slot in self._slots if slot.trial is None and not slot.given_up]

    def running(self) -> list[int]:
        return [slot.trial for slot in self._slots if slot.trial is not None]

    def start(self, task: TrialTask) -> None:
        slot = self._slots[task.slot]
        assert slot.trial is None
        if slot.worker is None:
            slot.worker = self._pool.start_worker(slot.number)
            slot.ready = False

        slot.trial = task.number
        slot.suspended = None
        slot.begun = slot.last_message = time.monotonic()
        slot.worker.send(Begin(task))

    def next_event(self) -> TrialEvent | None:
        self._answer(Command.CONTINUE)
        if not self._inbox:
            loss = self._listen()
            if loss is not None:
                return loss

        while self._inbox:
            slot, worker, message = self._inbox.popleft()
            if slot.worker is worker:  # otherwise that worker has been ended since
                return self._take(slot, message)
        return None

    def suspend(self, trial: int) -> None:
        slot = self._holding(trial)
        if slot.suspended is None and slot.worker is not None:
            slot.suspended = time.monotonic()
            slot.worker.send(Suspend())

    def end(self, trial: int) -> None:
        slot = self._holding(trial)
        assert slot is self._awaiting_answer, "a trial can only be taken off while it waits for an answer"
        self._answer(None)
        slot.trial = None

    def close(self) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.end()
                slot.worker = slot.trial = None
        self._pool.close()

    def _holding(self, trial: int) -> _Slot[W]:
        return next(slot for slot in self._slots if slot.trial == trial)

    def _answer(self, command: Command | None) -> None:
        """Answer the trial that waits, if there is one."""
        slot = self._awaiting_answer
        self._awaiting_answer = None
        if slot is not None and slot.worker is not None:
            slot.last_message = time.monotonic()
            slot.worker.send(Answer(command))

    def _listen(self) -> WorkerLost | None:
        """Wait for messages and put them into the inbox. If a worker exceeds a limit, end it and return its loss."""
        self._extend_limits_after_gap()
        active = [(slot, slot.worker) for slot in self._slots if slot.worker is not None]
        ready = self._pool.ready([worker for _, worker in active], _WAIT_SECONDS)
        now = self._last_poll = time.monotonic()

        silent_slots = []
        for slot, worker in active:
            if not any(worker is other for other in ready):
                silent_slots.append(slot)
                continue
            slot.last_message = now
            try:
                self._inbox.append((slot, worker, worker.receive()))
            except WorkerGoneError as exc:
                self._inbox.append((slot, worker, exc))

        for slot in silent_slots:
            if slot.trial is None:
                continue
            silence_limit = self._limits.silence if slot.ready else self._limits.start
            if slot.suspended is not None and now - slot.suspended > self._limits.suspension:
                self._end_worker(slot)  # its last checkpoint stays
            elif now - slot.last_message > silence_limit:
                return self._lose(slot, f"no sign of life for {silence_limit:g} s")
            elif slot.ready and now - slot.begun > self._limits.trial:
                return self._lose(slot, f"ran longer than {self._limits.trial:g} s")
        return None

    def _extend_limits_after_gap(self) -> None:
        """Extend all limits by the time for which this process was stopped: the workers are not to blame for it."""
        gap = time.monotonic() - self._last_poll
        if gap <= _MAX_GAP_SECONDS:
            return
        for slot in self._slots:
            slot.begun += gap
            slot.last_message += gap
            if slot.suspended is not None:
                slot.suspended += gap

    def _take(self, slot: _Slot[W], message: Message | WorkerGoneError) -> TrialEvent | None:
        """Handle one message, and return it if it is an event of the slot's trial."""
        match message:
            case WorkerGoneError():
                return self._lose(slot, str(message), hit=message.hit)
            case Ready():
                slot.ready = True
                slot.deaths = 0
            case Logged():
                logging.getLogger(message.logger).log(message.level, "%s", message.text)
            case Broken():
                if not self._can_give_up(slot):
                    raise OSError(message.number, message.text, message.path)
                reason = f"{message.text}: {message.path}"
                self._give_up(slot, reason)
                return self._lose(slot, reason)
            case TakenOver():
                raise TakenOverError(message.text)
            case Left():
                if slot.trial == message.trial:
                    slot.trial = None
            case _:
                if slot.trial == message.trial:
                    self._awaiting_answer = None if isinstance(message, Ticked) else slot
                    return message
        return None

    def _lose(self, slot: _Slot[W], reason: str, *, hit: bool = False) -> WorkerLost | None:
        """End a worker that died or exceeded a limit, and return the loss of its trial, if it trained one.

        Args:
            hit: True if something outside the worker killed it.
        Raises:
            SuiteError: workers of this slot keep dying before they are ready.
        """
        trial, was_ready = self._end_worker(slot)
        if not was_ready:
            slot.deaths += 1
            if slot.deaths >= (_MAX_KILLED_STARTS if hit else _MAX_FAILED_STARTS):
                if not self._can_give_up(slot):
                    raise SuiteError(
                        f"the worker of slot {slot.number} does not start ({reason}); see the messages above"
                    )
                self._give_up(slot, reason)
            return None
        if trial is None:
            return None
        return WorkerLost(time=time.time(), trial=trial, slot=slot.number, reason=reason)

    def _can_give_up(self, slot: _Slot[W]) -> bool:
        """Return True if the session can continue without this slot, on slots of other machines."""
        return not self._one_machine and any(s is not slot and not s.given_up for s in self._slots)

    def _give_up(self, slot: _Slot[W], reason: str) -> None:
        slot.given_up = True
        logger.warning(
            "slot %d gets no more trials in this session, and the other slots continue: %s; fix its machine before the "
            "next session",
            slot.number,
            reason,
        )

    def _end_worker(self, slot: _Slot[W]) -> tuple[int | None, bool]:
        """End the slot's worker, and return the trial that it had and whether the worker had been ready."""
        assert slot.worker is not None
        slot.worker.end()
        if self._awaiting_answer is slot:
            self._awaiting_answer = None

        trial = slot.trial
        was_ready = slot.ready
        slot.worker = slot.trial = None
        slot.ready = False
        return trial, was_ready
