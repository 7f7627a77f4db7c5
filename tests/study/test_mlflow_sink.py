"""The study in MLflow: real SQLite stores, read back with plain SQL so that MLflow cannot flatter itself."""

import json
import math
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from sr_core.errors import SuiteError
from study.record.events import Validated
from study.tracking.databases import ViewError, artifact_root, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.follower import Follower
from study.tracking.mlflow import store as mlflow_store
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.mlflow.store import find_run

Tell = Callable[..., Any]
Snapshot = dict[str, dict[str, Any]]

BASELINE = 28.0
OF_THE_STORE = {"mlflow.parentRunId", "study.best_run"}
"""Tags that hold a run id. Nothing else may differ between two copies of a view."""


@pytest.fixture
def told(story: Tell, empty_store: Path) -> Any:
    """A study without events, under a root with an empty store."""
    made = story()
    shutil.copy(empty_store, made.folder.root / "mlflow.db")
    return made


def sink_of(told: Any) -> MlflowSink:
    root = told.folder.root
    return MlflowSink(default_tracking_uri(root), told.folder)


def show(told: Any) -> int:
    return sync(told.folder.journal, sink_of(told))


def rows(told: Any, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(told.folder.root / "mlflow.db")) as connection:
        return connection.execute(query, values).fetchall()


def snapshot(told: Any) -> Snapshot:
    """Returns everything in the store by run name, except run ids."""
    found: Snapshot = {}
    for run, name, status, start, end in rows(told, "SELECT run_uuid, name, status, start_time, end_time FROM runs"):
        assert name not in found, f"two runs are named {name}"
        place = artifact_root(told.folder.root) / told.folder.study / run / "artifacts"
        found[name] = {
            "status": status,
            "times": (start, end),
            "params": dict(rows(told, "SELECT key, value FROM params WHERE run_uuid = ?", run)),
            "tags": {
                key: value
                for key, value in rows(told, "SELECT key, value FROM tags WHERE run_uuid = ?", run)
                if key not in OF_THE_STORE
            },
            "points": sorted(rows(told, "SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ?", run)),
            "files": {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()},
        }
    return found


def forget_cursor(told: Any) -> None:
    with closing(sqlite3.connect(told.folder.root / "mlflow.db")) as connection, connection:
        assert connection.execute("DELETE FROM tags WHERE key = 'study.synced'").rowcount == 1


def test_a_study_is_one_parent_run_with_a_child_per_trial(told: Any) -> None:
    show(told.whole())
    shown = snapshot(told)
    assert {name: run["status"] for name, run in shown.items()} == {
        "small": "FINISHED",
        "reference: authors": "FINISHED",
        "trial 0001": "FINISHED",
        "trial 0002": "KILLED",
        "trial 0003": "FAILED",
        "trial 0004": "FINISHED",
    }
    states = {name: run["tags"]["study.state"] for name, run in shown.items()}
    assert states == {
        "small": "complete",
        "reference: authors": "finished",
        "trial 0001": "finished",
        "trial 0002": "pruned",
        "trial 0003": "failed",
        "trial 0004": "finished",
    }
    (parent,) = rows(told, "SELECT run_uuid FROM runs WHERE name = 'small'")
    assert rows(told, "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'") == [parent] * 5
    assert {run["tags"]["study.name"] for run in shown.values()} == {"small"}
    assert [shown[f"trial 000{i}"]["tags"]["study.trial"] for i in (1, 2, 3, 4)] == ["1", "2", "3", "4"]
    assert shown["reference: authors"]["tags"]["study.role"] == "reference"
    assert shown["reference: authors"]["tags"]["study.reference"] == "authors"
    assert shown["trial 0002"]["tags"]["study.reason"] == "not among the best"


def test_a_trial_shows_its_complete_config_and_its_curve_with_the_journals_times(told: Any) -> None:
    show(told.whole())
    trial, run = told.state.trials[1], snapshot(told)["trial 0001"]
    assert run["params"] == {name: str(value) for name, value in trial.config.dotted().items()}
    assert json.loads(run["files"]["config.json"]) == trial.config.to_json()
    assert run["files"]["weights.safetensors"] == b"weights of 1"
    expected = {
        "train/loss": [1 / p.patches for p in trial.curve],
        "train/lr": [p.learning_rate for p in trial.curve],
        "val/psnr": [p.scores["val/psnr"] for p in trial.curve],
        "val/ssim": [p.scores["val/ssim"] for p in trial.curve],
        "val/psnr_gain_over_bicubic": [p.scores["val/psnr"] - BASELINE for p in trial.curve],
    }
    for key, values in expected.items():
        drawn = [(step, time, value) for name, step, time, value in run["points"] if name == key]
        assert drawn == [(p.patches, int(p.time * 1000), v) for p, v in zip(trial.curve, values, strict=True)]
    assert run["times"] == (int(trial.proposed.time * 1000), int(trial.end.time * 1000))


def test_a_failed_trial_shows_its_reason_and_traceback(told: Any) -> None:
    show(told.whole())
    run = snapshot(told)["trial 0003"]
    assert run["tags"]["study.reason"] == "KeyError: 'x'"
    assert run["files"]["traceback.txt"] == b"Traceback: here"
    assert "weights.safetensors" not in run["files"]


def test_the_parent_shows_question_machine_and_winner(told: Any) -> None:
    show(told.whole())
    shown = snapshot(told)
    parent = shown["small"]
    assert parent["tags"]["mlflow.note.content"] == "Which one?"
    assert parent["tags"]["study.best"] == "1"
    assert parent["tags"]["best.model.temperature"] == "0.3"
    assert parent["tags"]["provenance.source"] == "feed"
    assert parent["tags"]["mlflow.source.git.commit"] == "0" * 40
    (best,) = rows(told, "SELECT value FROM tags WHERE key = 'study.best_run'")
    assert rows(told, "SELECT name FROM runs WHERE run_uuid = ?", *best) == [("trial 0001",)]
    time = int(told.state.concluded.time * 1000)
    assert parent["points"] == [("valid/psnr", 4, time, 30.0), ("valid/psnr_bicubic", 4, time, 28.5)]
    assert set(parent["files"]) == {
        "results/best/config.json",
        "results/ranking.csv",
        "results/per_image.json",
        "environment/session-0001/requirements.txt",
    }
    assert parent["files"]["results/ranking.csv"] == b"results/ranking.csv"
    assert parent["files"]["environment/session-0001/requirements.txt"] == b"h5py==3.0.1\ntorch==2.13.0+cpu\n"
    assert "provenance.packages" not in parent["tags"], "a tag is no place for a hundred lines"
    assert {name: run["tags"].get("study.rank") for name, run in shown.items() if name != "small"} == {
        "reference: authors": "3",
        "trial 0001": "1",
        "trial 0002": "4",
        "trial 0003": None,
        "trial 0004": "2",
    }


def test_a_filter_on_what_all_trials_share_finds_the_parent_too(told: Any) -> None:
    show(told.whole())
    shown = snapshot(told)
    shared = {name: value for name, value in shown["small"]["params"].items() if name in shown["trial 0001"]["params"]}
    assert {"data.scale", "model.n_feats", "train.budget_patches"} <= shared.keys()
    assert "model.temperature" not in shared and "seed" not in shared
    assert shared.items() <= shown["trial 0001"]["params"].items()
    assert json.loads(shown["small"]["params"]["space.model.temperature"])["range"] == "Grid"


def test_a_replay_doubles_nothing(told: Any) -> None:
    show(told.whole())
    before, points = snapshot(told), rows(told, "SELECT COUNT(*) FROM metrics")
    assert show(told) == 0
    forget_cursor(told)
    assert show(told) > 0
    assert snapshot(told) == before
    assert rows(told, "SELECT COUNT(*) FROM metrics") == points


@pytest.mark.parametrize("call", [1, 2, 4, 6, 9, 14, 20, 26, 32, *range(34, 43)])
def test_a_kill_at_any_call_leaves_what_the_next_start_completes(
    told: Any, call: int, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(told.whole())
    complete = snapshot(told)
    start_over(told, empty_store)
    with monkeypatch.context() as patch:
        die_at(call, patch)
        with pytest.raises(KeyboardInterrupt):
            show(told)
    assert snapshot(told) != complete
    show(told)
    assert snapshot(told) == complete


def start_over(told: Any, empty_store: Path) -> None:
    """Deletes store and artifacts. An empty store replaces them, which saves the seconds of its creation."""
    for path in told.folder.root.glob("mlflow.db*"):
        path.unlink()
    shutil.rmtree(artifact_root(told.folder.root))
    shutil.copy(empty_store, told.folder.root / "mlflow.db")


def die_at(call: int, patch: pytest.MonkeyPatch) -> None:
    """Ends the process, as far as Python can tell, at its n-th writing call."""
    calls = iter(range(1, call))

    def mortal(write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return write(*args, **kwargs)

        return counted

    for name in (
        *("create_run", "log_batch", "set_terminated", "set_tag", "log_artifacts", "log_inputs", "log_outputs"),
        *("create_logged_model", "log_model_artifacts", "finalize_logged_model", "create_registered_model"),
        *("create_model_version", "set_registered_model_alias"),
    ):
        patch.setattr(MlflowClient, name, mortal(getattr(MlflowClient, name)))


def test_a_deleted_store_is_rebuilt_equal_but_for_run_ids(told: Any) -> None:
    show(told.whole())
    before, ids = snapshot(told), rows(told, "SELECT run_uuid FROM runs")
    (told.folder.root / "mlflow.db").unlink()
    shutil.rmtree(artifact_root(told.folder.root))
    show(told)
    assert snapshot(told) == before
    assert not set(rows(told, "SELECT run_uuid FROM runs")) & set(ids)


def test_a_store_deleted_while_it_is_followed_is_rebuilt_at_once(told: Any, empty_store: Path) -> None:
    told.open()
    told.session(trials=2)
    told.finish(told.propose(), 29.0)
    follower = Follower(told.folder.journal, sink_of(told))
    follower.start()
    assert follower.drain(30)
    start_over(told, empty_store)
    told.finish(told.propose(model__temperature=0.3), 30.0)
    told.end_session("complete")
    assert follower.drain(30)
    follower.stop()
    assert {name: run["status"] for name, run in snapshot(told).items()} == dict.fromkeys(
        ("small", "trial 0000", "trial 0001"), "FINISHED"
    )
    assert len(snapshot(told)["trial 0000"]["points"]) == told.points * 6 + 2


def test_following_live_ends_in_the_same_content_as_reading_all_at_once(told: Any, empty_store: Path) -> None:
    follower = Follower(told.folder.journal, sink_of(told))
    follower.start()
    tell = told.tell

    def tell_and_wait(kind: Any, **values: Any) -> None:
        tell(kind, **values)
        assert follower.drain(30)

    told.tell = tell_and_wait
    told.whole()
    follower.stop()
    live = snapshot(told)
    start_over(told, empty_store)
    show(told)
    assert snapshot(told) == live


def test_nothing_is_running_in_a_complete_study(told: Any) -> None:
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 29.0)
    told.train(told.propose(), 28.0, points=2)  # half-done, and no longer asked for
    told.propose()
    show(told)
    assert rows(told, "SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'") == [(3,)]
    told.end_session("complete")
    show(told)
    assert rows(told, "SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]
    assert {snapshot(told)[name]["tags"]["study.state"] for name in ("trial 0001", "trial 0002")} == {"unfinished"}


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("complete", "FINISHED"),
        ("exhausted", "FINISHED"),
        ("failures", "FAILED"),
        ("interrupted", "RUNNING"),
        ("terminated", "RUNNING"),
        ("timeout", "RUNNING"),
    ],
)
def test_the_parent_tells_how_the_last_session_ended(told: Any, reason: str, status: str) -> None:
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 29.0)
    told.end_session(reason)
    show(told)
    parent = snapshot(told)["small"]
    assert (parent["status"], parent["tags"]["study.state"]) == (status, reason)
    told.session(trials=2, epoch=2)
    show(told)
    parent = snapshot(told)["small"]
    assert (parent["status"], parent["tags"]["study.state"]) == ("RUNNING", "running")


def test_a_larger_number_of_trials_reopens_the_study_and_ranks_anew(told: Any) -> None:
    show(told.whole())
    told.session(trials=5, epoch=2)
    told.finish(told.propose(model__temperature=3.0), 31.0)
    told.conclude()
    told.end_session("complete", epoch=2)
    show(told)
    shown = snapshot(told)
    assert shown["trial 0005"]["tags"]["study.rank"] == "1"
    assert shown["trial 0001"]["tags"]["study.rank"] == "2"
    assert shown["small"]["tags"]["study.best"] == "5"
    assert shown["small"]["status"] == "FINISHED"


def test_a_trial_that_goes_on_after_a_kill_keeps_its_run(told: Any) -> None:
    told.open()
    told.session(trials=1)
    number = told.propose()
    told.train(number, 28.0, points=2)
    show(told)
    told.session(trials=1, epoch=2)
    told.start(number, patches=960)
    told.progress(number, 1440, 28.5)
    show(told)
    assert rows(told, "SELECT name FROM runs ORDER BY name") == [("small",), ("trial 0000",)]
    assert rows(told, "SELECT step FROM metrics WHERE key = 'val/psnr' ORDER BY step") == [(480,), (960,), (1440,)]


def test_what_is_not_finite_becomes_a_tag(told: Any) -> None:
    told.open()
    told.session(trials=1)
    number = told.propose()
    show(told)
    broken = Validated(
        time=told.now,
        trial=number,
        patches=480,
        scores={"val/psnr": math.inf, "val/ssim": 0.8},
        loss=math.nan,
        learning_rate=1e-3,
    )
    sink, state = sink_of(told), told.state
    assert state.opened is not None
    sink.open(state.opened)
    sink.take([broken], state.apply(broken), 4)
    sink.close()
    run = snapshot(told)["trial 0000"]
    assert [point[0] for point in run["points"]] == ["train/lr", "val/ssim"]
    assert run["tags"]["not_finite.train/loss"] == "nan at 480"
    assert run["tags"]["not_finite.val/psnr"] == "inf at 480"


def test_a_curve_longer_than_one_request_is_whole(told: Any) -> None:
    told.points = 400
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 30.0)
    show(told)
    assert rows(told, "SELECT COUNT(*) FROM metrics WHERE key = 'val/psnr'") == [(400,)]
    assert rows(told, "SELECT COUNT(*) FROM metrics") == [(400 * 6 + 2,)]


def test_a_run_deleted_in_mlflow_comes_back_whole_with_its_next_event(told: Any) -> None:
    told.open()
    told.session(trials=1)
    number = told.propose()
    told.train(number, 28.0, points=2)
    show(told)
    client = MlflowClient(tracking_uri=default_tracking_uri(told.folder.root))
    (deleted,) = rows(told, "SELECT run_uuid FROM runs WHERE name = 'trial 0000'")
    client.delete_run(*deleted)
    told.progress(number, 1440, 28.5)
    show(told)
    (alive,) = rows(told, "SELECT run_uuid FROM runs WHERE name = 'trial 0000' AND lifecycle_stage = 'active'")
    assert rows(told, "SELECT COUNT(*) FROM metrics WHERE key = 'val/psnr' AND run_uuid = ?", *alive) == [(3,)]
    load = "SELECT step FROM metrics WHERE key = 'system/memory_usage_megabytes' AND run_uuid = ? ORDER BY step"
    assert rows(told, load, *alive) == [(480,), (960,), (1440,)], "that is in the journal alone"
    assert rows(told, "SELECT COUNT(*) FROM params WHERE run_uuid = ?", *alive)[0][0] > 30


def test_an_experiment_deleted_in_mlflow_comes_back(told: Any) -> None:
    show(told.whole())
    before = snapshot(told)
    client = MlflowClient(tracking_uri=default_tracking_uri(told.folder.root))
    client.delete_experiment(client.get_experiment_by_name("small").experiment_id)
    show(told)
    assert client.get_experiment_by_name("small").lifecycle_stage == "active"
    assert snapshot(told) == before


def test_another_study_of_the_same_name_does_not_mix_with_the_first(told: Any, story: Tell) -> None:
    show(told.whole())
    shutil.rmtree(told.folder.path)
    again = story()
    again.now += 1000
    show(again.whole())
    assert rows(again, "SELECT COUNT(*) FROM experiments WHERE name = 'small'") == [(1,)]
    assert rows(again, "SELECT COUNT(*) FROM runs") == [(12,)]
    assert rows(again, "SELECT COUNT(DISTINCT value) FROM tags WHERE key = 'mlflow.parentRunId'") == [(2,)]


def test_an_experiment_that_another_study_shares_and_has_marked_keeps_that_one_s_marks(told: Any) -> None:
    show(told.whole())
    client = MlflowClient(tracking_uri=default_tracking_uri(told.folder.root))
    shared = client.get_experiment_by_name("small").experiment_id
    for key in client.get_experiment(shared).tags:
        client.set_experiment_tag(shared, key, "another study's")
    marked = client.get_experiment(shared).tags
    show(told)
    assert client.get_experiment(shared).tags == marked


def test_a_root_that_was_carried_elsewhere_takes_its_artifacts_along(told: Any, tmp_path: Path) -> None:
    told.open()
    told.session(trials=2)
    told.finish(told.propose(), 29.0)
    show(told)
    old, new = told.folder.root, tmp_path / "a new place"
    told.carry_to(new)
    told.finish(told.propose(model__temperature=0.3), 30.0)
    show(told)
    assert not old.exists()
    client = MlflowClient(tracking_uri=default_tracking_uri(new))
    for (run,) in rows(told, "SELECT run_uuid FROM runs WHERE name LIKE 'trial%'"):
        assert {file.path for file in client.list_artifacts(run)} == {
            "config.json",
            "images",
            "per_image.json",
            "weights.safetensors",
        }


def test_a_run_id_leads_to_its_trial(told: Any) -> None:
    show(told.whole())
    uri = default_tracking_uri(told.folder.root)
    ids = {name: run for run, name in rows(told, "SELECT run_uuid, name FROM runs")}
    assert find_run(uri, ids["trial 0004"]) == ("small", 4)
    assert find_run(uri, ids["small"]) == ("small", 1)
    with pytest.raises(SuiteError, match="0123"):
        find_run(uri, "0123")
    stranger = MlflowClient(tracking_uri=uri).create_run("0").info.run_id
    with pytest.raises(SuiteError, match="is not a trial of a study"):
        find_run(uri, stranger)
    with pytest.raises(SuiteError, match="no MLflow store"):
        find_run("sqlite:////nowhere/mlflow.db", "0123")
    assert not Path("/nowhere").exists()


def test_a_server_that_is_down_is_one_line_without_the_password(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told.whole()
    with pytest.raises(ViewError, match="MLflow at http://") as caught:
        sync(told.folder.journal, MlflowSink("http://ann:secret@127.0.0.1:9", told.folder))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_study_and_a_server_that_is_down_do_not_wait_for_each_other(
    told: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    follower = Follower(told.folder.journal, MlflowSink("http://ann:secret@127.0.0.1:9", told.folder))
    follower.start()
    told.whole()
    assert not follower.drain(1.0)
    assert follower.lag() > 40
    follower.stop()
    assert "cannot write" in caplog.text and "secret" not in caplog.text


def test_a_store_that_cannot_be_read_is_one_line(told: Any) -> None:
    told.whole()
    (told.folder.root / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ViewError, match="file is not a database"):
        show(told)


@pytest.mark.slow
def test_several_processes_may_prepare_one_store_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    script = f"from study.tracking.mlflow.store import prepare_mlflow_store; prepare_mlflow_store({uri!r})"
    children = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(3)]
    said = [child.communicate(timeout=120)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], said
    assert said == ["", "", ""]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlflow.db"]


def test_a_store_of_an_older_mlflow_is_brought_up_to_date(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    upgraded: list[str] = []
    with closing(sqlite3.connect(told.folder.root / "mlflow.db")) as connection, connection:
        (head,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")

    def upgrade(uri: str) -> None:
        upgraded.append(uri)
        with closing(sqlite3.connect(told.folder.root / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (head,))

    monkeypatch.setattr(mlflow_store, "_upgrade", upgrade)
    show(told.whole())
    assert upgraded == [default_tracking_uri(told.folder.root)]
    assert len(snapshot(told)) == 6
