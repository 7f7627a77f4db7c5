"""The loop that ties a study together, with trials that only pretend: what is counted, stopped, resumed, compared."""

import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.process.stopping import StopSignal
from sr_core.seed import child_seed
from study.executors.trial import TrialTask
from study.question.config import TrialConfig
from study.question.experiment import Experiment, load_experiment
from study.question.space import Choice, Grid
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import Journal, read
from study.record.state import StudyState, fold
from study.session.coordinator import Coordinator, Observer

EVERY, RUNG, BUDGET = 60, 120, 240
SEED = 11


class KilledError(BaseException):
    """The process ends here; what is on the disk stays."""


@dataclass
class Failure:
    """How a pretended trial fails."""

    cause: str = "diverged"
    reason: str = "the training loss is nan"
    traceback: str = ""


Outcome = Callable[[int, int], float | Failure]
"""(trial, patches) -> its score there, or how it fails."""


def all_well(number: int, patches: int) -> float:
    """The later a trial, the better: none is pruned."""
    return 25.0 + number + patches / 1_000


class FakeExecutor:
    """Slots where a trial is a short story; its checkpoint is a file that holds the number of patches."""

    def __init__(
        self,
        outcome: Outcome = all_well,
        *,
        slots: int = 1,
        kill_before_record: int | None = None,
        losses: Mapping[int, int] | None = None,
    ) -> None:
        self.outcome = outcome
        self.losses = dict(losses or {})
        """How many more workers are lost with a trial, each before its second validation since its start."""
        self.started: list[tuple[int, int]] = []
        """(trial, slot)"""
        self.asked = 0
        self._kill_at = kill_before_record
        self._slots: dict[int, tuple[int, Generator[ev.TrialEvent, None, None]] | None] = dict.fromkeys(range(slots))
        self._suspended: set[int] = set()
        self._turn = 0

    def free_slots(self) -> list[int]:
        return [slot for slot, held in self._slots.items() if held is None]

    def running(self) -> list[int]:
        return [held[0] for held in self._slots.values() if held is not None]

    def start(self, task: TrialTask) -> None:
        assert self._slots[task.slot] is None
        self.started.append((task.number, task.slot))
        self._suspended.discard(task.number)
        self._slots[task.slot] = (task.number, self._story(task))

    def next_event(self) -> ev.TrialEvent | None:
        busy = [slot for slot, held in self._slots.items() if held is not None]
        slot = busy[self._turn % len(busy)]
        self._turn += 1
        held = self._slots[slot]
        assert held is not None
        event = next(held[1], None)
        if event is None:
            self._slots[slot] = None
        self.asked += 1
        if self.asked == self._kill_at:
            raise KilledError
        return event

    def suspend(self, trial: int) -> None:
        self._suspended.add(trial)

    def end(self, trial: int) -> None:
        (slot,) = [slot for slot, held in self._slots.items() if held is not None and held[0] == trial]
        self._slots[slot] = None

    def close(self) -> None:
        self._slots = dict.fromkeys(self._slots)

    def _story(self, task: TrialTask) -> Generator[ev.TrialEvent, None, None]:
        trial: dict[str, Any] = {"time": time.time(), "trial": task.number}
        done = int(task.checkpoint.read_text()) if task.checkpoint.exists() else 0
        yield ev.Started(slot=task.slot, epoch=task.epoch, patches=done, source=task.source, **trial)
        scores: dict[str, float] = {}
        first = done + EVERY
        while done < BUDGET:
            done += EVERY
            if done > first and self.losses.get(task.number, 0) > 0:
                self.losses[task.number] -= 1
                yield ev.WorkerLost(slot=task.slot, reason="ended by SIGKILL", **trial)
                return
            yield ev.Ticked(patches=done - 10, loss=0.5, **trial)
            found = self.outcome(task.number, done)
            if isinstance(found, Failure):
                yield ev.Failed(cause=found.cause, reason=found.reason, traceback=found.traceback, **trial)
                return
            scores = {"val/psnr": found, "val/ssim": 0.9}
            yield ev.Validated(patches=done, scores=scores, loss=1 / done, learning_rate=1e-3, **trial)
            if done < BUDGET:
                task.checkpoint.write_text(str(done))
                yield ev.Checkpointed(patches=done, **trial)
                if task.number in self._suspended:
                    return
        task.weights.write_bytes(b"weights")
        yield ev.Finished(patches=done, scores=scores, per_image=(), weights="beef", seconds={}, **trial)


@dataclass
class Site:
    """A study on the disk, and sessions of it one after the other."""

    folder: StudyFolder
    experiment: Experiment
    executor: FakeExecutor = field(default_factory=FakeExecutor)

    def run(
        self,
        asked: int,
        outcome: Outcome = all_well,
        *,
        stop: StopSignal | None = None,
        observers: tuple[Observer, ...] = (),
        retries: int = 2,
        **how: Any,
    ) -> ev.SessionEnded:
        """One session; its end is recorded unless it is killed."""
        self.folder.create()
        state = self.state
        journal = Journal(self.folder.journal)
        self.executor = FakeExecutor(outcome, **how)
        coordinator = Coordinator(
            folder=self.folder,
            journal=journal,
            state=state,
            experiment=self.experiment,
            executor=self.executor,
            source="feed",
            observers=list(observers),
            stop=stop or StopSignal(),
            retries=retries,
        )
        try:
            if state.opened is None:
                coordinator.record(self._opened())
            epoch = 1 + (state.session.epoch if state.session else 0)
            coordinator.record(
                ev.SessionStarted(time=time.time(), epoch=epoch, host="here", pid=1, trials=asked, provenance={})
            )
            end = coordinator.search(asked)
            coordinator.record(end)
        finally:
            journal.close()
        assert coordinator.state == self.state
        return end

    @property
    def events(self) -> list[ev.Event]:
        return list(read(self.folder.journal)) if self.folder.journal.exists() else []

    @property
    def state(self) -> StudyState:
        return fold(self.events)

    def of(self, number: int) -> list[str]:
        """Names of what happened to one trial."""
        return [type(e).__name__ for e in self.events if getattr(e, "trial", None) == number]

    def checkpoint(self, number: int) -> Path:
        return self.folder.trial(number) / "checkpoint.safetensors"

    def _opened(self) -> ev.StudyOpened:
        rest: dict[str, Any] = {"question": {}, "digest": "", "text": "", "runtime": {}, "data": {}}
        return ev.StudyOpened(time=time.time(), format=ev.FORMAT, study="s", experiment="tiny", seed=SEED, **rest)


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes nine tenths of these tests' time; a killed process needs no more than the kernel."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make(tmp_path: Path, tiny_experiment_file: Path) -> Callable[..., Site]:
    """Makes a study of the tiny experiment, some of it changed; each has a folder of its own."""
    _, tiny = load_experiment(str(tiny_experiment_file))
    names = iter(range(1_000))

    def site(**changes: Any) -> Site:
        return Site(StudyFolder(tmp_path / "root", f"study{next(names)}"), replace(tiny, **changes))

    return site


@pytest.fixture
def site(make: Callable[..., Site]) -> Site:
    return make()


def outcome_of(site: Site) -> dict[int, Any]:
    """All that a study comes to, without times and starts."""
    return {
        t.number: (
            t.proposed.role,
            t.proposed.config_hash,
            [p.numbers() for p in t.curve],
            replace(t.end, time=0.0) if t.end else None,
        )
        for t in site.state.trials.values()
    }


# Counting


def test_references_come_first_then_proposals_until_as_many_are_counted_as_were_asked_for(site: Site) -> None:
    end = site.run(6)
    assert end.reason == "complete"
    assert [t.proposed.name for t in site.state.trials.values()] == ["authors", "blog", "", "", "", ""]
    assert [t.status for t in site.state.trials.values()] == ["finished"] * 6
    assert site.state.counted == 6


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_references_count_among_those_asked_for(site: Site, asked: int) -> None:
    site.run(asked)
    assert len(site.state.trials) == site.state.counted == asked


def test_pruned_trials_count(site: Site) -> None:
    site.run(8, lambda number, patches: 40.0 - number)
    statuses = [t.status for t in site.state.trials.values()]
    assert statuses == ["finished"] * 3 + ["pruned"] * 5  # both references, then the first and best of the search
    assert site.state.counted == 8


def test_failed_trials_are_replaced(site: Site) -> None:
    end = site.run(6, lambda number, patches: Failure() if number in (2, 4) else 30.0)
    assert end.reason == "complete"
    assert len(site.state.trials) == 8
    assert site.state.counted == 6
    assert [t.number for t in site.state.trials.values() if t.status == "failed"] == [2, 4]


def test_a_reference_that_fails_is_not_run_again(site: Site) -> None:
    site.run(4, lambda number, patches: Failure() if number == 0 else 30.0)
    assert [t.proposed.name for t in site.state.trials.values()] == ["authors", "blog", "", "", ""]


def test_a_complete_study_does_nothing_more(site: Site) -> None:
    site.run(4)
    before = outcome_of(site)
    assert site.run(4).reason == "complete"
    assert site.run(2).reason == "complete"
    assert outcome_of(site) == before
    assert site.executor.started == []


def test_a_larger_number_reopens_the_search_and_gives_what_it_would_have_given_at_once(
    make: Callable[..., Site],
) -> None:
    one, other = make(), make()
    one.run(4)
    assert one.run(7).reason == "complete"
    other.run(7)
    assert one.state.counted == 7
    assert outcome_of(one) == outcome_of(other)


def test_a_space_where_all_was_tried_ends_the_study_and_says_so(make: Callable[..., Site]) -> None:
    site = make(nuisance={"train.loss": Choice("l1", "l2"), "model.reduction": Grid(2, 4)})
    end = site.run(20)
    assert (end.reason, end.detail) == ("exhausted", "every configuration of the space has been tried")
    assert len({t.proposed.config_hash for t in site.state.trials.values()}) == site.state.counted == 2 + 4
    assert site.run(20).reason == "exhausted"
    assert len(site.state.trials) == 6


# What a trial is given


def test_all_trials_share_the_seed_that_the_study_s_seed_gives(site: Site) -> None:
    site.run(5)
    assert {t.config.seed for t in site.state.trials.values()} == {child_seed(SEED, "trial")}


def test_a_trial_s_folder_holds_its_complete_config(site: Site) -> None:
    site.run(3)
    for trial in site.state.trials.values():
        stored = TrialConfig.from_json(json.loads((site.folder.trial(trial.number) / "config.json").read_text()))
        assert stored == trial.config
        assert stored.digest() == trial.proposed.config_hash


def test_a_proposal_records_the_swept_values_and_a_reference_none(site: Site) -> None:
    site.run(3)
    reference, _, proposal = site.state.trials.values()
    assert dict(reference.proposed.values) == {}
    assert set(proposal.proposed.values) == set(site.experiment.space.names)
    dotted = proposal.config.dotted()
    assert {name: dotted[name] for name in proposal.proposed.values} == proposal.proposed.values


# Order: recorded, then in effect, then told


@dataclass
class Witness:
    """Notes what it is told, and whether the record had it by then."""

    folder: StudyFolder
    told: list[ev.Event] = field(default_factory=list)

    def observe(self, event: ev.Event, state: StudyState) -> None:
        self.told.append(event)
        recorded = list(read(self.folder.journal))
        assert isinstance(event, ev.Ticked) or recorded[-1] == event
        assert state == fold(recorded)


def test_everything_is_recorded_before_anyone_is_told_and_ticks_are_told_only(site: Site) -> None:
    witness = Witness(site.folder)
    site.run(4, lambda number, patches: 40.0 - number, observers=(witness,))
    assert [e for e in witness.told if not isinstance(e, ev.Ticked)] == site.events
    assert sum(isinstance(e, ev.Ticked) for e in witness.told) == 4 + 4 + 4 + 2


def test_a_trial_that_is_pruned_leaves_its_slot_at_once(site: Site) -> None:
    site.run(4, lambda number, patches: 40.0 - number)
    assert site.of(3) == ["Proposed", "Started", "Validated", "Checkpointed", "Validated", "Pruned"]
    end = site.state.trials[3].end
    assert isinstance(end, ev.Pruned)
    assert (end.patches, end.reason) == (RUNG, "37.00 dB after 120 patches is not among the best 1/2 there")


def test_checkpoints_are_removed_when_a_trial_has_ended_however_it_did(site: Site) -> None:
    def each_way(number: int, patches: int) -> float | Failure:
        if number == 6:
            return 50.0 if patches < BUDGET else Failure()
        return 40.0 - number

    site.run(7, each_way)
    assert {t.status for t in site.state.trials.values()} == {"finished", "pruned", "failed"}
    assert not list(site.folder.path.rglob("checkpoint*"))


def test_a_checkpoint_that_a_kill_left_behind_an_ended_trial_is_removed(site: Site) -> None:
    site.run(3)
    site.checkpoint(1).write_text("180")
    site.run(3)
    assert not site.checkpoint(1).exists()


# Repeated failures


def bug(line: int, message: str = "x") -> Failure:
    trace = (
        f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n  File "b.py", line {line}, in g\nKeyError'
    )
    return Failure("bug", f"KeyError: {message}", trace)


@pytest.mark.parametrize(("asked", "most"), [(6, 5), (24, 5), (25, 5), (30, 6), (50, 10)])
def test_too_many_failures_in_a_row_stop_the_study(site: Site, asked: int, most: int) -> None:
    end = site.run(asked, lambda number, patches: Failure() if number >= 3 else 30.0)
    assert end.reason == "failures"
    assert end.detail == f"{most} trials failed in a row, the last one: the training loss is nan"
    assert len(site.state.trials) == 3 + most


def test_failures_with_a_success_between_them_do_not_stop_the_study(site: Site) -> None:
    end = site.run(8, lambda number, patches: Failure() if number % 5 else 30.0)
    assert end.reason == "complete"
    assert sum(t.status == "failed" for t in site.state.trials.values()) == 4 * 7


def test_a_pruned_trial_ends_a_row_of_failures(site: Site) -> None:
    failing = (2, 3, 4, 5, 8, 9, 10, 11)
    end = site.run(5, lambda number, patches: Failure() if number in failing else 40.0 - number)
    assert end.reason == "complete"
    assert [t.status for t in site.state.trials.values()][7] == "pruned"


def test_the_same_bug_in_two_trials_stops_the_study(site: Site) -> None:
    end = site.run(20, lambda number, patches: bug(7, str(number)) if number in (3, 6) else 30.0)
    assert (end.reason, end.detail) == ("failures", "trials 3 and 6 failed alike: KeyError: 6")
    assert len(site.state.trials) == 7


def test_different_bugs_in_two_trials_do_not_stop_the_study(site: Site) -> None:
    def two(number: int, patches: int) -> float | Failure:
        return {3: bug(7), 6: bug(8), 8: Failure("bug", "TypeError: x", bug(7).traceback)}.get(number, 30.0)

    assert site.run(9, two).reason == "complete"


def test_the_same_bad_input_in_two_trials_stops_the_study(site: Site) -> None:
    end = site.run(20, lambda number, patches: Failure("input", "no image is large enough") if number > 2 else 30.0)
    assert end.reason == "failures"
    assert len(site.state.trials) == 5


@pytest.mark.parametrize("cause", ["diverged", "out of memory"])
def test_trials_that_diverge_or_run_out_of_memory_alike_do_not_stop_the_study(site: Site, cause: str) -> None:
    end = site.run(6, lambda number, patches: Failure(cause) if number % 3 == 2 else 30.0)
    assert end.reason == "complete"


def test_after_a_stop_for_failures_the_same_command_tries_again(site: Site) -> None:
    assert site.run(9, lambda number, patches: bug(7) if number >= 2 else 30.0).reason == "failures"
    assert site.run(9).reason == "complete"
    assert site.state.counted == 9


# Lost workers


def test_a_trial_whose_worker_is_lost_goes_on_from_its_checkpoint_with_the_same_settings(
    make: Callable[..., Site],
) -> None:
    whole, lossy = make(), make()
    whole.run(6)
    assert lossy.run(6, losses={1: 1, 3: 2, 5: 2}).reason == "complete"
    assert outcome_of(lossy) == outcome_of(whole)
    assert [len(t.losses) for t in lossy.state.trials.values()] == [0, 1, 0, 2, 0, 2]
    assert [start.patches for start in lossy.state.trials[3].starts] == [0, EVERY, 2 * EVERY]
    assert not list(lossy.folder.path.rglob("checkpoint*"))


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_trial_that_loses_more_workers_than_it_may_fails_with_the_reason_and_is_replaced(
    site: Site, retries: int
) -> None:
    assert site.run(5, losses={3: 99}, retries=retries).reason == "complete"
    trial = site.state.trials[3]
    assert isinstance(trial.end, ev.Failed)
    lost = retries + 1
    assert (trial.end.cause, trial.end.reason) == (
        "worker lost",
        f"{lost} workers were lost with it, the last one: ended by SIGKILL",
    )
    assert len(trial.starts) == lost
    assert site.state.counted == 5
    assert not site.checkpoint(3).exists()


def test_losses_are_counted_over_all_sessions(site: Site) -> None:
    for _ in range(2):
        stop = StopSignal()
        site.run(5, losses={2: 1}, stop=stop, observers=(StopAt(stop, ev.WorkerLost, 2, "interrupted"),))
    assert len(site.state.trials[2].losses) == 2
    site.run(5, losses={2: 1}, retries=2)
    assert site.state.trials[2].status == "failed"


def test_when_every_trial_loses_its_workers_the_study_stops(site: Site) -> None:
    end = site.run(20, losses=dict.fromkeys(range(30), 99))
    assert end.reason == "failures"
    assert end.detail.startswith("5 trials failed in a row, the last one: 3 workers were lost with it")


# Stopping


@dataclass
class StopAt:
    """Gives the signal when some event has been recorded."""

    stop: StopSignal
    event: type[ev.Event]
    trial: int
    reason: Any

    def observe(self, event: ev.Event, state: StudyState) -> None:
        if isinstance(event, self.event) and getattr(event, "trial", None) == self.trial:
            self.stop.reason = self.reason


@pytest.mark.parametrize("reason", ["interrupted", "terminated", "timeout"])
def test_a_stop_signal_suspends_the_running_trial_and_says_which_signal_it_was(site: Site, reason: str) -> None:
    stop = StopSignal()
    end = site.run(6, stop=stop, observers=(StopAt(stop, ev.Started, 2, reason),))
    assert end.reason == reason
    assert site.of(2) == ["Proposed", "Started", "Validated", "Checkpointed"]
    assert site.state.trials[2].status == "running"
    assert site.checkpoint(2).read_text() == str(EVERY)


def test_a_suspended_trial_goes_on_first_and_from_its_checkpoint(site: Site) -> None:
    stop = StopSignal()
    site.run(6, stop=stop, observers=(StopAt(stop, ev.Checkpointed, 2, "interrupted"),))
    site.run(6)
    assert site.executor.started[0] == (2, 0)
    assert [start.patches for start in site.state.trials[2].starts] == [0, EVERY]
    assert [start.epoch for start in site.state.trials[2].starts] == [1, 2]
    assert [p.patches for p in site.state.trials[2].curve] == [60, 120, 180, 240]
    assert site.state.counted == 6


def test_a_study_that_was_stopped_comes_to_the_same_as_one_that_was_not(make: Callable[..., Site]) -> None:
    whole, stopped = make(), make()
    whole.run(6)
    for trial in range(6):
        stop = StopSignal()
        stopped.run(6, stop=stop, observers=(StopAt(stop, ev.Validated, trial, "interrupted"),))
    assert stopped.run(6).reason == "complete"
    assert outcome_of(stopped) == outcome_of(whole)


def test_a_trial_that_ends_while_it_is_suspended_has_ended(site: Site) -> None:
    stop = StopSignal()
    last = StopAt(stop, ev.Finished, 2, "terminated")
    assert site.run(6, stop=stop, observers=(last,)).reason == "terminated"
    assert site.state.trials[2].status == "finished"
    assert len(site.state.trials) == 3


def test_a_stop_before_the_first_trial_starts_none(site: Site) -> None:
    assert site.run(6, stop=StopSignal("terminated")).reason == "terminated"
    assert site.state.trials == {}


def test_a_deadline_that_has_passed_stops_with_timeout(site: Site) -> None:
    stop = StopSignal(deadline=time.monotonic() - 1)
    assert site.run(6, stop=stop).reason == "timeout"
    assert not StopSignal(deadline=time.monotonic() + 1_000).given()
    assert not StopSignal().given()


def test_a_signal_keeps_its_reason_when_the_deadline_passes_as_well() -> None:
    stop = StopSignal(reason="interrupted", deadline=time.monotonic() - 1)
    assert stop.given()
    assert stop.reason == "interrupted"


def test_a_smaller_number_lets_half_done_trials_finish_and_starts_no_others(site: Site) -> None:
    stop = StopSignal()
    site.run(6, stop=stop, observers=(StopAt(stop, ev.Started, 4, "interrupted"),))
    site.run(2)
    assert [t.status for t in site.state.trials.values()] == ["finished"] * 5


# Kills


@dataclass
class KillAfter:
    """Ends the process after this number of recorded events."""

    events: int

    def observe(self, event: ev.Event, state: StudyState) -> None:
        if not isinstance(event, ev.Ticked):
            self.events -= 1
            if self.events == 0:
                raise KilledError


def mixed(number: int, patches: int) -> float | Failure:
    """Of the search, one finishes, one diverges past the rung, one is pruned."""
    if number == 3 and patches == 180:
        return Failure()
    return (30.0, 31.0, 29.0, 32.0, 28.0)[number] + patches / 1_000


def test_killed_after_any_line_of_the_record_a_study_comes_to_the_same(make: Callable[..., Site]) -> None:
    whole = make()
    whole.run(4, mixed)
    assert {t.status for t in whole.state.trials.values()} == {"finished", "pruned", "failed"}
    for lines in range(1, len(whole.events)):
        killed = make()
        with pytest.raises(KilledError):
            killed.run(4, mixed, observers=(KillAfter(lines),))
        assert len(killed.events) == lines
        assert killed.run(4, mixed).reason == "complete"
        assert outcome_of(killed) == outcome_of(whole)
        assert killed.state.warnings == ()


def test_killed_between_any_deed_and_its_line_in_the_record_a_study_comes_to_the_same(
    make: Callable[..., Site],
) -> None:
    whole = make()
    whole.run(4, mixed)
    for deed in range(1, whole.executor.asked + 1):
        killed = make()
        with pytest.raises(KilledError):
            killed.run(4, mixed, kill_before_record=deed)
        assert killed.run(4, mixed).reason == "complete"
        assert outcome_of(killed) == outcome_of(whole)
        assert killed.state.warnings == ()


def test_killed_again_and_again_a_study_comes_to_the_same(make: Callable[..., Site]) -> None:
    whole, killed = make(), make()
    whole.run(4, mixed)
    for _ in range(1_000):
        try:
            killed.run(4, mixed, kill_before_record=5)
        except KilledError:
            continue
        break
    assert killed.state.session is not None
    assert killed.state.session.epoch > 5
    assert outcome_of(killed) == outcome_of(whole)


def test_a_kill_between_a_validation_at_a_rung_and_its_verdict_is_made_good_before_anything_runs(site: Site) -> None:
    @dataclass
    class KillAtRung:
        def observe(self, event: ev.Event, state: StudyState) -> None:
            if isinstance(event, ev.Validated) and (event.trial, event.patches) == (3, RUNG):
                raise KilledError

    with pytest.raises(KilledError):
        site.run(5, lambda number, patches: 40.0 - number, observers=(KillAtRung(),))
    assert site.state.trials[3].status == "running"
    before = len(site.events)
    site.run(5, lambda number, patches: 40.0 - number)
    assert [type(e).__name__ for e in site.events[before : before + 3]] == ["SessionStarted", "Pruned", "Proposed"]
    assert 3 not in dict(site.executor.started)
    assert not site.checkpoint(3).exists()
    assert site.state.counted == 5


# What comes again


def killed_without_checkpoint(site: Site) -> None:
    """A study whose third trial has two validations in the record and lost its checkpoint."""

    @dataclass
    class KillAtSecondCheckpoint:
        def observe(self, event: ev.Event, state: StudyState) -> None:
            if isinstance(event, ev.Checkpointed) and (event.trial, event.patches) == (2, 120):
                raise KilledError

    with pytest.raises(KilledError):
        site.run(4, observers=(KillAtSecondCheckpoint(),))
    site.checkpoint(2).unlink()


def test_a_validation_that_comes_again_is_compared_and_not_appended(site: Site) -> None:
    killed_without_checkpoint(site)
    site.run(4)
    assert [start.patches for start in site.state.trials[2].starts] == [0, 0]
    assert [p.patches for p in site.state.trials[2].curve] == [60, 120, 180, 240]
    assert site.state.warnings == ()


def test_a_validation_that_comes_again_with_other_numbers_is_warned_of(site: Site) -> None:
    killed_without_checkpoint(site)
    before = site.state.trials[2].curve
    site.run(4, lambda number, patches: all_well(number, patches) + (0.5 if patches == 120 else 0.0))
    assert site.state.trials[2].curve[:2] == before
    (warning,) = site.state.warnings
    assert warning.startswith("trial 2 differs after its resume, at 120 patches: {'val/psnr': 27.62,")
    assert "before the interruption {'val/psnr': 27.12," in warning
    (recorded,) = [e for e in site.events if isinstance(e, ev.Warned)]
    assert recorded.trial == 2


# Several slots


def test_every_free_slot_is_filled_and_no_more_trials_are_opened_than_were_asked_for(site: Site) -> None:
    assert site.run(7, slots=3).reason == "complete"
    assert len(site.state.trials) == site.state.counted == 7
    assert [slot for _, slot in site.executor.started[:3]] == [0, 1, 2]


def test_a_slot_too_many_stays_free(site: Site) -> None:
    site.run(2, slots=5)
    assert sorted(site.executor.started) == [(0, 0), (1, 1)]


def test_a_stop_suspends_every_slot_and_all_go_on(site: Site) -> None:
    stop = StopSignal()
    site.run(6, slots=3, stop=stop, observers=(StopAt(stop, ev.Validated, 1, "interrupted"),))
    assert [t.status for t in site.state.trials.values()] == ["running"] * 3
    assert all(site.checkpoint(number).exists() for number in range(3))
    assert site.run(6, slots=3).reason == "complete"
    assert [number for number, _ in site.executor.started[:3]] == [0, 1, 2]
    assert site.state.counted == 6


def test_failures_suspend_the_other_running_trials(site: Site) -> None:
    end = site.run(9, lambda number, patches: bug(7) if number in (0, 1) and patches == 120 else 30.0, slots=3)
    assert end.reason == "failures"
    assert site.state.trials[2].status == "running"
    assert site.checkpoint(2).exists()


def test_a_session_ends_without_running_slots(site: Site) -> None:
    site.run(5, slots=2)
    assert site.executor.running() == []
    assert site.executor.free_slots() == [0, 1]


# Replicates


REPLICATED = {"finalists": 1, "replicates": 2}


def of_role(site: Site, role: str) -> list[ev.Proposed]:
    return [t.proposed for t in site.state.trials.values() if t.proposed.role == role]


def test_after_the_search_finalist_and_references_are_trained_again_with_fresh_paired_seeds(
    make: Callable[..., Site],
) -> None:
    site = make(**REPLICATED)
    assert site.run(5).reason == "complete"
    assert site.state.counted == 5
    assert [(p.trial, p.name, p.of, p.replicate) for p in of_role(site, "replicate")] == [
        (5, "finalist 1", 4, 1),
        (6, "authors", 0, 1),
        (7, "blog", 1, 1),
        (8, "finalist 1", 4, 2),
        (9, "authors", 0, 2),
        (10, "blog", 1, 2),
    ]
    for proposed in of_role(site, "replicate"):
        config, original = site.state.trials[proposed.trial].config, site.state.trials[proposed.of or 0].config
        assert config == replace(original, seed=child_seed(SEED, "replicate", proposed.replicate))


def test_replicates_are_not_begun_before_the_last_search_trial_has_ended(make: Callable[..., Site]) -> None:
    site = make(**REPLICATED)
    site.run(6, slots=3)
    events = site.events
    last = max(i for i, e in enumerate(events) if isinstance(e, ev.Finished) and e.trial < 6)
    first = min(i for i, e in enumerate(events) if isinstance(e, ev.Proposed) and e.role == "replicate")
    assert last < first


def test_a_study_killed_among_its_replicates_ends_like_one_that_was_not(make: Callable[..., Site]) -> None:
    whole = make(**REPLICATED)
    whole.run(4)
    for kill in range(whole.executor.asked // 2, whole.executor.asked, 5):
        site = make(**REPLICATED)
        with pytest.raises(KilledError):
            site.run(4, kill_before_record=kill)
        assert site.run(4).reason == "complete"
        assert outcome_of(site) == outcome_of(whole)


def test_a_replicate_that_fails_is_recorded_and_neither_repeated_nor_held_against_the_study(
    make: Callable[..., Site],
) -> None:
    site = make(finalists=1, replicates=6)
    end = site.run(4, lambda number, patches: Failure() if number >= 4 else all_well(number, patches))
    assert end.reason == "complete"
    assert [t.status for t in site.state.trials.values()] == ["finished"] * 4 + ["failed"] * 18
    assert site.run(4).reason == "complete"
    assert len(site.state.trials) == 22


def test_a_larger_number_reopens_the_search_after_its_replicates_too(make: Callable[..., Site]) -> None:
    site = make(**REPLICATED)
    site.run(4)
    site.run(6)
    assert site.state.counted == 6
    winner = site.state.best()
    assert winner is not None
    assert len(site.state.replicates_of(winner.number)) == 2


def test_replicates_of_a_search_that_tried_everything_are_made(make: Callable[..., Site]) -> None:
    site = make(nuisance={"train.loss": Choice("l1", "l2"), "model.reduction": Grid(2, 4)}, **REPLICATED)
    assert site.run(20).reason == "exhausted"
    assert len(of_role(site, "replicate")) == 6


# Pause and promote

ASHA = {"scheduler": "asha", "rungs": (RUNG,), "reduction_factor": 3.0, "references": {}}


def shuffled(number: int, patches: int) -> float:
    """Scores in no order: trials pause, and some are promoted later."""
    return 25.0 + (number * 7) % 11 + patches / 1_000


def test_paused_trials_go_on_as_the_same_trial_from_their_checkpoint(make: Callable[..., Site]) -> None:
    site = make(**ASHA)
    assert site.run(12, shuffled).reason == "complete"
    assert (site.state.counted, len(site.state.trials)) == (12, 12)
    promoted = [t for t in site.state.trials.values() if t.promoted]
    assert promoted
    for trial in promoted:
        assert [s.patches for s in trial.starts] == [0, RUNG]
        assert [p.patches for p in trial.curve] == [60, 120, 180, 240]
        assert trial.status == "finished"
    finished = {t.number for t in site.state.trials.values() if t.status == "finished"}
    ranked = sorted(range(12), key=lambda n: -shuffled(n, RUNG))
    assert set(ranked[:4]) <= finished  # the best third


def test_when_the_search_is_over_no_trial_is_left_waiting(make: Callable[..., Site]) -> None:
    site = make(**ASHA)
    site.run(12, shuffled)
    assert {t.status for t in site.state.trials.values()} == {"finished", "pruned"}
    assert not list(site.folder.path.rglob("*checkpoint*"))


def test_a_trial_that_cannot_be_promoted_any_more_loses_its_checkpoint_early(make: Callable[..., Site]) -> None:
    site = make(**ASHA)
    site.run(12, lambda number, patches: 40.0 - number)  # each is worse than all before it
    events = site.events
    first = next(i for i, e in enumerate(events) if isinstance(e, ev.Pruned))
    assert any(isinstance(e, ev.Proposed) for e in events[first:])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_search_ends_with_a_winner_too(make: Callable[..., Site], count: int) -> None:
    site = make(**ASHA)
    site.run(count, shuffled)
    best = site.state.best()
    assert best is not None
    assert best.number == max(range(count), key=lambda n: shuffled(n, RUNG))


def test_a_study_that_pauses_and_is_killed_anywhere_ends_like_one_that_was_not(make: Callable[..., Site]) -> None:
    whole = make(**ASHA)
    whole.run(7, shuffled)
    for kill in range(1, whole.executor.asked, 3):
        site = make(**ASHA)
        with pytest.raises(KilledError):
            site.run(7, shuffled, kill_before_record=kill)
        assert site.run(7, shuffled).reason == "complete"
        assert outcome_of(site) == outcome_of(whole)


def test_several_slots_pause_and_promote_too(make: Callable[..., Site]) -> None:
    site = make(**ASHA)
    assert site.run(20, shuffled, slots=4).reason == "complete"
    assert site.state.counted == 20
    assert {t.status for t in site.state.trials.values()} == {"finished", "pruned"}
    assert sum(t.status == "finished" for t in site.state.trials.values()) >= 6
    for trial in site.state.trials.values():
        assert [p.patches for p in trial.curve] == [60, 120, 180, 240][: len(trial.curve)]


def test_a_promoted_trial_that_fails_is_replaced(make: Callable[..., Site]) -> None:
    site = make(**ASHA)
    best = max(range(9), key=lambda n: shuffled(n, RUNG))
    site.run(9, lambda number, patches: Failure() if (number, patches) == (best, 180) else shuffled(number, patches))
    assert site.state.trials[best].status == "failed"
    assert site.state.counted == 9
    assert len(site.state.trials) == 10
