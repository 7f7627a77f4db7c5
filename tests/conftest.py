"""What every test may ask for: shared images, and real servers of one's own."""

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

# Studies of the tests train with one thread: several tests run at once, and none should measure which is faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests about a notebook's backend or a proxy set them; the others do not depend on who starts them.
for _name in ("MPLBACKEND", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)

# Nearly the same examples in every run, so that a failure tells of the change and not of the draw. Others are drawn
# with `pytest --hypothesis-profile default`.
settings.register_profile("suite", derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds data/ (Set5, Set14, train, valid, weights); the images are too large for git."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("SR_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip("shared image data not found: set SR_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(autouse=True)
def _arithmetic_as_it_was() -> Iterator[None]:
    """Settings of a training that a test applies in its own thread end with the test."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@pytest.fixture
def needs_name() -> Callable[[str], None]:
    """needs_name(text): skips the test where the locale's encoding cannot name a file so."""

    def check(name: str) -> None:
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            pytest.skip(f"file names are {sys.getfilesystemencoding()} here, which lacks characters of this test")

    return check


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL cluster of its own in a temporary folder, that can be stopped, killed and started again."""

    USER, PASSWORD = "ann", "s3cret/@word"

    def __init__(self, folder: Path, programs: Path) -> None:
        self._data, self._log, self._programs = folder / "data", folder / "log", programs
        self.port = free_port()
        # The server refuses to be root; Debian's package brings a user for it.
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
        """End the server; `immediate` is as a crash: sessions are cut, and the log is replayed at the next start."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", self._data)

    def restart(self) -> None:
        self.stop()
        self.start()

    def new_database(self) -> str:
        """The URL of a database that is empty, password included."""
        import psycopg

        at = f"host=127.0.0.1 port={self.port} user={self.USER}"
        name = f"db{time.monotonic_ns()}"
        with psycopg.connect(at, password=self.PASSWORD, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://{self.USER}:s3cret%2F%40word@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):  # a test left it stopped
            self.stop()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            command,
            cwd="/",
            env=kept | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would be the server's too, and never end
            stderr=subprocess.DEVNULL,
            timeout=120,
            **self._as,  # type: ignore[arg-type]
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command)


def _postgres_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest of Debian's or that on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, shared by the tests: each asks it for databases of its own, and leaves it running."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="test-postgres-"))  # pytest's own folders let no other user in
    server = None
    try:
        server = Postgres(folder, programs)
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(folder)


class Tracker:
    """An MLflow server as a process of its own, that can be killed, made to hang, and started again."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._port = folder, free_port()
        self.store = store or f"sqlite:///{folder / 'mlflow.db'}"
        self.uri = f"http://127.0.0.1:{self._port}"
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers, with all that it held before."""
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
            said = (self._folder / "log").read_text()[-2000:]
            assert self._running.poll() is None and time.monotonic() < deadline, f"MLflow did not start: {said}"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: what it was amid comes to nothing."""
        if self._running is not None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait(30)
            self._running = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """For as long as the block runs it takes connections, and answers none."""
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
    """Everything that an MLflow store or server shows of a study, by run name, but for run ids."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found: dict[str, dict[str, Any]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        name, of_the_store = run.info.run_name, ("mlflow.parentRunId", "study.best_run")
        assert name not in found, f"two runs are named {name}"
        files: list[str] = []
        folders = [""]
        while folders:
            for file in client.list_artifacts(run.info.run_id, folders.pop()):
                (folders if file.is_dir else files).append(file.path)
        found[name] = {
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key not in of_the_store},
            "points": sorted(
                (key, point.step, point.timestamp, point.value)
                for key in run.data.metrics
                for point in client.get_metric_history(run.info.run_id, key)
            ),
            "files": sorted(files),
        }
    return found


@pytest.fixture(name="shown_in_mlflow")
def _shown_in_mlflow() -> Callable[[str, str], dict[str, dict[str, Any]]]:
    """shown_in_mlflow(uri, study): all that MLflow shows of it, to be compared with another store's."""
    return shown_in_mlflow


@pytest.fixture
def make_tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Tracker]]:
    """make_tracker(store=None): an MLflow server that runs, on this store (default: a SQLite file of its own)."""
    made: list[Tracker] = []

    def make(store: str | None = None) -> Tracker:
        made.append(Tracker(tmp_path_factory.mktemp("tracker"), store))
        made[-1].start()
        return made[-1]

    yield make
    for tracker in made:
        tracker.kill()
