"""A server as a child process: it ends with its command, even a killed one, and says at once why it did not start."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError
from study import ui
from study.tracking import dashboards
from study.tracking.dashboards import _allowed_names, pages
from study.tracking.server_process import (
    is_loopback,
    names_of,
    own_environment,
    own_folder,
    reachable,
    running,
    without_proxy,
)

SERVER = """
import http.server, os, subprocess, sys
left = subprocess.Popen(["sleep", "300"])
print("pids", os.getpid(), left.pid, flush=True)
class Yes(http.server.BaseHTTPRequestHandler):
    log_message = lambda *args: None
    def do_GET(self):
        self.send_response(200), self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Yes).serve_forever()
"""
COMMAND = """
import os, sys, time
from pathlib import Path
from study.tracking.server_process import own_folder, running
with own_folder() as folder:
    command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
    with running("it", command, os.environ, f"http://127.0.0.1:{sys.argv[2]}/", folder):
        print(folder, (folder / "log").read_text().strip(), flush=True)
        time.sleep(300)
"""


def a_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_that_a_server_started_outlives_a_command_that_is_killed(temporary: Path, number: int) -> None:
    command = [sys.executable, "-c", COMMAND, SERVER, str(a_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        assert started.stdout is not None
        folder, _, *pids = started.stdout.readline().split()
        assert len(pids) == 2 and all(alive(int(pid)) for pid in pids)
        started.send_signal(number)
        assert started.wait(10) == -number
        assert started.stdout.read() == ""  # nothing holds the pipe open
    until = time.monotonic() + 10
    while any(alive(int(pid)) for pid in pids) or Path(folder).exists():
        assert time.monotonic() < until, "something is left"
        time.sleep(0.05)
    assert list(temporary.iterdir()) == []


def test_a_server_that_cannot_start_is_told_at_once_with_its_last_lines(temporary: Path) -> None:
    script = "print('first'); print('port  is\\ttaken'); print('at http://ann:pw@h/'); raise SystemExit(3)"
    began = time.monotonic()
    with pytest.raises(SuiteError) as caught, own_folder() as folder:  # noqa: SIM117
        with running("MLflow", [sys.executable, "-c", script], os.environ, f"http://127.0.0.1:{a_port()}/", folder):
            pytest.fail("it did not start")
    assert str(caught.value) == "MLflow did not start: first / port is taken / at http://***@h/"
    assert time.monotonic() - began < 5
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_server_of_one_s_own_is_asked_without_the_proxy(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    port = a_port()
    with own_folder() as folder, running("it", [sys.executable, "-c", SERVER, str(port)], os.environ,
                                         f"http://127.0.0.1:{port}/", folder):  # fmt: skip
        environment = own_environment((), "127.0.0.2")
        assert {"127.0.0.1", "127.0.0.2", "::1", "localhost"} <= set(environment["no_proxy"].split(","))


def test_what_a_killed_command_left_is_removed_by_the_next_and_what_is_in_use_is_not(temporary: Path) -> None:
    folders = {name: temporary / f"study-ui-{name}" for name in ("left", "used", "new", "foreign")}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "foreign":
            (folder / "lock").touch()
        if name != "new":
            os.utime(folder, (1, 1))
    with (folders["used"] / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with own_folder() as own:
            assert own.parent == temporary
    assert {path.name for path in temporary.iterdir()} == {"study-ui-used", "study-ui-new", "study-ui-foreign"}


def test_settings_for_another_mlflow_are_not_handed_to_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_STATIC_PREFIX", "MLFLOW_ARTIFACTS_ONLY", "_MLFLOW_X", "UVICORN_ROOT_PATH", "WEB_CONCURRENCY"):
        monkeypatch.setenv(name, "/x")
    monkeypatch.setenv("MINE", "kept")
    environment = own_environment(dashboards._DROPPED_VARIABLES, "127.0.0.1")
    assert not [name for name in environment if "MLFLOW" in name or "UVICORN" in name or name == "WEB_CONCURRENCY"]
    assert environment["MINE"] == "kept"


@pytest.mark.parametrize(
    ("given", "made"),
    [("", "localhost,127.0.0.1,::1,my-pc"), ("a, b", "a,b,localhost,127.0.0.1,::1,my-pc"), ("*", "*"), ("a,*", "*")],
)
def test_hosts_without_a_proxy_are_kept(monkeypatch: pytest.MonkeyPatch, given: str, made: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", given)
    assert without_proxy("my-pc") == {"no_proxy": made, "NO_PROXY": made}


# Names under which it answers


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("My-PC", "My-PC")],
)
def test_mlflow_is_told_to_answer_under_the_address_that_is_printed(host: str, shown: str) -> None:
    assert reachable(host) == shown
    options = dict(zip(*[iter(_allowed_names(host, 5000))] * 2, strict=True))
    for form in (shown, shown.lower()):
        assert f"{form}:5000" in options["--allowed-hosts"].split(",")
        assert f"http://{form}:5000" in options["--cors-allowed-origins"].split(",")
    assert "*" not in options["--allowed-hosts"].split(",")


def test_every_address_includes_the_machine_s_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert socket.gethostname() in names_of("0.0.0.0")
    assert socket.gethostname() not in names_of("127.0.0.1")
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "studies.example")
    assert "studies.example" in _allowed_names("0.0.0.0", 5000)[1].split(",")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))


# Messages


class Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403, "Invalid Host header")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that refuses every request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_refuses_to_answer_is_not_one_without_the_study(story: Callable[..., Any], refusing: str) -> None:
    with pytest.raises(SuiteError, match=r"does not list its experiments and runs \(status 403"):
        pages(refusing, story().whole().folder)


def test_a_closed_terminal_ends_the_command_unless_nohup_started_it() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ui._end_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        ui._end_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGTERM) == signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
