"""The main loop of a study, and the only place that changes the study's state."""

import json
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from sr_core.process.durable import write_durably
from sr_core.process.stopping import StopSignal
from study.executors.protocol import Executor
from study.executors.trial import TrialTask
from study.question.experiment import Experiment
from study.record.events import (
    Event,
    Failed,
    Finished,
    Paused,
    Pruned,
    SessionEnded,
    Ticked,
    TrialEvent,
    Validated,
    Warned,
)
from study.record.folder import StudyFolder
from study.record.journal import Journal
from study.record.state import StudyState
from study.search.failures import repeated_failures
from study.search.policy import Start, consequence, next_step


class Observer(Protocol):
    """A receiver of events, such as a view or the terminal."""

    def observe(self, event: Event, state: StudyState) -> None:
        """Take one event, which the journal already holds, and the state after it. This must not block."""


class Coordinator:
    """Runs the trials of one study until the requested number is reached."""

    checkpoints: Collection[int] | None = None
    """Trials whose folders held a checkpoint when the session took ownership; None if that is not known."""

    def __init__(
        self,
        *,
        folder: StudyFolder,
        journal: Journal,
        state: StudyState,
        experiment: Experiment,
        executor: Executor,
        source: str,
        observers: list[Observer],
        stop: StopSignal,
        retries: int = 2,
    ) -> None:
        """Set up the loop for one session.

        Args:
            state: the study as its journal has it so far.
            source: digest of the code, recorded with each checkpoint.
            observers: receive each event after the journal has it.
            retries: how often a trial is resumed after its worker was lost.
        """
        self.state = state
        self._folder = folder
        self._journal = journal
        self._experiment = experiment
        self._executor = executor
        self._source = source
        self._observers = observers
        self._stop = stop
        self._ended_before = len(state.endings)
        self._retries = retries

    def record(self, event: Event) -> None:
        """Write the event to the journal, apply it to the state, notify the observers: in this order (promise 3).

        The checkpoint of a trial that has ended is then deleted.
        """
        self._journal.append(event)
        self.state = self.state.apply(event)
        self._notify(event)
        if isinstance(event, Finished | Pruned | Failed):
            self._drop_checkpoint(event.trial)

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            observer.observe(event, self.state)

    def search(self, target: int) -> SessionEnded:
        """Run trials until the study counts `target` trials, the space is exhausted, or the session is stopped.

        Args:
            target: total number of trials, those of earlier sessions included.
        Returns:
            The event that ends the session, with the reason. It is not recorded yet.
        """
        self._drop_leftovers()
        failures = ""
        while True:
            halted = bool(failures) or self._stop.given()
            if not halted:
                self._fill_free_slots(target)
            running = self._executor.running()
            if not running:
                self._drop_leftovers()
                return self._ending(target, failures)
            if halted:
                for number in running:
                    self._executor.suspend(number)
            event = self._executor.next_event()
            if event is not None:
                self._take(event)
            failures = failures or repeated_failures(self.state, target, since=self._ended_before)

    def _ending(self, target: int, failures: str) -> SessionEnded:
        """The event that ends the session, with its reason."""
        assert self.state.session is not None
        end = SessionEnded(time=time.time(), epoch=self.state.session.epoch, reason="complete")
        if failures:
            return replace(end, reason="failures", detail=failures)
        if self._stop.reason is not None:
            return replace(end, reason=self._stop.reason)
        if self.state.counted < target:
            return replace(end, reason="exhausted", detail="every configuration of the space has been tried")
        return end

    def _fill_free_slots(self, target: int) -> None:
        """Start trials, and record what is decided on the way, until no slot is free or nothing is left to do."""
        while True:
            slots = self._executor.free_slots()
            if not slots:
                return
            step = next_step(
                self.state,
                self._experiment,
                target,
                now=time.time(),
                running=self._executor.running(),
                retries=self._retries,
            )
            match step:
                case None:
                    return
                case Start(trial):
                    self._executor.start(self._task(trial, slots[0]))
                case event:
                    self.record(event)

    def _task(self, number: int, slot: int) -> TrialTask:
        """The task that an executor runs for this trial; writes the trial's config into its folder."""
        assert self.state.session is not None
        trial = self.state.trials[number]
        folder = self._folder.trial(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / "config.json", (json.dumps(trial.proposed.config, indent=2) + "\n").encode())
        return TrialTask(
            number=number,
            config=trial.config,
            config_hash=trial.proposed.config_hash,
            folder=folder,
            epoch=self.state.session.epoch,
            slot=slot,
            source=self._source,
            initial=trial.proposed.initial,
            micro_batch_changes=trial.micro_batch_changes,
            fence=self._folder.owners,
        )

    def _take(self, event: TrialEvent) -> None:
        """Record one event of a trial, then act on it; a tick is passed to observers only."""
        if isinstance(event, Ticked):
            self._notify(event)
        elif isinstance(event, Validated) and event.patches <= self.state.trials[event.trial].patches:
            self._compare_with_record(event)
        else:
            self.record(event)
        if isinstance(event, Validated):
            self._follow_up(event.trial)

    def _follow_up(self, number: int) -> None:
        """Pause or prune a trial after a validation if the scheduler decides so; its slot is then free."""
        event = consequence(self.state, self._experiment, number, now=time.time())
        match event:
            case Pruned():
                self._executor.end(number)
                self.record(event)
            case Paused():
                self.record(event)
                self._executor.suspend(number)

    def _compare_with_record(self, event: Validated) -> None:
        """Record a warning if a validation that is repeated after a resume differs from the recorded one.

        A repeated validation is not recorded a second time.
        """
        recorded = next((p for p in self.state.trials[event.trial].curve if p.patches == event.patches), None)
        if recorded is not None and recorded.numbers() == event.numbers():
            return
        before = "none" if recorded is None else str(dict(recorded.scores))
        self.record(
            Warned(
                time=time.time(),
                trial=event.trial,
                message=f"trial {event.trial} differs after its resume, at {event.patches} patches: "
                f"{dict(event.scores)}, before the interruption {before}",
            )
        )

    def _drop_leftovers(self) -> None:
        """Delete checkpoints of trials that have ended.

        Such a checkpoint is left if the process was killed between the end of the trial and the deletion, or if a
        former owner was still writing it. Only folders that may hold a checkpoint are read, because reading thousands
        of folders takes long on a network file system.
        """
        ended = {trial.number for trial in self.state.trials.values() if trial.ended}
        if self.checkpoints is not None:
            ended &= {*self.checkpoints, *self.state.endings[self._ended_before :]}
        for number in sorted(ended):
            self._drop_checkpoint(number)

    def _drop_checkpoint(self, number: int) -> None:
        """Delete the trial's checkpoint, complete or half written."""
        for path in self._folder.trial(number).glob("*checkpoint.safetensors*"):
            path.unlink(missing_ok=True)  # a half-written one may be renamed at this moment
