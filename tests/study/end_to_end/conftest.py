"""Study commands as processes, and one finished study that many tests look at."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import StudyState, fold

PATIENCE_SECONDS = 120.0
TRIALS = 7
NO_VIEWS = ("--tracking-uri", "none", "--storage", "none")


@dataclass(frozen=True)
class Ended:
    """What a process left: its exit status, or minus the signal that killed it, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


class Process:
    """A command that runs."""

    def __init__(self, pid: int, ask: Callable[[dict[str, Any]], dict[str, Any]], out: Path, err: Path) -> None:
        self.pid = pid
        self._ask, self._out, self._err = ask, out, err
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self._status is None:
            self._status = self._ask({"poll": self.pid})["status"]
        return self._status

    def wait(self) -> Ended:
        wait_until(lambda: self.poll() is not None)
        assert self._status is not None
        return Ended(self._status, self.out, self.err)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")


def wait_until(holds: Callable[[], object]) -> None:
    """Returns once the condition holds; fails the test if that takes too long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS:.0f} s in vain"
        time.sleep(0.005)


class Commands:
    """Starts study commands as real processes, each within milliseconds: see zygote.py."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._started: list[Process] = []
        self._zygote = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # readline leaves the size of the terminal around it there, which is none of those that tests open.
            env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"OMP_NUM_THREADS": "1"},
        )
        self._answer()

    def start(
        self,
        module: str,
        *argv: object,
        first: str = "",
        cwd: Path | None = None,
        terminal: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Process:
        """Run `python -m module argv`.

        Args:
            first: Python source that the process runs before the command, for example to be killed somewhere.
            terminal: path of a terminal that becomes the process's own.
        """
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        files = {"out": str(out), "err": str(err)} if terminal is None else {"terminal": terminal}
        request = {"module": module, "argv": [str(a) for a in argv], "first": first, "env": env or {}}
        pid = self._ask({**request, "cwd": str(cwd or self._folder), **files})["pid"]
        self._started.append(Process(pid, self._ask, out, err))
        return self._started[-1]

    def run(self, module: str, *argv: object, first: str = "", cwd: Path | None = None) -> Ended:
        """Run `python -m module argv` to its end."""
        return self.start(module, *argv, first=first, cwd=cwd).wait()

    def end_all(self) -> None:
        """No process outlives the test that started it."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._started.clear()

    def close(self) -> None:
        self.end_all()
        self._zygote.communicate()
        assert self._zygote.returncode == 0

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._zygote.stdout is not None
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        return answer


@pytest.fixture(scope="session")
def _all_commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("output"))
    yield commands
    commands.close()


@pytest.fixture
def commands(_all_commands: Commands) -> Iterator[Commands]:
    """Runs study commands as processes; those that still run when the test ends are killed."""
    yield _all_commands
    _all_commands.end_all()


UNHURRIED = """
import time
from study.record.journal import Journal
append = Journal.append
def unhurried(self, event):
    append(self, event)
    time.sleep(0.25)
Journal.append = unhurried
"""


@pytest.fixture
def unhurried() -> str:
    """What a process runs first (`first=`) for its study to take a quarter of a second longer for every line."""
    return UNHURRIED


@dataclass(frozen=True)
class Tiny:
    """The tiny study's question and images, at paths that stay the same for all tests."""

    experiment: Path
    data: Path

    def argv(self, root: Path, *more: object, trials: int = TRIALS, views: bool = False) -> list[object]:
        """Arguments of `study.run`."""
        given = ["--experiment", self.experiment, "--data", self.data, "--root", root, "--trials", trials]
        return [*given, *(() if views else NO_VIEWS), *more]


@pytest.fixture(scope="session")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture
def tiny(_workshop: Path, tiny_experiment_file: Path, image_folder: Path) -> Tiny:
    """The tiny study's question and images. Not to be changed: copy them."""
    made = Tiny(_workshop / tiny_experiment_file.name, _workshop / image_folder.name)
    if not made.data.exists():
        shutil.copy(tiny_experiment_file, made.experiment)
        shutil.copytree(image_folder, made.data)
    return made


@dataclass(frozen=True)
class Finished:
    """A study of 7 trials that ran to its end, with both views."""

    root: Path
    ended: Ended
    study: str = "tiny"

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root, self.study)

    @property
    def state(self) -> StudyState:
        return state_of(self.root)


@pytest.fixture
def finished(_workshop: Path, tiny: Tiny, commands: Commands) -> Finished:
    """The one finished study. Not to be changed: ask for `finished_copy`."""
    root, record = _workshop / "root", _workshop / "ended.json"
    if not record.exists():
        ended = commands.run("study.run", *tiny.argv(root, views=True))
        record.write_text(json.dumps([ended.status, ended.out, ended.err]))
    return Finished(root, Ended(*json.loads(record.read_text())))


@pytest.fixture
def finished_copy(finished: Finished, tmp_path: Path) -> Finished:
    """A copy of the finished study's root, to be changed."""
    root = shutil.copytree(finished.root, tmp_path / "copied-root")
    return Finished(root, finished.ended)


def state_of(root: Path, study: str = "tiny") -> StudyState:
    return fold(read(StudyFolder(root, study).journal))


def outcome_of(root: Path, study: str = "tiny") -> dict[int, Any]:
    """What a study found, trial by trial, with every bit that is promised: not when, where or in how many sessions."""
    found: dict[int, Any] = {}
    for number, trial in state_of(root, study).trials.items():
        end = asdict(trial.end) if trial.end else {}
        found[number] = {
            "config": trial.proposed.config,
            "values": trial.proposed.values,
            "curve": [point.numbers() for point in trial.curve],
            "status": trial.status,
            "end": {name: value for name, value in end.items() if name not in ("time", "seconds")},
        }
    return found


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; the folder need not exist."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(name="state_of")
def _state_of() -> Callable[..., StudyState]:
    """state_of(root, study="tiny"): the fold of a study's journal."""
    return state_of


@pytest.fixture(name="outcome_of")
def _outcome_of() -> Callable[..., dict[int, Any]]:
    """outcome_of(root, study="tiny"): configurations, curves, weights; equal for studies that went the same way."""
    return outcome_of


@pytest.fixture(name="tree_of")
def _tree_of() -> Callable[[Path], dict[str, bytes]]:
    """tree_of(folder): every file below it with its content."""
    return tree_of


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[[Callable[[], object]], None]:
    """wait_until(condition): returns once it holds."""
    return wait_until
