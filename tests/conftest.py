"""Fixtures for all tests: shared images, and real PostgreSQL and MLflow servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Studies in tests train with one thread, because several tests run at once and no test should measure thread counts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests about a notebook's backend or a proxy set these variables. The other tests must not depend on the environment.
for _name in ("MPLBACKEND", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)

# Use nearly the same examples in every run, so that a failure is caused by a change and not by chance. Run
# `pytest --hypothesis-profile default` to try random examples.
settings.register_profile("suite", derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that contains data/ (Set5, Set14, train, valid, weights). The images are too large for git."""
    default = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("SR_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip("shared image data not found: set SR_SHARED to the folder that contains data/")
    return folder


@pytest.fixture(autouse=True)
def _arithmetic_as_it_was() -> Iterator[None]:
    """Reset the arithmetic settings that a test applied in its own thread."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def needs_name() -> Callable[[str], None]:
    """needs_name(text): skips the test if the locale's encoding cannot represent this file name."""

    def check(name: str) -> None:
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            pytest.skip(f"file names are {sys.getfilesystemencoding()} here, which lacks characters of this test")

    return check


def free_port() -> int:
    """A TCP port that is free now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL cluster in a temporary folder, which can be stopped, killed and restarted."""

    USER = "ann"
    PASSWORD = "s3cret/@word"

    def __init__(self, folder: Path, programs: Path) -> None:
        self._data = folder / "data"
        self._log = folder / "log"
        self._programs = programs
        self.port = free_port()
        # The server refuses to run as root. Debian's package creates a user for it.
        self._as = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(self.PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", self.USER, "-A", "scram-sha-256", "-N", f"--pwfile={password}")
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"port = {self.port}\nunix_socket_directories = '{folder}'\n")
            settings.write("listen_addresses = '127.0.0.1'\n")
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._log)

    def stop(self, how: str = "immediate") -> None:
        """Stop the server. `immediate` acts like a crash: sessions are cut, and the next start replays the log."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", self._data)

    def restart(self) -> None:
        self.stop()
        self.start()

    def new_database(self) -> str:
        """Create an empty database and return its URL, including the password."""
        import psycopg

        at = f"host=127.0.0.1 port={self.port} user={self.USER}"
        name = f"db{time.monotonic_ns()}"
        with psycopg.connect(at, password=self.PASSWORD, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://{self.USER}:s3cret%2F%40word@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):  # a test has stopped it already
            self.stop()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        environment = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            command,
            cwd="/",
            env=environment | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server would inherit a pipe and never close it
            stderr=subprocess.DEVNULL,
            timeout=120,
            **self._as,  # type: ignore[arg-type]
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command)


def _postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: the newest version of Debian's packages, or the one on the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if installed:
        return installed[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that all tests share. Each test creates its own databases and leaves the server running."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="test-postgres-"))  # pytest's own folders are closed to other users
    server = None
    try:
        server = Postgres(folder, programs)
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(folder)


class Tracker:
    """An MLflow server in its own process, which can be killed, made to hang and restarted."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._port = free_port()
        self.store = store or f"sqlite:///{folder / 'mlflow.db'}"
        self.uri = f"http://127.0.0.1:{self._port}"
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server with its former contents, and return once it responds."""
        assert self._running is None
        stores = ["--backend-store-uri", self.store, "--artifacts-destination", (self._folder / "artifacts").as_uri()]
        listen = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        with (self._folder / "log").open("a") as log:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *stores, *listen],
                cwd=self._folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            log_end = (self._folder / "log").read_text()[-2000:]
            assert self._running.poll() is None and time.monotonic() < deadline, f"MLflow did not start: {log_end}"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the server with SIGKILL, without completing its requests."""
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait(30)
            self._running = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let the server accept connections without responding while the block runs."""
        assert self._running is not None
        os.killpg(self._running.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._running.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def shown_in_mlflow(uri: str, study: str) -> dict[str, dict[str, Any]]:
    """Everything that an MLflow store or server shows of a study except run ids, by run name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs: dict[str, dict[str, Any]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        name = run.info.run_name
        tags_of_the_store = ("mlflow.parentRunId", "study.best_run")
        assert name not in runs, f"two runs are named {name}"

        files: list[str] = []
        folders = [""]
        while folders:
            for file in client.list_artifacts(run.info.run_id, folders.pop()):
                if file.is_dir:
                    folders.append(file.path)
                else:
                    files.append(file.path)

        runs[name] = {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key not in tags_of_the_store},
            "points": sorted(
                (key, point.step, point.timestamp, point.value)
                for key in run.data.metrics
                for point in client.get_metric_history(run.info.run_id, key)
            ),
            "files": sorted(files),
        }
    return runs


@pytest.fixture(name="shown_in_mlflow")
def _shown_in_mlflow() -> Callable[[str, str], dict[str, dict[str, Any]]]:
    """shown_in_mlflow(uri, study): everything that MLflow shows of the study, for comparison with another store."""
    return shown_in_mlflow


@pytest.fixture
def make_tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Tracker]]:
    """make_tracker(store=None): starts an MLflow server with this store. The default is a new SQLite file."""
    trackers: list[Tracker] = []

    def make(store: str | None = None) -> Tracker:
        tracker = Tracker(tmp_path_factory.mktemp("tracker"), store)
        trackers.append(tracker)
        tracker.start()
        return tracker

    yield make
    for tracker in trackers:
        tracker.kill()
