"""MLflow's UI and the sync command as people start them: real processes, from folders that must stay empty."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError
from study.tracking.dashboards import free_port, serving, ui_command
from study.tracking.databases import artifact_root, default_storage, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.follower import Follower
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.optuna import OptunaSink
from study.ui import main

Tell = Callable[..., Any]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder in which nothing may appear."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
    return json.loads(content) if path.startswith("/api") else content


def runs_at(address: str, study: str) -> dict[str, Any]:
    experiment = ask(address, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={study}")["experiment"]
    found = ask(address, "/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment["experiment_id"]]})["runs"]
    return {run["info"]["run_name"]: run for run in found}


def tags_of(run: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def a_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command with a process group of its own; whatever is left of it is killed at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.slow
def test_the_ui_shows_the_study_and_leaves_nothing_behind(story: Tell, elsewhere: Path) -> None:
    told = story().whole()
    root = told.folder.root
    sync(told.folder.journal, MlflowSink(default_tracking_uri(root), told.folder))
    before = sorted(root.rglob("*"))
    command = [sys.executable, "-m", "study.ui", "--root", str(root), "--port", str(a_port())]
    with started(command, elsewhere) as ui:
        assert ui.stdout is not None
        address = ui.stdout.readline().split()[-1]
        page = ui.stdout.readline().split()[-1]
        assert page.startswith(f"{address}/#/experiments/")
        links = dict(line.rstrip("\n").split(": ", 1) for line in iter(ui.stdout.readline, "press Ctrl-C to stop\n"))
        assert list(links) == ["the best 2 compared", "curves and images", "the champion"]
        assert links["the champion"].startswith(f"{address}/#/models/small?")

        runs = runs_at(address, "small")
        parent = runs.pop("small")
        assert len(runs) == 5
        assert {tags_of(run)["mlflow.parentRunId"] for run in runs.values()} == {parent["info"]["run_id"]}
        assert f"/experiments/{parent['info']['experiment_id']}/" in page
        params = {p["key"]: p["value"] for p in runs["trial 0001"]["data"]["params"]}
        assert params["model.temperature"] == "0.3"

        run_id = runs["trial 0001"]["info"]["run_id"]
        history = ask(address, f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=val%2Fpsnr")["metrics"]
        assert [point["step"] for point in history] == [480, 960, 1440, 1920]
        config = ask(address, f"/get-artifact?path=config.json&run_uuid={run_id}")
        assert json.loads(config) == told.state.trials[1].config.to_json()
        assert ask(address, f"/get-artifact?path=weights.safetensors&run_uuid={run_id}") == b"weights of 1"
        table = urllib.parse.quote("results/ranking.csv")
        assert ask(address, f"/get-artifact?path={table}&run_uuid={parent['info']['run_id']}") == b"results/ranking.csv"
        assert b"<title>MLflow</title>" in ask(address, "/")

        ui.send_signal(signal.SIGINT)
        assert ui.wait(60) == 0
        assert ui.stderr is not None and ui.stderr.read() == ""
    with pytest.raises(OSError):
        ask(address, "/health")
    assert list(elsewhere.iterdir()) == []
    assert [path for path in sorted(root.rglob("*")) if not path.name.startswith("mlflow.db-")] == before


@pytest.mark.slow
def test_both_dashboards_open_on_a_study_that_runs_and_leave_it_alone(story: Tell, elsewhere: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs Optuna Dashboard: pip install -e '.[dashboard]'")
    told = story()
    told.open()
    told.session(trials=3)
    told.finish(told.propose(), 29.0)
    root = told.folder.root
    sinks = [MlflowSink(default_tracking_uri(root), told.folder), OptunaSink(default_storage(root))]
    for sink in sinks:
        sync(told.folder.journal, sink)
    command = [sys.executable, "-m", "study.ui", "--root", str(root), "--port", str(a_port()), "--optuna"]
    with started(command, elsewhere) as ui:
        assert ui.stdout is not None
        said = [line.rstrip("\n") for line in iter(ui.stdout.readline, "press Ctrl-C to stop\n")]
        links = dict(line.split(": ", 1) for line in said)
        dashboard = links["Optuna Dashboard"].removesuffix("/dashboard")
        (shown,) = ask(dashboard, "/api/studies")["study_summaries"]
        assert shown["study_name"] == "small"
        told.finish(told.propose(model__temperature=0.3), 30.0)
        assert [sync(told.folder.journal, sink) for sink in sinks] == [11, 11]
        assert set(runs_at(links["MLflow's UI"], "small")) == {"small", "trial 0000", "trial 0001"}
        trials = ask(dashboard, f"/api/studies/{shown['study_id']}?after=0")["trials"]
        assert [trial["state"] for trial in trials] == ["Complete", "Complete"]
        ui.send_signal(signal.SIGTERM)
        assert ui.wait(20) == 0
        assert ui.stderr is not None and ui.stderr.read() == ""
    for address in (links["MLflow's UI"], dashboard):
        with pytest.raises(OSError):
            ask(address, "/")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_the_printed_command_works_in_any_folder(story: Tell, elsewhere: Path) -> None:
    told = story().whole()
    root = told.folder.root
    sync(told.folder.journal, MlflowSink(default_tracking_uri(root), told.folder))
    port = a_port()
    with started(["sh", "-c", f"{ui_command(root)} --port {port} --workers 1"], elsewhere) as server:
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        runs = runs_at(address, "small")
        assert len(runs) == 6
        run_id = runs["trial 0001"]["info"]["run_id"]
        assert ask(address, f"/get-artifact?path=weights.safetensors&run_uuid={run_id}") == b"weights of 1"
        os.killpg(server.pid, signal.SIGKILL)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_a_server_that_comes_late_gets_everything(story: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told, port, there = story().whole(), a_port(), tmp_path / "server"
    there.mkdir()
    sink = MlflowSink(f"http://127.0.0.1:{port}", told.folder)
    follower = Follower(told.folder.journal, sink)
    follower.start()
    assert not follower.drain(0.2)
    with serving(there, f"sqlite:///{there / 'mlflow.db'}", "127.0.0.1", port) as address:
        assert follower.drain(60)
        assert follower.lag() == 0
        follower.stop()
        runs = runs_at(address, "small")
        assert {run["info"]["status"] for run in runs.values()} == {"FINISHED", "KILLED", "FAILED"}
        run_id = runs["trial 0001"]["info"]["run_id"]
        assert ask(address, f"/get-artifact?path=weights.safetensors&run_uuid={run_id}") == b"weights of 1"
    assert (there / "artifacts").is_dir()  # the server's own place, through its proxy, whatever we would prefer
    assert not artifact_root(told.folder.root).exists()


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask(address, "/health")
            return
        except OSError:
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.2)


def test_a_taken_port_is_passed_over_unless_it_was_asked_for() -> None:
    first = free_port("127.0.0.1", None)
    with closing(socket.socket()) as squatter:
        squatter.bind(("127.0.0.1", first))
        squatter.listen()
        assert free_port("127.0.0.1", None) > first
        with pytest.raises(SuiteError, match=f"--port {first}: cannot listen there"):
            free_port("127.0.0.1", first)
    with pytest.raises(SuiteError, match="--port 70000"):
        free_port("127.0.0.1", 70000)


def test_the_printed_command_names_everything_absolutely(tmp_path: Path) -> None:
    root = tmp_path / "my root"
    words = shlex.split(ui_command(root))
    assert words[1:] == [
        "ui",
        "--backend-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--registry-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--artifacts-destination",
        f"file://{tmp_path}/my%20root/artifacts",
    ]


def test_ui_without_a_store_or_a_study_says_what_to_do(
    story: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = story().whole()
    assert main(["--root", str(told.folder.root)]) == 2
    typed = shlex.join(["python", "-m", "study.sync", "--root", str(told.folder.root), "--study-name", "small"])
    assert capsys.readouterr().err.endswith(f"create it with: {typed}\n")
    assert main(["--root", str(told.folder.root), "--study-name", "other"]) == 2
    assert "no study 'other'" in capsys.readouterr().err
    assert main(["--root", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
def test_sync_brings_both_views_up_to_date_and_says_so(story: Tell, elsewhere: Path) -> None:
    told = story().whole()
    for weights in told.folder.path.glob("trials/*/weights.safetensors"):
        weights.unlink()  # a story's are no network, which would be said
    command = [sys.executable, "-m", "study.sync", "--root", str(told.folder.root)]
    first = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["mlflow", "optuna", "next"]
    assert "new events" in lines[0] and "new events" in lines[1]
    again = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=120)
    assert again.stdout.count("was up to date") == 2
    assert list(elsewhere.iterdir()) == []
    assert {p.name for p in told.folder.root.iterdir()} == {"artifacts", "mlflow.db", "optuna.db", "small"}


@pytest.mark.parametrize("port", ["0", "-1", "http"])
def test_a_port_that_is_none_is_bad_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--port", port])
    assert f"expected a whole number of at least 1, got '{port}'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["study.ui", "study.sync"])
@pytest.mark.parametrize("arguments", [["--help"], ["--no-such-flag"], ["--study-name", "../x"]])
def test_help_and_bad_usage_load_nothing_heavy(command: str, arguments: list[str]) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['x', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_module({command!r}, run_name='__main__')\n"
        "except SystemExit as exc:\n"
        "    print(exc.code, sorted({'torch', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == ("0 []" if arguments == ["--help"] else "2 []"), done
    assert done.stderr.count("\n") == (0 if arguments == ["--help"] else 1)
