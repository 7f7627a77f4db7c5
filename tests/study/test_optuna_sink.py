"""The study in Optuna's database, read back with Optuna and, for what Optuna might hide, with plain SQL."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from study.question.space import Choice, Dimension, Float, Grid, Int
from study.tracking.databases import ViewError, default_storage
from study.tracking.follow import sync
from study.tracking.follower import Follower
from study.tracking.optuna import OptunaSink, distribution, place

Tell = Callable[..., Any]


def url_of(told: Any) -> str:
    return default_storage(told.folder.root)


def show(told: Any) -> int:
    return sync(told.folder.journal, OptunaSink(url_of(told)))


def load(told: Any, name: str = "small") -> optuna.Study:
    storage = optuna.storages.RDBStorage(url_of(told))
    try:
        study = optuna.load_study(study_name=name, storage=storage)
        loaded = optuna.create_study(study_name=name, direction="maximize")
        loaded.add_trials(study.get_trials())
        for key, value in study.user_attrs.items():
            loaded.set_user_attr(key, value)
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        return loaded
    finally:
        storage.remove_session()
        storage.engine.dispose()


def tables(told: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Returns the whole database except Optuna's own metadata."""
    with closing(sqlite3.connect(told.folder.root / "optuna.db")) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def test_every_trial_that_ended_is_there_with_its_state_and_score(story: Tell) -> None:
    told = story().whole()
    show(told)
    trials = load(told).trials
    assert [(t.user_attrs["study.trial"], t.state, t.value) for t in trials] == [
        (0, TrialState.COMPLETE, 29.0),
        (1, TrialState.COMPLETE, 30.0),
        (2, TrialState.PRUNED, 28.5),
        (3, TrialState.FAIL, None),
        (4, TrialState.COMPLETE, 29.5),
    ]
    assert load(told).best_trial.user_attrs["study.trial"] == 1
    assert [t.user_attrs["study.role"] for t in trials] == ["reference"] + ["search"] * 4
    assert trials[0].user_attrs["study.reference"] == "authors"
    assert trials[2].user_attrs["study.reason"] == "not among the best"


def test_a_trial_has_the_journals_curve_and_times(story: Tell) -> None:
    told = story().whole()
    show(told)
    trial, shown = told.state.trials[1], load(told).trials[1]
    assert shown.intermediate_values == {p.patches: p.scores["val/psnr"] for p in trial.curve}
    assert shown.datetime_start == datetime.fromtimestamp(trial.starts[0].time, UTC).replace(tzinfo=None)
    assert shown.datetime_complete == datetime.fromtimestamp(trial.end.time, UTC).replace(tzinfo=None)


def test_params_are_readable_and_numbers_stay_numbers(story: Tell) -> None:
    told = story().whole()
    show(told)
    assert load(told).trials[1].params == {
        "train.loss": "l1",
        "train.batch_size+train.learning_rate": "16, 0.002",
        "model.temperature": 0.3,
        "model.input_range": 255,
        "model.reduction": 4,
        "data.train_kernel": "matlab_bicubic",
    }


def test_a_reference_outside_of_the_space_has_only_the_params_that_fit(story: Tell) -> None:
    told = story()
    told.open()
    told.session(trials=1)
    config = {"train__batch_size": 4, "data__train_kernel": "nearest", "model__temperature": 30.0}
    told.finish(told.propose(**config), 29.0)
    show(told)
    assert load(told).trials[0].params == {
        "train.loss": "l1",
        "model.temperature": 30.0,
        "model.input_range": 255,
        "model.reduction": 4,
    }


def test_nothing_is_ever_running_and_a_trial_appears_when_it_ends(story: Tell) -> None:
    told = story()
    told.open()
    told.session(trials=1)
    number = told.propose()
    told.train(number, 28.0, points=2)
    show(told)
    assert load(told).trials == []
    told.prune(told.propose(), 28.5)
    show(told)
    assert [t.user_attrs["study.trial"] for t in load(told).trials] == [1]


def test_a_replay_doubles_nothing(story: Tell) -> None:
    told = story().whole()
    show(told)
    before = tables(told)
    assert show(told) == 0
    with closing(sqlite3.connect(told.folder.root / "optuna.db")) as connection, connection:
        assert connection.execute("DELETE FROM study_user_attributes WHERE key = 'study.synced'").rowcount == 1
    assert show(told) > 0
    after = tables(told)
    assert {k: v for k, v in after.items() if k != "study_user_attributes"} == {
        k: v for k, v in before.items() if k != "study_user_attributes"
    }


@pytest.mark.parametrize("kills", [1, 2, 3, 5])
def test_a_kill_between_two_trials_is_made_good(story: Tell, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told = story().whole()
    with monkeypatch.context() as patch:
        calls = iter(range(kills - 1))
        add = optuna.Study.add_trial

        def mortal(study: optuna.Study, trial: Any) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            add(study, trial)

        patch.setattr(optuna.Study, "add_trial", mortal)
        with pytest.raises(KeyboardInterrupt):
            show(told)
    show(told)
    assert [t.user_attrs["study.trial"] for t in load(told).trials] == [0, 1, 2, 3, 4]


def test_a_deleted_database_is_rebuilt_equal(story: Tell) -> None:
    told = story().whole()
    show(told)
    before = tables(told)
    for path in told.folder.root.glob("optuna.db*"):
        path.unlink()
    show(told)
    assert tables(told) == before


def test_a_database_deleted_while_it_is_followed_is_rebuilt_at_once(story: Tell) -> None:
    told = story()
    told.open()
    told.session(trials=2)
    told.finish(told.propose(), 29.0)
    follower = Follower(told.folder.journal, OptunaSink(url_of(told)))
    follower.start()
    assert follower.drain(30)
    for path in told.folder.root.glob("optuna.db*"):
        path.unlink()
    told.finish(told.propose(model__temperature=0.3), 30.0)
    assert follower.drain(30)
    follower.stop()
    assert [t.user_attrs["study.trial"] for t in load(told).trials] == [0, 1]


def test_another_study_of_the_same_name_is_left_alone(story: Tell) -> None:
    told = story().whole()
    show(told)
    told.folder.journal.unlink()
    again = story()
    again.now += 1000
    show(again.whole())
    with closing(sqlite3.connect(again.folder.root / "optuna.db")) as connection:
        names = [row[0] for row in connection.execute("SELECT study_name FROM studies ORDER BY study_id")]
    assert names[0] == "small" and names[1].startswith("small-") and len(names) == 2
    assert len(load(again, "small").trials) == len(load(again, names[1]).trials) == 5


def test_the_database_is_written_ahead(story: Tell) -> None:
    told = story().whole()
    show(told)
    with closing(sqlite3.connect(told.folder.root / "optuna.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_optuna_says_nothing_and_keeps_its_verbosity(story: Tell, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    show(story().whole())
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_a_database_that_cannot_be_reached_is_one_line_without_the_password(story: Tell) -> None:
    told = story().whole()
    (told.folder.root / "optuna.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ViewError, match="file is not a database"):
        show(told)
    with pytest.raises(ViewError) as caught:
        sync(told.folder.journal, OptunaSink("nosuch://ann:secret@host/db"))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Float(0.1, 3.0), FloatDistribution(0.1, 3.0)),
        (Float(1e-5, 1.0, log=True), FloatDistribution(1e-5, 1.0, log=True)),
        (Int(2, 9), IntDistribution(2, 9)),
        (Int(1, 512, log=True), IntDistribution(1, 512, log=True)),
        (Choice("a", "b"), CategoricalDistribution(["a", "b"])),
        (Choice(1, 255), CategoricalDistribution([1, 255])),
        (Grid(0.1, 1.0, 100.0), FloatDistribution(0.1, 100.0, log=True)),
        (Grid(0.5, 1.0, 2.0), FloatDistribution(0.5, 2.0)),
        (Grid(2, 4, 8, 10), IntDistribution(2, 10)),
        (Grid(1, 10, 100), IntDistribution(1, 100, log=True)),
        (Grid(-1.0, 0.0, 500.0), FloatDistribution(-1.0, 500.0)),
        (Grid("a", "b"), CategoricalDistribution(["a", "b"])),
        (Grid(False, True), CategoricalDistribution([False, True])),
    ],
)
def test_a_range_is_an_axis_where_it_can_be(content: Any, expected: object) -> None:
    assert distribution(Dimension(("train.learning_rate",), content, "nuisance").describe()) == expected


def test_what_moves_together_is_one_readable_category() -> None:
    both = Dimension(("train.batch_size", "train.learning_rate"), Choice((16, 1e-4), (32, 5e-4)), "nuisance").describe()
    assert distribution(both) == CategoricalDistribution(["16, 0.0001", "32, 0.0005"])
    assert place(both, {"train.batch_size": 32, "train.learning_rate": 5e-4}) == "32, 0.0005"
    assert place(both, {"train.batch_size": 32, "train.learning_rate": 1e-4}) is None
