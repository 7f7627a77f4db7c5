"""Runs a study of twelve trials on one GPU with two slots, kills it, resumes it, and reproduces its winner.

    python benchmarks/gpu_study.py --root DIR [--device cuda:0] [--data DIR]

MLflow is not used. With `--device cpu` the study has two slots on the CPU and trials of a few steps.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from study.record.events import Event
from study.record.journal import read

QUESTION = '''"""Twelve deterministic trials of a small network."""
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Float, Grid

EXPERIMENT = Experiment(
    question="Does a kill, a resumption or a repetition change a bit on this device?",
    base=TrialConfig(
        model=ModelConfig(n_feats={feats}, upsampler_feats=16, n_blocks=2, temperature=1.0, input_range=255),
        data=DataConfig(scale=2, lr_patch_size=24),
        train=TrainConfig(
            budget_patches={budget}, batch_size=16, learning_rate=2e-3, ema_horizon_patches=160.0, deterministic=True
        ),
        evaluation=EvaluationConfig(every_patches={every}, crops=4, lr_crop_size={crop}),
        seed=1,
    ),
    nuisance={{"train.learning_rate": Float(1e-4, 1e-2, log=True), "model.temperature": Grid(0.3, 1.0, 3.0, 10.0)}},
    scheduler="none",
    replicates=2,
)
'''
ON_GPU = {"feats": 24, "budget": 9_600, "every": 2_400, "crop": 96}
ON_CPU = {"feats": 8, "budget": 96, "every": 48, "crop": 24}
FINISHED_BEFORE_KILL = 3
"""The study is killed once this many trials have finished."""


def run(folder: Path, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a command whose output goes to a file in `folder`."""
    command = [sys.executable, "-m", module, *arguments]
    print(f"    python -m {module} {' '.join(arguments)}", flush=True)
    return subprocess.Popen(command, stdout=(folder / "output").open("a"), stderr=subprocess.STDOUT)


def recorded(journal: Path) -> list[Event]:
    """Returns the journal's events; none if there is no journal yet."""
    return list(read(journal)) if journal.exists() else []


def count(journal: Path) -> Counter[str]:
    """Returns how many events of each kind the journal has."""
    return Counter(type(event).__name__ for event in recorded(journal))


def killed_once_it_has_results(process: subprocess.Popen[str], journal: Path) -> bool:
    """Kills the study by SIGKILL once it has results. Returns False if it ended before that."""
    while process.poll() is None:
        if count(journal)["Finished"] >= FINISHED_BEFORE_KILL:
            process.kill()
            process.wait()
            return True
        time.sleep(0.05)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--root", type=Path, required=True, help="folder for the study")
    parser.add_argument("--data", help="folder of images; default: the photographs in scikit-image's wheel")
    args = parser.parse_args()
    on_cpu = args.device == "cpu"
    args.root.mkdir(parents=True, exist_ok=True)
    question = args.root / "gpu_question.py"
    question.write_text(QUESTION.format(**(ON_CPU if on_cpu else ON_GPU)))
    where = ["--root", str(args.root), "--study-name", "gpu"]
    data = ["--data", args.data] if args.data else []
    slots = (
        ["--slots", "2"] if on_cpu else ["--gpus", str(torch.device(args.device).index or 0), "--trials-per-gpu", "2"]
    )
    study = [*where, "--experiment", str(question), "--trials", "12", *slots, "--tracking-uri", "none", *data]
    journal = args.root / "gpu" / "journal.jsonl"
    faults = []

    begun = time.monotonic()
    killed = killed_once_it_has_results(run(args.root, "study.run", *study), journal)
    if not killed:
        faults.append("the study ended by itself before it could be killed")
    how = "killed" if killed else "ended by itself"
    print(f"- {how} after {time.monotonic() - begun:.1f} s, with {count(journal)['Finished']} trials", flush=True)

    begun = time.monotonic()
    status = run(args.root, "study.run", *study).wait()
    events = count(journal)
    print(f"- resumed for {time.monotonic() - begun:.1f} s, exit status {status}: {dict(events)}", flush=True)
    if status != 0:
        faults.append(f"study.run ended with status {status}")
    faults += [f"{events[kind]} times {kind}" for kind in ("Failed", "WorkerLost", "Warned") if events[kind]]
    if not events["Concluded"]:
        faults.append("the study has no conclusion")

    begun = time.monotonic()
    status = run(args.root, "study.reproduce", "best", *where, *data).wait()
    print(f"- reproduced the winner in {time.monotonic() - begun:.1f} s, exit status {status}", flush=True)
    if status != 0:
        faults.append(f"study.reproduce ended with status {status}")

    output = (args.root / "output").read_text().splitlines()
    print("\n".join(["", "```", *output[-60:], "```"]))
    for fault in faults:
        print(f"- FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
