"""The loop that ties a study together; the one page where its state changes."""

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
    """Who wants to know: the views and the terminal. Told once the journal has it; must not block."""

    def observe(self, event: Event, state: StudyState) -> None: ...


class Coordinator:
    """Runs the trials of one study until as many are counted as were asked for."""

    checkpoints: Collection[int] | None = None
    """Trials whose folders had a checkpoint when the study was taken; None if that is not known."""

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
        self.state = state
        self._folder, self._journal, self._experiment, self._executor = folder, journal, experiment, executor
        self._source, self._observers, self._stop = source, observers, stop
        self._ended_before = len(state.endings)
        self._retries = retries

    def record(self, event: Event) -> None:
        """Write the event, let it take effect, tell whoever watches: in this order (contract 3).

        A trial that has ended needs its checkpoint no longer.
        """
        self._journal.append(event)
        self.state = self.state.apply(event)
        self._tell(event)
        if isinstance(event, Finished | Pruned | Failed):
            self._drop_checkpoint(event.trial)

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer.observe(event, self.state)

    def search(self, asked: int) -> SessionEnded:
        """Run trials until `asked` are counted, or nothing is left to try, or a stop is given; says which."""
        self._drop_leftovers()
        failures = ""
        while True:
            halted = bool(failures) or self._stop.given()
            if not halted:
                self._fill_free_slots(asked)
            running = self._executor.running()
            if not running:
                self._drop_leftovers()
                return self._ending(asked, failures)
            if halted:
                for number in running:
                    self._executor.suspend(number)
            event = self._executor.next_event()
            if event is not None:
                self._take(event)
            failures = failures or repeated_failures(self.state, asked, since=self._ended_before)

    def _ending(self, asked: int, failures: str) -> SessionEnded:
        assert self.state.session is not None
        end = SessionEnded(time=time.time(), epoch=self.state.session.epoch, reason="complete")
        if failures:
            return replace(end, reason="failures", detail=failures)
        if self._stop.reason is not None:
            return replace(end, reason=self._stop.reason)
        if self.state.counted < asked:
            return replace(end, reason="exhausted", detail="every configuration of the space has been tried")
        return end

    def _fill_free_slots(self, asked: int) -> None:
        while slots := self._executor.free_slots():
            step = next_step(
                self.state,
                self._experiment,
                asked,
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
        """One event of a trial: into the record, then what follows from it."""
        if isinstance(event, Ticked):
            self._tell(event)
        elif isinstance(event, Validated) and event.patches <= self.state.trials[event.trial].patches:
            self._compare_with_record(event)
        else:
            self.record(event)
        if isinstance(event, Validated):
            self._follow_up(event.trial)

    def _follow_up(self, number: int) -> None:
        """Pause or prune a trial after its validation if the scheduler says so; it leaves its slot then."""
        event = consequence(self.state, self._experiment, number, now=time.time())
        match event:
            case Pruned():
                self._executor.end(number)
                self.record(event)
            case Paused():
                self.record(event)
                self._executor.suspend(number)

    def _compare_with_record(self, event: Validated) -> None:
        """A validation that comes again after a resume is not counted twice, and has to be the same."""
        then = next((p for p in self.state.trials[event.trial].curve if p.patches == event.patches), None)
        if then is None or then.numbers() != event.numbers():
            self.record(
                Warned(
                    time=time.time(),
                    trial=event.trial,
                    message=f"trial {event.trial} differs after its resume, at {event.patches} patches: "
                    f"{dict(event.scores)}, before the interruption {dict(then.scores) if then else 'none'}",
                )
            )

    def _drop_leftovers(self) -> None:
        """A kill may have come between a trial's end and the removal; a former owner may have been writing it then.

        Asks the folders of those trials alone that may have a checkpoint: of thousands that takes long on a network.
        """
        ended = {trial.number for trial in self.state.trials.values() if trial.ended}
        if self.checkpoints is not None:
            ended &= {*self.checkpoints, *self.state.endings[self._ended_before :]}
        for number in sorted(ended):
            self._drop_checkpoint(number)

    def _drop_checkpoint(self, number: int) -> None:
        for left in self._folder.trial(number).glob("*checkpoint.safetensors*"):  # a kill may leave half a one
            left.unlink(missing_ok=True)  # the half one may get its name this moment
