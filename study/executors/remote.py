"""Slots that are workers elsewhere: who is free, who waits for an answer, who died, who says nothing any more."""

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

_PATIENCE_SECONDS = 0.5
"""How long to wait for an event before the coordinator may look at the clock and at signals."""
_AWAY_SECONDS = 5.0
"""Who has not looked for so long, because it was stopped itself, cannot say that others were silent."""
_STARTS, _STARTS_HIT = 3, 20
"""Workers of one slot in a row that may die before they are ready: by their own doing, or hit from outside."""


class WorkerGoneError(Exception):
    """The worker has died; says how."""

    def __init__(self, reason: str, *, hit: bool = False) -> None:
        """
        Args:
            hit: whether something outside ended it.
        """
        super().__init__(reason)
        self.hit = hit


class Worker(Protocol):
    """The coordinator's end of one slot."""

    def send(self, order: Order) -> None:
        """Hand down an order; never blocks, and where the worker has died nothing happens."""

    def receive(self) -> Message:
        """The next message of a worker that is ready to be heard. Raises WorkerGoneError."""

    def end(self) -> None:
        """End the worker now, and make sure that it writes nothing more."""


W = TypeVar("W", bound=Worker)


class WorkerPool(Protocol[W]):
    """Where workers come from."""

    def start_worker(self, slot: int) -> W:
        """A new worker for the slot; it need not be ready yet."""

    def ready(self, workers: Sequence[W], timeout: float) -> list[W]:
        """Those of the workers that can be heard (also that they died), at least one, or none after the timeout."""

    def close(self) -> None:
        """After the last worker has ended: give the rest back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a worker is given up, in seconds."""

    silence: float = 600.0
    """Without a sign of life. Reading all images into memory is silent too."""
    start: float = 600.0
    """Until a worker is ready."""
    trial: float = math.inf
    """For one trial since it took its slot."""
    suspension: float = 15.0
    """From being told to suspend to having done so."""


@dataclass(slots=True)
class _Slot(Generic[W]):
    number: int
    worker: W | None = None
    ready: bool = False
    deaths: int = 0
    """In a row, before being ready."""
    trial: int | None = None
    begun: float = 0.0
    heard: float = 0.0
    given_up: bool = False
    """Whether it gets no trial for the rest of the session."""
    suspended: float | None = None
    """When its trial was told to leave. Times are of the monotonic clock."""


class RemoteExecutor(Generic[W]):
    """Runs a trial on each of several workers. Workers are hired when first needed, and again when they die."""

    def __init__(self, pool: WorkerPool[W], slots: int, limits: Limits, *, one_machine: bool = True) -> None:
        """
        Args:
            one_machine: all slots are on one machine, so that what breaks one breaks all: it ends the session. If
                not, a broken machine costs its slots, and the session ends with the last of them.
        """
        self._pool, self._limits, self._one_machine = pool, limits, one_machine
        self._slots = [_Slot[W](number) for number in range(slots)]
        self._inbox: deque[tuple[_Slot[W], W, Message | WorkerGoneError]] = deque()
        self._owed: _Slot[W] | None = None
        """Whose trial waits for the answer to the event told last."""
        self._looked = time.monotonic()

    def free_slots(self) -> list[int]:
        return [slot.number for slot in self._slots if slot.trial is None and not slot.given_up]

    def running(self) -> list[int]:
        return [slot.trial for slot in self._slots if slot.trial is not None]

    def start(self, task: TrialTask) -> None:
        slot = self._slots[task.slot]
        assert slot.trial is None
        if slot.worker is None:
            slot.worker, slot.ready = self._pool.start_worker(slot.number), False
        slot.trial, slot.suspended = task.number, None
        slot.begun = slot.heard = time.monotonic()
        slot.worker.send(Begin(task))

    def next_event(self) -> TrialEvent | None:
        self._answer(Command.CONTINUE)
        if not self._inbox:
            lost = self._listen()
            if lost is not None:
                return lost
        while self._inbox:
            slot, worker, message = self._inbox.popleft()
            if slot.worker is worker:  # else it is the last word of one that was ended
                return self._take(slot, message)
        return None

    def suspend(self, trial: int) -> None:
        slot = self._holding(trial)
        if slot.suspended is None and slot.worker is not None:
            slot.suspended = time.monotonic()
            slot.worker.send(Suspend())

    def end(self, trial: int) -> None:
        slot = self._holding(trial)
        assert slot is self._owed, "a trial can only be taken off while it waits"
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
        slot, self._owed = self._owed, None
        if slot is not None and slot.worker is not None:
            slot.heard = time.monotonic()
            slot.worker.send(Answer(command))

    def _listen(self) -> WorkerLost | None:
        """Wait for news into the inbox; gives up a worker that is overdue."""
        self._forgive_absence()
        employed = [(slot, slot.worker) for slot in self._slots if slot.worker is not None]
        ready = self._pool.ready([worker for _, worker in employed], _PATIENCE_SECONDS)
        now = self._looked = time.monotonic()
        for slot, worker in employed:
            if any(worker is heard for heard in ready):
                slot.heard = now
                try:
                    self._inbox.append((slot, worker, worker.receive()))
                except WorkerGoneError as exc:
                    self._inbox.append((slot, worker, exc))
        for slot, worker in employed:
            if slot.trial is None or any(worker is heard for heard in ready):
                continue
            if slot.suspended is not None and now - slot.suspended > self._limits.suspension:
                self._end_worker(slot)  # what it had last written is kept
            elif now - slot.heard > (limit := self._limits.silence if slot.ready else self._limits.start):
                return self._lose(slot, f"no sign of life for {limit:g} s")
            elif slot.ready and now - slot.begun > self._limits.trial:
                return self._lose(slot, f"ran longer than {self._limits.trial:g} s")
        return None

    def _forgive_absence(self) -> None:
        away = time.monotonic() - self._looked
        if away > _AWAY_SECONDS:
            for slot in self._slots:
                slot.begun, slot.heard = slot.begun + away, slot.heard + away
                slot.suspended = None if slot.suspended is None else slot.suspended + away

    def _take(self, slot: _Slot[W], message: Message | WorkerGoneError) -> TrialEvent | None:
        match message:
            case WorkerGoneError():
                return self._lose(slot, str(message), hit=message.hit)
            case Ready():
                slot.ready, slot.deaths = True, 0
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
                    self._owed = None if isinstance(message, Ticked) else slot
                    return message
        return None

    def _lose(self, slot: _Slot[W], reason: str, *, hit: bool = False) -> WorkerLost | None:
        """The worker is no more; what that means for its trial, if it had begun one."""
        trial, was_ready = self._end_worker(slot)
        if not was_ready:
            slot.deaths += 1
            if slot.deaths >= (_STARTS_HIT if hit else _STARTS):
                if not self._can_give_up(slot):
                    raise SuiteError(f"the worker of slot {slot.number} does not start ({reason}); see the lines above")
                self._give_up(slot, reason)
            return None
        if trial is None:
            return None
        return WorkerLost(time=time.time(), trial=trial, slot=slot.number, reason=reason)

    def _can_give_up(self, slot: _Slot[W]) -> bool:
        """Whether the study can do without the slot: it is on a machine of its own, and another slot is left."""
        return not self._one_machine and any(s is not slot and not s.given_up for s in self._slots)

    def _give_up(self, slot: _Slot[W], reason: str) -> None:
        slot.given_up = True
        logger.warning(
            "slot %d gets no more trials in this session, the others do: %s; mend its machine before the next session",
            slot.number,
            reason,
        )

    def _end_worker(self, slot: _Slot[W]) -> tuple[int | None, bool]:
        """End the slot's worker; the trial that it had, and whether it had ever been ready."""
        assert slot.worker is not None
        slot.worker.end()
        if self._owed is slot:
            self._owed = None
        found = slot.trial, slot.ready
        slot.worker = slot.trial = None
        slot.ready = False
        return found
