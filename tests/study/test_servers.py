"""The views on real servers, PostgreSQL and MLflow on it, which are restarted, killed and made to hang."""

import http.client
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
import pytest
from optuna.storages import RDBStorage

from study.tracking import follower as follower_module
from study.tracking.databases import ViewError, default_storage, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.follower import Follower
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.optuna import OptunaSink
from study.tracking.views import sinks_of

pytestmark = pytest.mark.slow

Tell = Callable[..., Any]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests time out after a second, and a drain retries at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(follower_module, "DRAIN_BACKOFF_SECONDS", 0.2)


def trials_in(url: str) -> list[Any]:
    """Returns everything that Optuna's database shows, except its own numbers."""
    storage = RDBStorage(url)
    trials = optuna.load_study(study_name="small", storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    names = ("number", "state", "value", "params", "distributions", "user_attrs", "intermediate_values")
    return [
        {name: getattr(t, name) for name in names} | {"times": (t.datetime_start, t.datetime_complete)} for t in trials
    ]


def embedded(told: Any) -> None:
    """Writes the study to the root's own stores too."""
    for sink in sinks_of(told.folder, None, None):
        sync(told.folder.journal, sink)


def test_servers_on_postgresql_show_what_the_embedded_stores_show(
    story: Tell, postgres: Any, make_tracker: Any, shown_in_mlflow: Any
) -> None:
    told = story().whole()
    tracker, url = make_tracker(postgres.new_database()), postgres.new_database()
    for sink in sinks_of(told.folder, tracker.uri, url):
        assert sync(told.folder.journal, sink) == told.state.count
    embedded(told)
    assert shown_in_mlflow(tracker.uri, "small") == shown_in_mlflow(default_tracking_uri(told.folder.root), "small")
    assert trials_in(url) == trials_in(default_storage(told.folder.root))
    for sink in sinks_of(told.folder, tracker.uri, url):
        assert sync(told.folder.journal, sink) == 0


def test_mlflow_on_postgresql_without_a_server_shows_the_same(story: Tell, postgres: Any, shown_in_mlflow: Any) -> None:
    told, url = story().whole(), postgres.new_database()
    sync(told.folder.journal, MlflowSink(url, told.folder))
    embedded(told)
    assert shown_in_mlflow(url, "small") == shown_in_mlflow(default_tracking_uri(told.folder.root), "small")


def test_a_database_that_is_restarted_again_and_again_gets_everything_once(
    story: Tell, postgres: Any, impatient: None
) -> None:
    told, url = story(), postgres.new_database()
    told.open()
    told.session(trials=6)
    follower = Follower(told.folder.journal, OptunaSink(url))
    follower.start()
    try:
        for number in range(6):
            told.finish(told.propose(model__temperature=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0)[number]), 29.0 + number)
            if number % 2:
                assert follower.drain(60)
                postgres.restart()
        told.end_session("complete")
        assert follower.drain(60)
    finally:
        follower.stop()
    sync(told.folder.journal, OptunaSink(default_storage(told.folder.root)))
    assert trials_in(url) == trials_in(default_storage(told.folder.root))


def test_a_tracker_that_is_killed_amid_the_writing_is_brought_up_to_date(
    story: Tell, make_tracker: Any, shown_in_mlflow: Any, impatient: None
) -> None:
    told, tracker = story(points=30), make_tracker()
    follower = Follower(told.folder.journal, MlflowSink(tracker.uri, told.folder))
    follower.start()
    try:
        told.open()
        told.session(trials=4)
        told.finish(told.propose(), 29.0)
        follower.drain(0.5)  # in the middle of a hand-over
        tracker.kill()
        told.prune(told.propose(model__reduction=8), 28.0)
        assert not follower.drain(1.0)
        assert follower.standing.error and follower.lag() > 0
        tracker.start()
        told.finish(told.propose(model__temperature=0.3), 30.0)
        told.conclude()
        told.end_session("complete")
        assert follower.drain(60)
        assert (follower.standing.error, follower.lag()) == ("", 0)
    finally:
        follower.stop()
    embedded(told)
    assert shown_in_mlflow(tracker.uri, "small") == shown_in_mlflow(default_tracking_uri(told.folder.root), "small")


def test_what_a_server_that_hung_carries_out_later_is_not_there_twice(
    story: Tell, make_tracker: Any, shown_in_mlflow: Any, impatient: None
) -> None:
    """While the server hangs, requests gather in its queue. Their sender has timed out by then."""
    told, tracker = story(), make_tracker()
    told.open()
    told.session(trials=2)
    follower = Follower(told.folder.journal, MlflowSink(tracker.uri, told.folder))
    follower.start()
    try:
        assert follower.drain(60)
        with tracker.hanging():
            told.finish(told.propose(), 29.0)
            assert not follower.drain(4.0)
        told.finish(told.propose(model__temperature=0.3), 30.0)
        told.conclude()
        told.end_session("complete")
        assert follower.drain(60)
    finally:
        follower.stop()
    embedded(told)
    assert shown_in_mlflow(tracker.uri, "small") == shown_in_mlflow(default_tracking_uri(told.folder.root), "small")


def test_a_run_that_is_there_twice_and_an_old_status_are_put_right_with_the_last_line(
    story: Tell, tmp_path: Path, shown_in_mlflow: Any
) -> None:
    told = story()
    uri = default_tracking_uri(told.folder.root)
    told.open()
    told.session(trials=2)
    for temperature in (0.1, 0.3):
        told.finish(told.propose(model__temperature=temperature), 29.0 + temperature)
    sync(told.folder.journal, MlflowSink(uri, told.folder))
    store = uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(store)) as connection, connection:  # as requests do that come too late
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'trial 0000'")
        (columns,) = zip(*connection.execute("SELECT name FROM pragma_table_info('runs')"), strict=True)
        others = ", ".join(c for c in columns if c != "run_uuid")
        connection.execute(
            f"INSERT INTO runs (run_uuid, {others}) SELECT 'ffff', {others} FROM runs WHERE name = 'trial 0001'"
        )
        marks = "('study.id', 'study.name', 'study.trial', 'study.role')"
        connection.execute(
            "INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'ffff' FROM tags "
            f"WHERE key IN {marks} AND run_uuid = (SELECT run_uuid FROM runs WHERE name = 'trial 0001' LIMIT 1)"
        )
    told.end_session("complete")
    sync(told.folder.journal, MlflowSink(uri, told.folder))
    shown = shown_in_mlflow(uri, "small")
    assert {name: run["status"] for name, run in shown.items()} == dict.fromkeys(
        ("small", "trial 0000", "trial 0001"), "FINISHED"
    )
    assert shown["trial 0001"]["points"]


@pytest.mark.parametrize("view", ["mlflow", "optuna"])
def test_no_password_is_in_what_is_said_of_a_database_that_refuses_it(story: Tell, postgres: Any, view: str) -> None:
    told = story().whole()
    wrong = postgres.new_database().replace("s3cret", "Wr0ng")
    (sink,) = sinks_of(told.folder, *((wrong, "none") if view == "mlflow" else ("none", wrong)))
    with pytest.raises(ViewError, match="password authentication failed") as caught:
        sync(told.folder.journal, sink)
    assert "Wr0ng" not in str(caught.value) and "\n" not in str(caught.value)


@contextmanager
def behind_a_proxy(server: str, refused: set[str]) -> Iterator[str]:
    """The address of a proxy that answers 413 to every upload whose path ends with one of these names."""
    to = urlsplit(server).netloc

    class Proxy(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT" and self.path.endswith(tuple(refused)):
                self.send_error(413)
                return
            with closing(http.client.HTTPConnection(to, timeout=60)) as connection:
                connection.request(self.command, self.path, body, {**dict(self.headers), "Host": to})
                answer = connection.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()


@pytest.mark.parametrize("size", ["every file", "weights alone"])
def test_a_proxy_that_refuses_files_lets_all_numbers_through_and_the_files_follow_when_it_takes_them(
    story: Tell, make_tracker: Any, shown_in_mlflow: Any, caplog: pytest.LogCaptureFixture, size: str
) -> None:
    told, tracker = story().whole(), make_tracker()
    refused = {""} if size == "every file" else {"weights.safetensors"}
    with behind_a_proxy(tracker.uri, refused) as address:
        assert sync(told.folder.journal, MlflowSink(address, told.folder)) == told.state.count
        shown = shown_in_mlflow(tracker.uri, "small")
        assert {run["status"] for run in shown.values()} == {"FINISHED", "KILLED", "FAILED"}
        assert all(run["params"] for run in shown.values())
        assert [step for key, step, _, _ in shown["trial 0001"]["points"] if key == "val/psnr"] == [
            480,
            960,
            1440,
            1920,
        ]
        assert "study.rank" in shown["trial 0001"]["tags"] and "413" in caplog.text
        assert sum("refused" in record.message for record in caplog.records) == 1
        files = shown["trial 0001"]["files"]
        assert "weights.safetensors" not in files and bool(files) == (size != "every file")
        refused.clear()
        sync(told.folder.journal, MlflowSink(address, told.folder))
        assert sync(told.folder.journal, MlflowSink(address, told.folder)) == 0
    embedded(told)
    assert shown_in_mlflow(tracker.uri, "small") == shown_in_mlflow(default_tracking_uri(told.folder.root), "small")
