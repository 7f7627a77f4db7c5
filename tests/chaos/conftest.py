"""A study of real trainings on real processes, to be hurt; and what must hold in the end, whatever was done to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from study.record.events import Validated
from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import StudyState, fold
from study.tracking import databases

EXPERIMENT = '''
"""A question whose trials take at least five seconds each."""

from pathlib import Path

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Choice, Grid, Together

BASE = TrialConfig(
    model=ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1, temperature=1.0),
    data=DataConfig(scale=2, lr_patch_size=8, subimage_window=48, subimage_step=24),
    train=TrainConfig(budget_patches=14_400, batch_size=4, learning_rate=2e-3, ema_horizon_patches=40.0),
    evaluation=EvaluationConfig(every_patches=1_800, crops=4, lr_crop_size=24),
    seed=1,
)

EXPERIMENT = Experiment(
    question="Which of these lets a tiny A2N learn x2 fastest?",
    base=BASE,
    nuisance={{
        "train.loss": Choice("l1", "l2", "charbonnier"),
        Together("train.batch_size", "train.learning_rate"): [(2, 1e-3), (4, 1e-3), (4, 4e-3)],
        "model.temperature": Grid(0.1, 1.0, 10.0),
        "model.reduction": Grid(2, 4, 8),
    }},
    rungs=(7_200,),
    reduction_factor=2.0,
    replicates=0,
    {how}
)
'''
TRIALS_SHORT, TRIALS_LONG = 3, 6
PATIENCE_SECONDS = 300.0


def wait_until(holds: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns once the condition holds; fails the test if that takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain"
        time.sleep(0.02)


def state_of(folder: StudyFolder) -> StudyState:
    return fold(read(folder.journal)) if folder.journal.exists() else StudyState()


def outcome_of(state: StudyState) -> dict[int, Any]:
    """Configurations, curves, scores and weights, every bit of them; not when, where or in how many parts."""
    found: dict[int, Any] = {}
    for number, trial in state.trials.items():
        end = asdict(trial.end) if trial.end else {}
        found[number] = (
            trial.proposed.config,
            [point.numbers() for point in trial.curve],
            trial.status,
            {name: value for name, value in end.items() if name not in ("time", "seconds", "reason")},
        )
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process; one that has died and waits to be noticed is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


Points = list[tuple[int, float]]


def check_mlflow(uri: str, study: str, state: StudyState) -> None:
    """Every run has ended, and every metric has the journal's points, each once."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    by_trial = {int(r.data.tags["study.trial"]): r for r in runs if "study.trial" in r.data.tags}
    assert len(runs) == len(state.trials) + 1, "a run per trial and the study's own"
    assert sorted(by_trial) == sorted(state.trials)
    for number, trial in state.trials.items():
        run = by_trial[number].info.run_id
        curves: dict[str, Points] = {
            "val/psnr": [(p.patches, p.scores["val/psnr"]) for p in trial.curve],
            "val/ssim": [(p.patches, p.scores["val/ssim"]) for p in trial.curve],
            "train/loss": [(p.patches, p.loss) for p in trial.curve],
        }
        for name, expected in curves.items():
            found = sorted((m.step, m.value) for m in client.get_metric_history(run, name))
            assert found == expected, f"{name} of trial {number}"


def check_optuna(url: str, study: str, state: StudyState) -> None:
    """Every trial is there once and has ended, with the journal's values."""
    storage = optuna.storages.RDBStorage(url)
    try:
        trials = optuna.load_study(study_name=study, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()
    found = {t.user_attrs["study.trial"]: t for t in trials}
    assert len(found) == len(trials)
    assert sorted(found) == sorted(state.trials)
    ended = optuna.trial.TrialState
    kinds = {"finished": ended.COMPLETE, "pruned": ended.PRUNED, "failed": ended.FAIL}
    for number, trial in state.trials.items():
        assert found[number].state is kinds[trial.status]
        assert found[number].intermediate_values == {p.patches: p.scores["val/psnr"] for p in trial.curve}
        assert trial.status != "finished" or found[number].value == trial.score


def _stay_on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@dataclass
class Command:
    """`study.run` on one root, started as often as it takes, each time in a process group of its own."""

    root: Path
    experiment: Path
    trials: int
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    slots: int = 2
    """With one of them it gets one core, so that its trainings have one thread as those of two slots have."""
    process: "subprocess.Popen[bytes] | None" = None
    sessions: int = 0

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root, "chaos")

    @property
    def state(self) -> StudyState:
        return state_of(self.folder)

    def start(self) -> None:
        self.sessions += 1
        argv = ["--experiment", self.experiment, "--root", self.root, "--trials", self.trials, "--slots", self.slots]
        with (
            (self.root / f"{self.sessions}.out").open("wb") as to_out,
            (self.root / f"{self.sessions}.err").open("wb") as to_err,
        ):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "study.run", *map(str, argv), "--study-name", "chaos", *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
                start_new_session=True,
                preexec_fn=_stay_on_one_core if self.slots == 1 else None,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def err(self) -> str:
        """What the session that ran last wrote to stderr."""
        return (self.root / f"{self.sessions}.err").read_text("utf-8")

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE_SECONDS)

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def workers(self) -> list[int]:
        """Processes of the slots."""
        if self.ended():
            return []
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def validations(self) -> int:
        return self.state.validations

    def until_further(self, validations: int) -> bool:
        """Waits until a running session has recorded this many more validations; False if it ended before."""
        goal = self.validations() + validations
        wait_until(lambda: self.ended() or self.validations() >= goal)
        return not self.ended()

    def check_views(self) -> None:
        """MLflow and Optuna show what the journal holds: nothing runs, no point is lost or doubled."""
        tracking = dict(zip(self.flags, self.flags[1:], strict=False))
        uri = tracking.get("--tracking-uri", databases.default_tracking_uri(self.root))
        check_mlflow(uri, "chaos", self.state)
        check_optuna(tracking.get("--storage", databases.default_storage(self.root)), "chaos", self.state)

    def finish(self) -> None:
        """Run it, again and again where need be, until it is complete and all views are up to date."""
        if self.process is None or self.ended():
            self.start()
        assert self.wait() == 0, self.err
        self.start()  # shows the result, and brings up to date what a tracker that was down has missed
        assert self.wait() == 0, self.err

    def end(self) -> None:
        """No process outlives its test."""
        if self.process is not None and not self.ended():
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@dataclass(frozen=True)
class Reference:
    """A study that nothing happened to."""

    command: Command
    state: StudyState

    @property
    def outcome(self) -> dict[int, Any]:
        return outcome_of(self.state)


@pytest.fixture
def reference(_workshop: Path, request: pytest.FixtureRequest) -> Reference:
    """The study without faults: for the short tests on one slot, inside its coordinator, for the long ones on two."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two slots need two cores")
    long = request.node.get_closest_marker("long") is not None
    trials = TRIALS_LONG if long else TRIALS_SHORT
    root = _workshop / f"reference{trials}"
    experiment = _workshop / "chaos.py"
    experiment.write_text(EXPERIMENT.format(how=""))
    command = Command(root, experiment, trials, ("--tracking-uri", "none", "--storage", "none"), slots=1 + long)
    if not root.exists():
        root.mkdir()
        try:
            command.start()
            assert command.wait() == 0, command.err
        finally:
            command.end()
    state = command.state
    for trial in state.trials.values():
        assert trial.end is not None
        if trial.status == "finished":
            assert trial.end.time - trial.starts[0].time >= 5, "trials so short are hardly ever hit"
    return Reference(command, state)


@pytest.fixture
def hurt(reference: Reference, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """hurt(*flags, **environment): a study that repeats the reference's course; to be started, hurt and finished."""
    made: list[Command] = []

    def make(*flags: str, **environment: str) -> Command:
        root = tmp_path / f"root{len(made)}"
        shutil.copytree(reference.command.root / "stores", root / "stores")
        experiment = tmp_path / "again.py"
        journal = str(reference.command.folder.journal)
        how = f'sampler="replay", scheduler="replay", replay=Path({journal!r}),'
        experiment.write_text(EXPERIMENT.format(how=how))
        more = ("--retries", "99", *flags)
        made.append(Command(root, experiment, reference.command.trials, more, environment))
        return made[-1]

    yield make
    for command in made:
        command.end()


@pytest.fixture
def unharmed(reference: Reference) -> Callable[[Command], None]:
    """unharmed(command): asserts that a study came to what the reference came to, in its journal and both views."""

    def check(command: Command) -> None:
        state = command.state
        assert state.complete
        assert state.counted == len(state.trials) == command.trials
        assert state.opened is not None and reference.state.opened is not None
        assert state.opened.runtime == reference.state.opened.runtime
        assert outcome_of(state) == reference.outcome
        assert not [warning for warning in state.warnings if "differs after its resume" in warning]
        points = Counter((e.trial, e.patches) for e in read(command.folder.journal) if isinstance(e, Validated))
        assert set(points.values()) == {1}
        assert sorted(state.endings) == sorted(state.trials), "a trial ended twice or never"
        assert not list(command.folder.path.rglob("*checkpoint*")), "something is left over"
        command.check_views()

    return check


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    """wait_until(condition, seconds=…): returns once it holds."""
    return wait_until


@pytest.fixture(name="alive")
def _alive() -> Callable[[int], bool]:
    """alive(pid): whether there is such a process."""
    return alive
