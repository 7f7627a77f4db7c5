"""What every page says about replicates that failed and replicates that are still to come."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.quickstart import EXPERIMENT
from sr_core.errors import ConfigError
from study import reproduce, results, status
from study.record.events import Concluded
from study.record.folder import StudyFolder
from study.record.journal import Journal
from study.report import course
from study.report.answer import answer
from study.report.record import StudyRecord
from study.report.replicates import replicates
from study.screen.live_table import ScreenState, screen
from study.screen.terminal import describe_event, settings_in_words, summary
from study.search.replicates import due
from study.statistics.replication import interim
from study.statistics.verdict import Verdict, verdict, words
from study.statistics.wording import verdict_sentences
from study.tracking.mlflow.content import run_name, winner_tags

Scores = dict[int, list[float | None]]
WELL: Scores = {0: [29.5, 29.75, 29.55], 1: [30.0, 30.15, 30.12]}
"""Scores of the references with three seeds, by trial."""
LOST = [None, None, None]
WINNER_LOST = "trial 2 failed with 3 of 3 fresh seeds (diverged: no luck): no verdict; next candidate: trial 3"


@pytest.fixture
def searched(history: Callable[..., Any]) -> Callable[..., Any]:
    """A search: references 0 and 1, then trials 2, 3 and 4, which are ranked in this order."""

    def make(**experiment: Any) -> Any:
        study = history(replace(EXPERIMENT, **({"replicates": 3} | experiment)))
        study.session(trials=5)
        for name in ("authors", "blog"):
            number = study.propose(reference=name)
            study.start(number)
            study.validate(number, *[29.0] * 4)
            study.end(number)
        for temperature, score in ((0.3, 32.0), (3.0, 31.0), (10.0, 30.5)):
            study.try_out({"model.temperature": temperature}, score)
        return study

    return make


def train_again(study: Any, scores: Scores, count: int = 100) -> Any:
    """Trains the next `count` replicates that are due. A score of None makes one fail."""
    for _ in range(count):
        replicate = due(study.state, study.experiment)
        if replicate is None:
            break
        study.replicate(replicate, scores[replicate.of.number][replicate.number - 1])
    return study


def verdict_of(study: Any) -> Verdict:
    outcome = verdict(study.state)
    assert outcome is not None
    return outcome


def record_of(study: Any, tmp_path: Path) -> StudyRecord:
    return StudyRecord(StudyFolder(tmp_path, "small"), study.state, (), None)


def written(study: Any, root: Path) -> Path:
    """Writes the journal of the study below a root; returns the root."""
    folder = StudyFolder(root, "small")
    folder.create()
    journal = Journal(folder.journal)
    for event in study.events:
        journal.append(event)
    journal.close()
    return root


# A winner that fails with every seed


def test_a_winner_that_failed_with_every_fresh_seed_is_named_with_its_cause_and_the_next_candidate(
    searched: Callable[..., Any],
) -> None:
    study = train_again(searched(), WELL | {2: LOST})
    assert words(study.state) == [WINNER_LOST]
    assert WINNER_LOST in summary(study.state)
    assert not any("a single run per trial" in line or "PSNR than" in line for line in summary(study.state))


def test_every_page_names_the_lost_winner(
    searched: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = train_again(searched(), WELL | {2: LOST})
    record = record_of(study, tmp_path)
    study.tell(Concluded, best=2, counted=5, replicates=9, scores={}, per_image=(), files=())
    assert winner_tags(study.state.concluded, study.state, "run")["study.verdict"] == WINNER_LOST
    for html in (str(answer(record, None)), str(replicates(record, None).body)):
        assert WINNER_LOST[1:] in html  # it begins a sentence
    shown = ScreenState(state=study.state, asked=5, slots=1, now=study.state.last_time + 1)
    assert WINNER_LOST in " ".join(line.plain.strip() for line in screen(shown, 250, 20))
    root = written(study, tmp_path / "root")
    assert status.main(["--root", str(root), "--study-name", "small"]) == 0
    assert WINNER_LOST in capsys.readouterr().out
    monkeypatch.setattr("study.reproduction.inputs.changed_settings", lambda *given: ["what comes after the note"])
    assert reproduce.main(["best", "--root", str(root), "--study-name", "small"]) == 4
    assert f"note: {WINNER_LOST}" in capsys.readouterr().out


def test_causes_that_differ_are_all_named(searched: Callable[..., Any]) -> None:
    study = train_again(searched(), WELL | {2: LOST}, count=6)
    replicate = due(study.state, study.experiment)
    study.replicate(replicate, None)
    ends = [t.end for t in study.state.replicates_of(2).values()]
    other = replace(ends[-1], cause="out of memory", reason="no\nroom")
    study.state = type(study.state)().apply(study.events[0])
    for event in study.events[1:]:
        study.state = study.state.apply(other if event is ends[-1] else event)
    assert "(diverged: no luck; out of memory: no room)" in words(study.state)[0]


def test_the_best_of_a_search_stays_the_best_if_one_finalist_was_asked_for(searched: Callable[..., Any]) -> None:
    study = train_again(searched(), WELL | {2: LOST})
    assert study.state.best().number == 2


def test_the_next_candidate_is_not_one_that_was_lost_before(searched: Callable[..., Any]) -> None:
    study = train_again(searched(), WELL | {2: LOST})
    new = study.try_out({"model.temperature": 30.0}, 33.0)
    train_again(study, WELL | {2: LOST, new: LOST})
    assert f"trial {new} failed with 3 of 3 fresh seeds" in words(study.state)[0]
    assert words(study.state)[0].endswith("next candidate: trial 3")


def test_without_another_candidate_that_is_said(searched: Callable[..., Any]) -> None:
    study = train_again(searched(finalists=3), WELL | {2: LOST, 3: LOST, 4: LOST})
    assert words(study.state)[0].endswith("no verdict; there is no other candidate")
    assert sum("it cannot be chosen" in line for line in words(study.state)) == 2


# One of several finalists is lost


def test_of_two_finalists_the_one_that_is_left_answers_for_both(searched: Callable[..., Any]) -> None:
    study = train_again(searched(finalists=2), WELL | {2: LOST, 3: [30.4, 30.62, 30.5]})
    outcome = verdict_of(study)
    assert (outcome.winner.trial.number, outcome.primary) == (3, False)
    assert [c.family for c in outcome.against] == [4, 4]
    text = verdict_sentences(outcome, study.state)
    assert any(
        "chosen from 2 finalists by their replicates, so significance is Holm-corrected over all 4 " in line
        for line in text
    )
    assert "  trial 2 failed with 3 of 3 fresh seeds (diverged: no luck): it cannot be chosen" in text


def test_if_no_finalist_finished_with_every_seed_the_first_with_any_is_the_winner(
    searched: Callable[..., Any],
) -> None:
    study = train_again(searched(finalists=2), WELL | {2: LOST, 3: [30.4, None, 30.5]})
    assert study.state.best().number == 3
    assert "  trial 3 failed with 1 of 3 seeds (diverged: no luck)" in words(study.state)


# A reference that fails with every seed


def test_a_lost_reference_stays_in_holm_s_family_and_is_named(searched: Callable[..., Any]) -> None:
    study = train_again(searched(), WELL | {1: LOST, 2: [30.0, 30.2, 30.1]})
    outcome = verdict_of(study)
    assert [(c.other.name, c.family) for c in outcome.against] == [("authors", 2)]
    assert outcome.against[0].p == pytest.approx(2 * outcome.against[0].difference.p)
    assert [j.name for j in outcome.lost] == ["blog"]
    assert verdict_sentences(outcome, study.state)[-1] == (
        '  "blog" failed with 3 of 3 fresh seeds (diverged: no luck): it cannot be compared, but the Holm correction '
        "still counts it"
    )


def test_a_reference_that_failed_in_the_search_stays_in_the_family_too(history: Callable[..., Any]) -> None:
    study = history(replace(EXPERIMENT, replicates=3))
    number = study.propose(reference="authors")
    study.start(number)
    study.validate(number, *[29.0] * 4)
    study.end(number)
    study.end(study.propose(reference="blog"), "failed")
    study.try_out({"model.temperature": 0.3}, 32.0)
    train_again(study, WELL | {2: [30.0, 30.2, 30.1]})
    assert [c.family for c in verdict_of(study).against] == [2]
    assert words(study.state)[-1] == '  "blog" failed in the search (diverged: no luck): it is in no comparison'


# Before all replicates have ended


def test_until_every_seed_of_every_setting_has_ended_numbers_are_interim_and_nothing_is_claimed(
    searched: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = WELL | {2: [31.0, 31.24, 31.06]}
    study = train_again(searched(), scores, count=8)  # of nine
    outcome = verdict_of(study)
    assert outcome.interim == interim(study.state) == "interim, 2 of 3 seeds"
    text = verdict_sentences(outcome, study.state)
    assert text[0] == (
        "interim, 2 of 3 seeds, for trial 2 (batch size 16) after 1,920 patches, on 6 crops of 3 images:"
    )
    assert text[1] == '  compared with "authors": +1.50 dB, 95% CI [1.48, 1.52], n = 3 seeds'
    assert not any("PSNR than" in line or "verdict" in line or "probability" in line for line in text)
    record = record_of(study, tmp_path)
    for html in (str(answer(record, outcome)), str(replicates(record, outcome).body)):
        assert "nterim, 2 of 3 seeds" in html and "PSNR than" not in html
    assert "<td>yes" not in str(replicates(record, outcome).body)
    shown = ScreenState(state=study.state, asked=5, slots=1, now=study.state.last_time + 1)
    assert "interim, 2 of 3 seeds: no verdict yet" in " ".join(line.plain for line in screen(shown, 250, 20))
    root = written(study, tmp_path / "root")
    assert status.main(["--root", str(root), "--study-name", "small"]) == 0
    assert "replicates of the finalists: 8 ended (interim, 2 of 3 seeds)" in capsys.readouterr().out
    train_again(study, scores)
    assert verdict_of(study).interim == "" and 'higher PSNR than "authors"' in words(study.state)[1]


def test_a_reopened_search_with_another_winner_is_interim_until_that_was_trained_again(
    searched: Callable[..., Any],
) -> None:
    study = train_again(searched(), WELL | {2: [31.0, 31.24, 31.06]})
    before = words(study.state)[0]
    new = study.try_out({"model.temperature": 30.0}, 33.0)
    assert before.startswith("verdict")
    assert words(study.state) == ["a single run per trial gives a ranking, not a verdict (interim, 0 of 3 seeds)"]
    train_again(study, {new: [31.1, 31.34, 31.16]}, count=2)
    assert words(study.state)[0].startswith(f"interim, 2 of 3 seeds, for trial {new} ")
    train_again(study, {new: [31.1, 31.34, 31.16]})
    assert words(study.state)[0].startswith(f"verdict for trial {new} ")


def test_an_old_conclusion_s_note_of_how_far_it_had_come_is_not_shown_below_a_verdict(
    searched: Callable[..., Any],
) -> None:
    study = train_again(searched(), WELL | {2: [31.0, 31.24, 31.06]})
    notes = ("interim, 2 of 3 seeds: no verdict yet", "warning: the edge")
    study.tell(Concluded, best=2, counted=5, scores={}, per_image=(), files=(), notes=notes)
    assert "warning: the edge" in summary(study.state)
    assert not any("interim" in line for line in summary(study.state))


# Names


def test_replicates_of_two_winners_of_a_reopened_search_have_names_of_their_own(
    searched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = train_again(searched(), WELL | {2: [31.0, 31.24, 31.06]})
    new = study.try_out({"model.temperature": 30.0}, 33.0)
    train_again(study, {new: [31.1, 31.34, 31.16]})
    again = [t for t in study.state.trials.values() if t.is_replicate]
    assert {t.proposed.name for t in again} == {"finalist 1", "authors", "blog"}, "as journals have always had them"
    for name in (run_name, settings_in_words, lambda t: t.label):
        assert len({name(t) for t in study.state.trials.values()}) == len(study.state.trials)
    assert {"trial 2 / seed 1", f"trial {new} / seed 1", "authors / seed 1"} <= {run_name(t) for t in again}
    proposal = next(e for e in study.events if getattr(e, "of", None) == new)
    assert f"trial {new} / seed 1" in describe_event(proposal, study.state)
    legends: dict[str, list[str]] = {}

    def noting(name: str, numbers: str, draw: Callable[[], Any], *settings_in_words: Any) -> Any:
        def draw_and_note() -> Any:
            figure = draw()
            legends[name] = [text.get_text() for text in figure.legends[0].get_texts()]
            return figure

        return draw_figure(name, numbers, draw_and_note, *settings_in_words)

    draw_figure = course.draw_figure
    monkeypatch.setattr(course, "draw_figure", noting)
    course.learning_curves_section(record_of(study, tmp_path))
    labels = [text for text in legends["replicate-curves"] if "bicubic" not in text]
    assert labels == ["trial 2", "authors", "blog", f"trial {new}"]
    pivoted = results.replicates(study.state).pivot(index="seed", columns="setting", values="val/psnr")
    assert set(pivoted.columns) == {"trial 2", f"trial {new}", "authors", "blog"}


def test_status_calls_a_running_replicate_by_its_trial(
    searched: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = train_again(searched(), WELL | {2: LOST}, count=3)
    replicate = due(study.state, study.experiment)
    before = len(study.events)
    study.replicate(replicate, 30.0)
    study.events = study.events[: before + 2]  # its proposal and its start
    root = written(study, tmp_path / "root")
    status.main(["--root", str(root), "--study-name", "small", "--json"])
    running = json.loads(capsys.readouterr().out)["running"]
    assert [(r["trial"], r["again"]) for r in running] == [(8, "trial 2 / seed 2")]


@pytest.mark.parametrize("name", ["finalist 1", "trial 11"])
def test_a_reference_may_not_be_called_as_trials_of_the_search_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"reference '{name}': this name is reserved for search trials"):
        replace(EXPERIMENT, references={name: EXPERIMENT.references["blog"]})
