"""Measures the engine's overhead, compared with the usual way to use Optuna and MLflow.

    python benchmarks/engine.py [--trials 12] [--out benchmarks/out] [--quick]

The overhead is recording, waiting, proposals, start-up and slots. Real studies run in processes of their own, with
every executor that is installed. Their trials train a tiny network and have 100 points of 6 metrics. The usual way
trains the same under `study.optimize`. It logs every metric of every point with `mlflow.log_metric` and reports it to a
pruner, as tutorials do. Everything happens in one run, and all stores are SQLite files.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

from experiments.quickstart import EXPERIMENT
from sr_core.training.runtime import cores
from study.question.config import short_digest
from study.question.experiment import Experiment, load_experiment
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import encode, read
from study.record.state import StudyState, fold
from study.search.sampler import propose

MANY = 1000
"""Trials of the study for proposals and start-up."""
FEW = 3
"""Trials of the study that gives the costs per study."""
POINTS = 100
"""Validations of a trial."""

QUESTION = '''"""Tiny trials of {points} validations."""
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Float

EXPERIMENT = Experiment(
    question="What does the engine cost?",
    base=TrialConfig(
        model=ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1),
        data=DataConfig(scale=2, lr_patch_size=16),
        train=TrainConfig(budget_patches={budget}, batch_size=4, engine="eager"),
        evaluation=EvaluationConfig(every_patches={every}, crops=2, lr_crop_size=24),
        seed=1,
    ),
    nuisance={{"train.learning_rate": Float(1e-4, 1e-2, log=True), "model.temperature": Float(0.1, 10.0, log=True)}},
    scheduler="none",
    replicates=0,
)
'''


def question(folder: Path, *, budget: int, every: int) -> Path:
    """Writes an experiment file and returns its path.

    Args:
        budget: training patches of a trial.
        every: training patches between two validations.
    """
    path = folder / f"q{budget}_{every}.py"
    path.write_text(QUESTION.format(points=budget // every, budget=budget, every=every))
    return path


def command(root: Path, file: Path, trials: int) -> list[str]:
    """Returns the `study.run` command of a study."""
    study = ["--experiment", str(file), "--root", str(root), "--study-name", "s"]
    return [sys.executable, "-m", "study.run", *study, "--trials", str(trials)]


def run(root: Path, file: Path, trials: int, *more: str) -> tuple[float, StudyFolder]:
    """Runs a study. Returns the seconds from start to end of the command, and the study's folder."""
    begun = time.perf_counter()
    done = subprocess.run(
        [*command(root, file, trials), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"study.run ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - begun, StudyFolder(root, "s")


def session_seconds(folder: StudyFolder) -> float:
    """Returns the seconds of a study's only session."""
    state = fold(read(folder.journal))
    assert state.session is not None and state.ended is not None
    return state.ended.time - state.session.time


def engine(folder: Path, file: Path, trials: int, executor: str, few: dict[str, float]) -> dict[str, float]:
    """Runs a study with both views. Returns what recording cost its MLflow thread and the study's loop.

    Args:
        few: the costs of a study of FEW trials. The difference gives the costs per trial. The rest are costs per study:
            opening it, and registering its winner.
    """
    slots = ("--slots", str(cores())) if executor != "inline" else ()
    cluster = ("--ray-address", "local") if executor == "ray" else ()
    _, study = run(folder / executor, file, trials, "--executor", executor, *slots, *cluster)
    wall = session_seconds(study)
    views = views_of(study)
    spent = recording(views)
    per_trial = {name: (spent[name] - few[name]) / (trials - FEW) for name in spent}
    points = [len(trial.curve) for trial in fold(read(study.journal)).trials.values()]
    assert min(points) == POINTS, points
    return {
        "seconds per trial": wall / trials,
        **{f"{name} [s/trial]": value for name, value in per_trial.items()},
        "recording, per study [s]": spent["recording, busy"] - trials * per_trial["recording, busy"],
        "training waits [s/trial]": sum(view["waited_seconds"] for view in views.values()) / trials,
        "training waits [% of wall]": 100 * sum(view["waited_seconds"] for view in views.values()) / wall,
    }


def views_of(study: StudyFolder) -> dict[str, Any]:
    """Returns the state files of the study's views, by the views' names."""
    return {name: json.loads((study.path / f".{name}.json").read_text()) for name in ("mlflow", "optuna")}


def recording(views: dict[str, Any]) -> dict[str, float]:
    """Returns the seconds that the threads of the two views were busy in a whole study."""
    return {
        "recording, busy": views["mlflow"]["busy_seconds"],
        "recording, CPU": views["mlflow"]["cpu_seconds"],
        "Optuna view, busy": views["optuna"]["busy_seconds"],
    }


def usual(folder: Path, prepared: StudyFolder, experiment: Experiment, trials: int) -> dict[str, float]:
    """Runs the same trainings under `study.optimize`, and returns what recording cost.

    Each value of each point is one call of `mlflow.log_metric`.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    from sr_core.store.hdf5 import load_store
    from study.executors.trial import TrialContext, TrialTask, run_trial
    from study.session.opening import runtime_of

    state = fold(read(prepared.journal))
    assert state.opened is not None
    runtime = runtime_of(state.opened)
    runtime.apply()
    context = TrialContext(load_store(prepared.root / state.opened.data["store"]), runtime)
    folder.mkdir()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("usual")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    waited = 0.0

    def objective(trial: optuna.Trial) -> float:
        nonlocal waited
        values = {
            "train.learning_rate": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
            "model.temperature": trial.suggest_float("temperature", 0.1, 10.0, log=True),
        }
        config = experiment.base.with_values(values)
        trial_folder = folder / f"{trial.number:04d}"
        trial_folder.mkdir()
        task = TrialTask(
            number=trial.number,
            config=config,
            config_hash=config.digest(),
            folder=trial_folder,
            epoch=1,
            slot=0,
            source="",
        )
        score = 0.0
        with mlflow.start_run():
            mlflow.log_params(config.dotted())
            for event in run_trial(task, context):
                begun = time.perf_counter()
                if isinstance(event, ev.Validated):
                    score = event.scores["val/psnr"]
                    six = {"train/loss": event.loss, "train/lr": event.learning_rate, **event.scores}
                    for name, value in (six | {"gain": score, "patches": event.patches}).items():
                        mlflow.log_metric(name, value, step=event.patches)
                    trial.report(score, event.patches)
                    trial.should_prune()
                waited += time.perf_counter() - begun
        return score

    study = optuna.create_study(direction="maximize", storage=f"sqlite:///{folder / 'optuna.db'}")
    begun = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    wall = time.perf_counter() - begun
    return {
        "seconds per trial": wall / trials,
        "training waits [s/trial]": waited / trials,
        "training waits [% of wall]": 100 * waited / wall,
    }


def written_study(folder: StudyFolder, opened: ev.StudyOpened, experiment: Experiment, trials: int) -> StudyState:
    """Writes a journal of finished and pruned trials at different points of the space, and returns its state.

    Nothing is trained. A trial has at most 20 validations.
    """
    folder.create()
    events: list[ev.Event] = []
    draw = random.Random(1)
    with folder.journal.open("wb") as journal:  # the journal's own writer waits for the disk after each line

        def append(event: ev.Event) -> None:
            journal.write(encode(len(events), event))
            events.append(event)

        begun = opened.time
        append(opened)
        append(ev.SessionStarted(time=begun, epoch=1, host="here", pid=1, trials=trials, provenance={}))
        base = experiment.base
        every = base.evaluation.every_patches
        budget = base.train.budget_patches
        for number, values in zip(range(trials), _different(experiment, draw), strict=False):
            config = replace(base.with_values(values), seed=99)
            common: dict[str, Any] = {"time": begun + number, "trial": number}
            append(
                ev.Proposed(
                    role="search",
                    name="",
                    config=config.to_json(),
                    config_hash=config.digest(),
                    values=values,
                    **common,
                )
            )
            append(ev.Started(slot=0, epoch=1, patches=0, source="", **common))
            psnr = 28 + 3 * draw.random()
            finished = draw.random() < 0.5
            last = budget if finished or not experiment.rungs else experiment.rungs[0]
            scores = {"val/psnr": psnr, "val/ssim": 0.8}
            for patches in range(every, last + 1, every):
                append(ev.Validated(patches=patches, scores=scores, loss=0.1, learning_rate=1e-3, **common))
                append(ev.Checkpointed(patches=patches, **common))
            if last == budget:
                append(ev.Finished(patches=last, scores=scores, per_image=(), weights="", seconds={}, **common))
            else:
                append(ev.Pruned(patches=last, reason="not among the best", **common))
        append(ev.SessionEnded(time=begun + trials, epoch=1, reason="complete"))
    return fold(events)


def _different(experiment: Experiment, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yields different settings: the cells of a listed space in random order, then random draws."""
    space = experiment.space
    if space.size is not None:
        cells = list(space.cells())
        draw.shuffle(cells)
        yield from (space.settings(cell) for cell in cells)
    while True:
        yield {"train.learning_rate": 10 ** draw.uniform(-4, -2), "model.temperature": 10 ** draw.uniform(-1, 1)}


def proposals(folder: Path, opened: ev.StudyOpened) -> dict[str, float]:
    """Returns the seconds of a proposal after 1,000 trials of the quickstart, by the suite and by Optuna on SQLite."""
    question = EXPERIMENT.describe() | {"seed": 1, "data": {"fingerprint": ""}}
    opened = replace(opened, question=question, digest=short_digest(question))
    state = written_study(StudyFolder(folder, "many"), opened, EXPERIMENT, MANY)
    own_seconds = []
    for number in range(MANY, MANY + 5):
        begun = time.perf_counter()
        propose(state, EXPERIMENT, number)
        own_seconds.append(time.perf_counter() - begun)

    sampler = optuna.samplers.TPESampler(seed=1, multivariate=True, constant_liar=True)
    study = optuna.create_study(storage=f"sqlite:///{folder / 'optuna.db'}", direction="maximize", sampler=sampler)
    space = {f"x{i}": optuna.distributions.IntDistribution(0, 7) for i in range(6)}
    draw = random.Random(1)
    for _ in range(MANY):
        params = {name: draw.randrange(8) for name in space}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=draw.random()))
    optuna_seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        study.ask(space)
        optuna_seconds.append(time.perf_counter() - begun)
    return {
        "proposal [s]": statistics.median(own_seconds),
        "Optuna's ask, SQLite [s]": statistics.median(optuna_seconds),
    }


def until_started(root: Path, file: Path, trial: int) -> float:
    """Returns the seconds from the start of the command to the start of this trial. Then the study is killed."""
    journal = StudyFolder(root, "s").journal
    begun = time.time()
    with subprocess.Popen(
        [*command(root, file, trial + 1), "--tracking-uri", "none", "--storage", "none"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    ) as study:
        try:
            while True:
                *_, last = journal.read_bytes().rstrip(b"\n").rsplit(b"\n", 1)
                if b'"event":"Started"' in last or b'"event":"Progress"' in last:
                    break
                if study.poll() is not None:
                    raise RuntimeError(f"study.run ended with {study.returncode}")
                time.sleep(0.02)
        finally:
            study.kill()
    started = (e for e in read(journal) if isinstance(e, ev.Started) and e.trial == trial)
    return next(started).time - begun


def start_up(folder: Path, file: Path, small: StudyFolder) -> dict[str, float]:
    """Returns the seconds to the first new trial of a study with 10 recorded trials, and of one with MANY."""
    opened = next(read(small.journal))
    assert isinstance(opened, ev.StudyOpened)
    _, experiment = load_experiment(str(file))
    seconds: dict[str, float] = {}
    for trials in (10, MANY):
        root = folder / f"start{trials}"
        shutil.copytree(small.root / "stores", root / "stores")
        written_study(StudyFolder(root, "s"), opened, experiment, trials)
        seconds[f"start-up with {trials} trials [s]"] = until_started(root, file, trials)
    return seconds


def slots(folder: Path, file: Path, trials: int) -> dict[str, float]:
    """Returns the seconds of a study with one slot and with two, and their ratio. Trials have one thread."""
    walls = {}
    for count in (1, 2):
        flags = ("--executor", "processes", "--slots", str(count), "--tracking-uri", "none", "--storage", "none")
        _, study = run(folder / f"slots{count}", file, trials, *flags)
        walls[count] = session_seconds(study)
    return {"one slot [s]": walls[1], "two slots [s]": walls[2], "speed-up with two slots": walls[1] / walls[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "out", metavar="DIR", help="folder for the results"
    )
    parser.add_argument("--trials", type=int, default=12, help="trials of each way; default: 12")
    parser.add_argument("--quick", action="store_true", help="run five trials of each way, to try the script")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    trials = 5 if args.quick else args.trials
    executors = ["inline", "processes", *(["ray"] if importlib.util.find_spec("ray") else [])]

    def keep() -> None:
        (args.out / "engine.json").write_text(json.dumps(report, indent=1))

    report: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {cores()} cores, torch {torch.__version__}",
        "load before": os.getloadavg()[0],
        "trials": trials,
        "ways": {},
    }
    with tempfile.TemporaryDirectory(prefix="benchmark-engine-", dir=args.out) as scratch:
        folder = Path(scratch)
        many_points = question(folder, budget=12 * POINTS, every=12)
        longer = question(folder, budget=2400 if args.quick else 4800, every=2400)
        _, short = run(folder / "few", many_points, FEW)
        for name in executors:
            print(f"{name} …", file=sys.stderr)
            report["ways"][name] = engine(folder, many_points, trials, name, recording(views_of(short)))
            keep()
        small = StudyFolder(folder / "inline", "s")
        print("study.optimize …", file=sys.stderr)
        _, experiment = load_experiment(str(many_points))
        report["ways"]["study.optimize with mlflow.log_metric"] = usual(folder / "usual", small, experiment, trials)
        opened = next(read(small.journal))
        assert isinstance(opened, ev.StudyOpened)
        print("proposals, start-up, slots …", file=sys.stderr)
        report |= proposals(folder, opened)
        keep()
        report |= start_up(folder, many_points, small)
        keep()
        report |= slots(folder, longer, 4 if args.quick else 16)
    text = table(report)
    keep()
    (args.out / "engine.md").write_text(text)
    print(text)


def table(report: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    columns = list(next(iter(report["ways"].values())))
    lines = [f"| way | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, way in report["ways"].items():
        cells = [f"{way[c]:.4f}" if c in way else "in the training" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    others = {name: value for name, value in report.items() if isinstance(value, float) and name != "load before"}
    lines += ["", "| quantity | value |", "|---|---:|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in others.items()]
    lines += [
        "",
        f"{report['machine']}; load average before: {report['load before']:.1f}; {report['trials']} trials of {POINTS} "
        "points for each way.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
