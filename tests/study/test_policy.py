"""What a study does next, in studies that hypothesis makes up: no executor, no journal, no training."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.quickstart import EXPERIMENT
from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.question.space import Choice, Grid
from study.record import events as ev
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.search.policy import Start, consequence, next_step
from study.session.dry_run import first_proposals

NOW = 1_700_000_000.0
EVERY, RUNGS, BUDGET = 480, (960, 1_440), 1_920
RETRIES = 1

SMALL = replace(
    EXPERIMENT,
    nuisance={"train.loss": Choice("l1", "l2", "charbonnier"), "model.reduction": Grid(2, 4, 8, 10)},
    sampler="grid",
    scheduler="asha",
    rungs=RUNGS,
    reduction_factor=2.0,
    replicates=2,
)
"""12 configurations and two references: searches of this space can be exhausted."""
THIRDS = replace(SMALL, reduction_factor=3.0, references={})
HALVING = replace(SMALL, scheduler="successive_halving")
EXPERIMENTS = [SMALL, THIRDS, HALVING]


@dataclass(frozen=True)
class Asked:
    """One call of `next_step`, and what it gave."""

    state: StudyState
    running: tuple[int, ...]
    step: Start | ev.TrialEvent | None

    @property
    def searching(self) -> list[TrialState]:
        """Search trials that have neither ended nor paused."""
        return [t for t in self.state.trials.values() if not (t.ended or t.counts or t.is_replicate)]

    def paused_in_share(self, experiment: Experiment, rung: int, rounded: Any) -> list[int]:
        """The paused trials among the best share of a rung, the best first, of equal ones the lower number."""
        reached = {t.number: s for t in of_search(self.state) if (s := t.score_at(rung)) is not None}
        order = sorted(reached, key=lambda number: (-reached[number], number))
        share = order[: rounded(len(order) / experiment.reduction_factor)]
        waiting = {t.number for t in self.state.trials.values() if t.status == "paused" and t.patches == rung}
        return [number for number in share if number in waiting]


def of_search(state: StudyState) -> list[TrialState]:
    return [t for t in state.trials.values() if t.proposed.role == "search"]


@dataclass
class Play:
    """A study on slots that take turns by chance. Scores come from a short list, so that many are equal."""

    experiment: Experiment = field(repr=False)
    asked: int
    slots: int
    scores: Sequence[int]
    turns: random.Random
    losses: float = 0.0
    """How likely the worker is lost at a turn."""
    failures: float = 0.0
    state: StudyState = field(default_factory=StudyState, repr=False)
    calls: list[Asked] = field(default_factory=list, repr=False)
    running: list[int] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.tell(
            ev.StudyOpened, format=ev.FORMAT, study="", experiment="", seed=1, question=self.experiment.describe(),
            digest="", text="", runtime={}, data={},
        )  # fmt: skip

    def tell(self, kind: type[ev.Event], **values: Any) -> None:
        self.state = self.state.apply(kind(time=NOW, **values))

    def ask(self) -> Start | ev.TrialEvent | None:
        running = tuple(self.running)
        step = next_step(self.state, self.experiment, self.asked, now=NOW, running=running, retries=RETRIES)
        self.calls.append(Asked(self.state, running, step))
        return step

    def run(self) -> "Play":
        """To its end; fails if it has none."""
        for _ in range(5_000):
            self.fill()
            if not self.running:
                return self
            self.advance(self.turns.choice(self.running))
        raise AssertionError("the study does not end")

    def fill(self) -> None:
        while len(self.running) < self.slots:
            match self.ask():
                case None:
                    return
                case Start(number):
                    self.running.append(number)
                    patches = self.state.trials[number].patches
                    self.tell(ev.Started, trial=number, slot=0, epoch=1, patches=patches, source="")
                case event:
                    self.state = self.state.apply(event)

    def advance(self, number: int) -> None:
        """One turn of a trial. One that has paused writes its checkpoint and leaves its slot a turn later."""
        trial = self.state.trials[number]
        if trial.status == "paused":
            self.running.remove(number)
            return
        chance = self.turns.random()
        if chance < self.losses:
            self.tell(ev.WorkerLost, trial=number, slot=0, reason="ended by SIGKILL")
            self.running.remove(number)
        elif chance < self.losses + self.failures:
            self.tell(ev.Failed, trial=number, cause="diverged", reason="the training loss is nan")
            self.running.remove(number)
        else:
            self.validate(number, trial.patches + EVERY)

    def validate(self, number: int, patches: int) -> None:
        scores = {OBJECTIVE: float(self.scores[(7 * number + patches // EVERY) % len(self.scores)])}
        self.tell(ev.Validated, trial=number, patches=patches, scores=scores, loss=1.0, learning_rate=1e-3)
        if patches == BUDGET:
            self.tell(ev.Finished, trial=number, patches=patches, scores=scores, per_image=(), weights="", seconds={})
            self.running.remove(number)
            return
        event = consequence(self.state, self.experiment, number, now=NOW)
        if event is not None:
            self.state = self.state.apply(event)
        if isinstance(event, ev.Pruned):
            self.running.remove(number)

    def steps(self, kind: type) -> list[Asked]:
        return [call for call in self.calls if isinstance(call.step, kind)]


@st.composite
def plays(draw: st.DrawFn, experiments: Sequence[Experiment] = EXPERIMENTS, disturbed: bool = True) -> Play:
    """A study that ran to its end."""
    return Play(
        experiment=draw(st.sampled_from(experiments)),
        asked=draw(st.integers(1, 16)),
        slots=draw(st.integers(1, 4)),
        scores=draw(st.lists(st.integers(20, 26), min_size=1, max_size=40)),
        turns=random.Random(draw(st.integers(0, 2**20))),
        losses=draw(st.sampled_from([0.0, 0.15])) if disturbed else 0.0,
        failures=draw(st.sampled_from([0.0, 0.1])) if disturbed else 0.0,
    ).run()


few = settings(max_examples=15, deadline=None)


# Any study


@few
@given(plays())
def test_a_study_ends_with_as_many_counted_as_were_asked_for_unless_its_space_is_exhausted(play: Play) -> None:
    tried = {tuple(t.proposed.values.values()) for t in of_search(play.state)}
    assert play.state.counted == play.asked or (play.state.counted < play.asked and len(tried) == 12)
    assert not [t for t in play.state.trials.values() if not t.ended]


@few
@given(plays())
def test_a_study_that_has_ended_has_nothing_to_do(play: Play) -> None:
    assert play.ask() is None
    assert play.ask() is None


@few
@given(plays())
def test_the_same_state_gives_the_same_step_at_the_time_that_was_given(play: Play) -> None:
    for call in play.calls[::5]:
        later = NOW + 7
        again = next_step(call.state, play.experiment, play.asked, now=later, running=call.running, retries=RETRIES)
        if isinstance(call.step, ev.TrialEvent):
            assert call.step.time == NOW
            assert again == replace(call.step, time=later)
        else:
            assert again == call.step


@few
@given(plays())
def test_there_is_nothing_to_do_only_while_others_run_or_at_the_end(play: Play) -> None:
    for call in play.calls:
        if call.step is None and not call.running:
            assert call.state == play.state


# The order of choice


@few
@given(plays())
def test_a_half_done_trial_comes_before_everything_else(play: Play) -> None:
    for call in play.calls:
        half_done = [
            number
            for number, trial in call.state.trials.items()
            if not trial.ended and trial.status != "paused" and number not in call.running
        ]
        if half_done:
            assert call.step is not None
            assert call.step.trial == half_done[0]
        else:
            assert not isinstance(call.step, Start)


@few
@given(plays())
def test_references_come_first_in_the_order_of_the_experiment(play: Play) -> None:
    begun = [t.proposed for t in play.state.trials.values() if t.proposed.role != "replicate"]
    names = [proposed.name for proposed in begun]
    expected = list(play.experiment.references)[: len(names)]
    assert names[: len(expected)] == expected
    assert {proposed.role for proposed in begun[len(expected) :]} <= {"search"}


@few
@given(plays())
def test_nothing_is_proposed_while_a_paused_trial_has_a_place(play: Play) -> None:
    for call in play.steps(ev.Proposed):
        for rung in RUNGS:
            assert call.paused_in_share(play.experiment, rung, math.floor) == []


@few
@given(plays())
def test_no_more_trials_are_begun_than_may_still_be_counted(play: Play) -> None:
    for call in play.steps(ev.Proposed):
        if call.step.role != "replicate":  # type: ignore[union-attr]
            assert call.state.counted + len(call.searching) < play.asked


@few
@given(plays())
def test_replicates_come_after_the_search_seed_by_seed(play: Play) -> None:
    calls = [call for call in play.steps(ev.Proposed) if call.step.role == "replicate"]  # type: ignore[union-attr]
    for call in calls:
        assert not call.searching
        assert not [t for t in call.state.trials.values() if t.status == "paused"]
        assert len(call.state.replicates_of(call.step.of)) == call.step.replicate - 1  # type: ignore[union-attr,arg-type]
    seeds = [call.step.replicate for call in calls]  # type: ignore[union-attr]
    assert seeds == sorted(seeds)
    if play.state.candidates():
        finished = [t for t in play.state.trials.values() if t.is_reference and t.status == "finished"]
        assert len(calls) == play.experiment.replicates * (1 + len(finished))


@few
@given(plays())
def test_search_trials_share_a_seed_and_replicates_have_their_own(play: Play) -> None:
    for trial in play.state.trials.values():
        number = trial.proposed.replicate
        expected = child_seed(1, "replicate", number) if number else child_seed(1, "trial")
        assert trial.config.seed == expected
        assert trial.proposed.config_hash == trial.config.digest()


# Pause and promote


@few
@given(plays([SMALL, THIRDS]))
def test_the_best_paused_trial_of_the_top_share_is_promoted_and_of_equal_ones_the_lower_number(play: Play) -> None:
    for call in play.steps(ev.Resumed):
        assert isinstance(call.step, ev.Resumed)
        is_full = call.state.counted + len(call.searching) >= play.asked
        # The share is rounded up only if no new trial will come: enough were begun, or the space is exhausted.
        roundings = [math.ceil] if is_full and not call.searching else [math.floor, math.ceil]
        candidates = [
            (number, rung)
            for rounded in roundings
            for rung in reversed(RUNGS)
            for number in call.paused_in_share(play.experiment, rung, rounded)
        ]
        assert (call.step.trial, call.step.patches) == candidates[0]
        if call.searching:
            assert call.step.trial in call.paused_in_share(play.experiment, call.step.patches, math.floor)


@few
@given(plays([SMALL, THIRDS]))
def test_no_trial_is_promoted_twice_from_the_same_rung(play: Play) -> None:
    promotions = Counter((call.step.trial, call.step.patches) for call in play.steps(ev.Resumed))  # type: ignore[union-attr]
    assert set(promotions.values()) <= {1}


@few
@given(plays([SMALL, THIRDS]))
def test_in_the_end_nobody_of_the_top_share_of_a_rung_was_stopped_there(play: Play) -> None:
    for rung in RUNGS:
        reached = {t.number: s for t in of_search(play.state) if (s := t.score_at(rung)) is not None}
        order = sorted(reached, key=lambda number: (-reached[number], number))
        for number in order[: math.floor(len(order) / play.experiment.reduction_factor)]:
            trial = play.state.trials[number]
            assert trial.patches > rung or trial.status == "failed"


@few
@given(plays([SMALL, THIRDS]))
def test_a_paused_trial_that_still_writes_its_checkpoint_is_left_alone(play: Play) -> None:
    for call in play.calls:
        if call.step is not None and not isinstance(call.step, ev.Proposed):
            assert call.step.trial not in call.running


@few
@given(plays([SMALL, THIRDS], disturbed=False))
def test_every_search_ends_with_trials_at_the_full_budget(play: Play) -> None:
    if of_search(play.state):
        assert [t for t in of_search(play.state) if t.status == "finished"]


@few
@given(plays([HALVING]))
def test_successive_halving_neither_pauses_nor_promotes(play: Play) -> None:
    assert play.steps(ev.Resumed) == []
    assert play.steps(ev.Paused) == []


# After an interruption


def one_trial(scheduler: str, *scores: float) -> Play:
    """A study whose second search trial has these scores and no slot; the first had 30 dB everywhere."""
    play = Play(replace(THIRDS, scheduler=scheduler), 6, 1, [30], random.Random(0))  # type: ignore[arg-type]
    for number, curve in enumerate([(30.0, 30.0, 30.0, 30.0), scores]):
        proposed = play.ask()
        assert isinstance(proposed, ev.Proposed)
        play.state = play.state.apply(proposed)
        play.tell(ev.Started, trial=number, slot=0, epoch=1, patches=0, source="")
        for place, score in enumerate(curve, start=1):
            told = {"patches": EVERY * place, "scores": {OBJECTIVE: score}, "loss": 1.0, "learning_rate": 1e-3}
            play.tell(ev.Validated, trial=number, **told)
        if number == 0:
            rest = {"scores": {OBJECTIVE: 30.0}, "per_image": (), "weights": "", "seconds": {}}
            play.tell(ev.Finished, trial=0, patches=BUDGET, **rest)
    return play


@pytest.mark.parametrize("losses", range(5))
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_trial_starts_again_until_it_has_lost_more_workers_than_it_may(losses: int, retries: int) -> None:
    play = one_trial("none", 20.0)
    for _ in range(losses):
        play.tell(ev.WorkerLost, trial=1, slot=0, reason="ended by SIGKILL")
    step = next_step(play.state, play.experiment, 6, now=NOW, retries=retries)
    if losses <= retries:
        assert step == Start(1)
    else:
        reason = f"{losses} workers were lost with it, the last one: ended by SIGKILL"
        assert step == ev.Failed(time=NOW, trial=1, cause="worker lost", reason=reason)


@few
@given(plays())
def test_no_trial_loses_more_workers_than_one_above_its_retries(play: Play) -> None:
    for trial in play.state.trials.values():
        assert len(trial.losses) <= RETRIES + 1
        if len(trial.losses) > RETRIES:
            assert isinstance(trial.end, ev.Failed)
            assert trial.end.cause == "worker lost"


def test_what_a_validation_at_a_rung_calls_for_is_made_good_before_the_trial_starts() -> None:
    halving, asha = one_trial("successive_halving", 25.0, 24.5), one_trial("asha", 25.0, 24.5)
    reason = "24.50 dB after 960 patches is not among the best 1/3 there"
    assert halving.ask() == ev.Pruned(time=NOW, trial=1, patches=960, reason=reason)
    assert asha.ask() == ev.Paused(time=NOW, trial=1, patches=960)


def test_a_trial_that_was_interrupted_between_rungs_or_stands_well_at_one_starts() -> None:
    assert one_trial("successive_halving", 25.0).ask() == Start(1)
    assert one_trial("successive_halving", 25.0, 31.0).ask() == Start(1)
    assert one_trial("asha", 25.0, 24.5, 24.0).ask() == ev.Paused(time=NOW, trial=1, patches=1_440)


@few
@given(plays(), st.data())
def test_killed_anywhere_a_study_begins_with_what_held_its_slots(play: Play, data: st.DataObject) -> None:
    """Every trial that held a slot is half done then, and comes before what would have come."""
    call = data.draw(st.sampled_from(play.calls))
    step = next_step(call.state, play.experiment, play.asked, now=NOW, retries=RETRIES)
    held = sorted(number for number in call.running if call.state.trials[number].status != "paused")
    if held:
        assert isinstance(step, Start | ev.TrialEvent)
        assert step.trial <= held[0]
    elif not call.running:
        assert step == call.step


# The dry run


def test_a_dry_run_shows_what_a_study_with_a_slot_for_each_trial_proposes_first() -> None:
    play = Play(SMALL, asked=7, slots=7, scores=[20], turns=random.Random(0))
    play.fill()
    assert len(play.state.trials) == 7
    assert first_proposals(SMALL, 1, 5) == [dict(t.proposed.values) for t in of_search(play.state)]


def test_a_dry_run_shows_no_more_proposals_than_there_are_configurations() -> None:
    assert len(first_proposals(SMALL, 1, 50)) == 12
