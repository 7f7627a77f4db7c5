"""The loop that ties a study together; the one page where its state changes."""

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, Protocol

from sr_core.durable import write_durably
from study.config import TrialConfig
from study.events import (
    Event,
    Failed,
    Finished,
    Paused,
    Progress,
    Proposed,
    Pruned,
    Resumed,
    SessionEnded,
    Ticked,
    TrialEvent,
    Warned,
)
from study.executors import Executor
from study.experiment import Experiment
from study.failures import repeated_failures
from study.folder import StudyFolder
from study.journal import Journal
from study.search.sampler import propose
from study.search.scheduler import Verdict, decide, hopeless, promotable
from study.state import StudyState, TrialState
from study.statistics.finalists import due, trial_seed
from study.stopping import StopSignal
from study.trial import TrialTask


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
        self._exhausted = False
        self._retries = retries

    def record(self, event: Event) -> None:
        """Write the event, let it take effect, tell whoever watches: in this order (contract 3)."""
        self._journal.append(event)
        self.state = self.state.apply(event)
        self._tell(event)

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
                return self._ending(failures)
            if halted:
                for number in running:
                    self._executor.suspend(number)
            event = self._executor.next_event()
            if event is not None:
                self._take(event)
            failures = failures or repeated_failures(self.state, asked, since=self._ended_before)

    def _ending(self, failures: str) -> SessionEnded:
        assert self.state.session is not None
        end = SessionEnded(time=time.time(), epoch=self.state.session.epoch, reason="complete")
        if failures:
            return replace(end, reason="failures", detail=failures)
        if self._stop.reason is not None:
            return replace(end, reason=self._stop.reason)
        if self._exhausted:
            return replace(end, reason="exhausted", detail="every configuration of the space has been tried")
        return end

    def _fill_free_slots(self, asked: int) -> None:
        for slot in self._executor.free_slots():
            trial = self._next_trial(asked)
            if trial is None:
                return
            self._executor.start(self._task(trial, slot))

    def _next_trial(self, asked: int) -> TrialState | None:
        """What a free slot does next: a half-done trial first, then a reference, then a proposal of the sampler."""
        running = self._executor.running()
        for trial in list(self.state.trials.values()):
            if not trial.ended and trial.status != "paused" and trial.number not in running:
                if len(trial.losses) > self._retries:
                    self._give_up(trial.number)
                    continue
                # A kill may have come between the validation at a rung and its consequence.
                verdict = decide(self.state, self._experiment, trial.number) if trial.curve else Verdict.CONTINUE
                if verdict is Verdict.CONTINUE:
                    return trial
                self._take_off(trial.number, verdict)
        searching = sum(not (t.ended or t.counts or t.is_replicate) for t in self.state.trials.values())
        for number in hopeless(self.state, self._experiment, asked):
            if number not in running:  # it may still write its checkpoint
                self._prune(number)
        full = self._exhausted or self.state.counted + searching >= asked
        paused = promotable(self.state, self._experiment, last=full and not searching)
        if paused is not None:
            return self._promote(paused)
        if full:
            return None if searching else self._after_the_search()
        known = {trial.proposed.name for trial in self.state.trials.values() if trial.is_reference}
        number = len(self.state.trials)
        for name, config in self._experiment.references.items():
            if name not in known:
                return self._propose(config, role="reference", name=name)
        point = propose(self.state, self._experiment, number)
        if point is None:
            self._exhausted = True
            return self._next_trial(asked)
        values = self._experiment.space.settings(point)
        return self._propose(self._experiment.base.with_values(values), values=values)

    def _promote(self, number: int) -> TrialState | None:
        """Have a paused trial go on; None while it still writes its checkpoint."""
        if number in self._executor.running():
            return None
        self.record(Resumed(time=time.time(), trial=number, patches=self.state.trials[number].patches))
        return self.state.trials[number]

    def _after_the_search(self) -> TrialState | None:
        """Close who still waits at a rung; then the next re-training of a finalist or a reference, None after all."""
        waiting = [trial.number for trial in self.state.trials.values() if trial.status == "paused"]
        if set(waiting) & set(self._executor.running()):
            return None
        for number in waiting:
            self._prune(number)
        replicate = due(self.state, self._experiment)
        if replicate is None:
            return None
        trial = replicate.of
        return self._propose(
            trial.config,
            role="replicate",
            name=replicate.name,
            values=trial.proposed.values,
            of=trial.number,
            replicate=replicate.number,
        )

    def _propose(
        self,
        config: TrialConfig,
        *,
        role: Literal["search", "reference", "replicate"] = "search",
        name: str = "",
        values: Mapping[str, object] | None = None,
        of: int | None = None,
        replicate: int = 0,
    ) -> TrialState:
        assert self.state.opened is not None
        number = len(self.state.trials)
        # One seed for all: every search trial starts from the same weights and sees the same patches (contract 1).
        config = replace(config, seed=trial_seed(self.state.opened.seed, replicate))
        content = config.to_json()
        self.record(
            Proposed(
                time=time.time(),
                trial=number,
                role=role,
                name=name,
                config=content,
                config_hash=config.digest(),
                values=values or {},
                of=of,
                replicate=replicate,
            )
        )
        return self.state.trials[number]

    def _task(self, trial: TrialState, slot: int) -> TrialTask:
        assert self.state.session is not None
        folder = self._folder.trial(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / "config.json", (json.dumps(trial.proposed.config, indent=2) + "\n").encode())
        return TrialTask(
            number=trial.number,
            config=trial.config,
            config_hash=trial.proposed.config_hash,
            folder=folder,
            epoch=self.state.session.epoch,
            slot=slot,
            source=self._source,
            initial=trial.proposed.initial,
            reductions=trial.reductions,
            fence=self._folder.owners,
        )

    def _take(self, event: TrialEvent) -> None:
        """One event of a trial: into the record, then what follows from it."""
        if isinstance(event, Ticked):
            self._tell(event)
        elif isinstance(event, Progress) and event.patches <= self.state.trials[event.trial].patches:
            self._compare_with_record(event)
        else:
            self.record(event)
        if isinstance(event, Progress):
            verdict = decide(self.state, self._experiment, event.trial)
            if verdict is not Verdict.CONTINUE:
                self._take_off(event.trial, verdict)
        elif isinstance(event, Finished | Failed):
            self._drop_checkpoint(event.trial)

    def _compare_with_record(self, event: Progress) -> None:
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

    def _take_off(self, number: int, verdict: Verdict) -> None:
        """Pause or prune a trial at a rung, whether it holds a slot or a kill came before this."""
        holds_slot = number in self._executor.running()
        if verdict is Verdict.PAUSE:
            self.record(Paused(time=time.time(), trial=number, patches=self.state.trials[number].patches))
            if holds_slot:
                self._executor.suspend(number)
            return
        if holds_slot:
            self._executor.end(number)
        self._prune(number)

    def _prune(self, number: int) -> None:
        trial = self.state.trials[number]
        self.record(
            Pruned(
                time=time.time(),
                trial=number,
                patches=trial.patches,
                reason=f"{trial.score:.2f} dB after {trial.patches} patches is not among the best "
                f"1/{self._experiment.reduction_factor:g} there",
            )
        )
        self._drop_checkpoint(number)

    def _give_up(self, number: int) -> None:
        """Fail a trial whose workers died or hung more often than they may."""
        losses = self.state.trials[number].losses
        self.record(
            Failed(
                time=time.time(),
                trial=number,
                cause="worker lost",
                reason=f"{len(losses)} workers were lost with it, the last one: {losses[-1].reason}",
            )
        )
        self._drop_checkpoint(number)

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
