"""`study.run --dry-run`: what a study would be, before it is paid for. Writes nothing."""

import argparse
import math
import sys
import time
from dataclasses import replace

from sr_core.config import Engine
from sr_core.model.network import A2N
from sr_core.process.cli import show_progress
from sr_core.process.machine import cores, has_amx
from sr_core.seed import child_seed
from sr_core.training.own_thread import OwnThread
from sr_core.training.speed import measure
from study.commandline import folder_from, typed
from study.executors.placement import Placement
from study.executors.runtime import resolve_runtime
from study.question.config import TrialConfig, differences
from study.question.experiment import Experiment
from study.record.events import FORMAT, StudyOpened
from study.record.journal import read
from study.record.state import StudyState, TrialState, fold
from study.screen.terminal import duration
from study.search.policy import Start, next_step
from study.search.simulation import patches_trained, search
from study.session.opening import find_images, left_out, read_images

_FIRST = 5
_LONG_SECONDS = 24 * 3600
_SIMULATED_TRIALS = 50
"""Of a search whose cost is estimated; a longer one lets the same share continue."""
_SIMULATED_SEARCHES = 3
_ROLES = {
    "nuisance": "searched for its best value, no part of the question by itself",
    "scientific": "the question: each choice gets its own search of the rest, so that they compare fairly",
}


def show(name: str, experiment: Experiment, args: argparse.Namespace, placement: Placement) -> int:
    """Print space and size, budget, rungs, first configurations, estimated time and disk."""
    placement.check({"threads": 1}, cores())
    base = experiment.base
    images = find_images(args.data, experiment)
    folder = folder_from(args, default=name)
    manifest = read_images(folder.root, images).manifest
    small = left_out(experiment, manifest)
    train, valid = ([r for r in manifest if r.split == split] for split in ("train", "valid"))
    print(f"{name}: {experiment.question}")
    if folder.journal.exists():
        count = fold(read(folder.journal)).counted
        where = typed([*(["--root", str(args.root)] if args.root else []), "--study-name", folder.study])
        print(f"there is a study {folder.study} already, with {count} trial{'s' * (count != 1)} counted (python -m "
              f"study.status{where}); the last line continues it; what follows describes a new one")  # fmt: skip
    lost = ", ".join(f"{len(names)} too small for {whose}" for whose, names in small.items()) or "0 too small"
    print(f"images: {len(train)} to train ({lost}), {len(valid)} to validate, from {images.origin}")
    if images.left_out:
        print(images.left_out.line(), file=sys.stderr, flush=True)
    if experiment.space.dimensions:
        print(f"space: {experiment.space.size or 'infinitely many'} configurations")
    for dimension in experiment.space.describe():
        content = dimension.get("values") or f"{dimension['low']} to {dimension['high']}" + ", log" * dimension["log"]
        print(f"  {dimension['role']:<10}  {'+'.join(dimension['names'])}: {dimension['range']} {content}")
    for role in sorted({dimension["role"] for dimension in experiment.space.describe()}):
        print(f"  ({role}: {_ROLES[role]})")
    budget, every = base.train.budget_patches, base.evaluation.every_patches
    print(f"budget: {budget} patches a trial, validated every {every}; evaluation kernel {base.evaluation.kernel}")
    go_on = f", the best 1/{experiment.reduction_factor:g} go on" if experiment.rungs else ""
    print(f"rungs: {', '.join(map(str, experiment.rungs)) or 'none'}; scheduler {experiment.scheduler}{go_on}; "
          f"sampler {experiment.sampler}")  # fmt: skip
    if experiment.replicates:
        print(f"finalists: {experiment.finalists} and the references, trained again with {experiment.replicates} seeds")
    else:
        print("finalists: none; with replicates=0 the result is a ranking of one run each, no verdict")
    for reference, config in experiment.references.items():
        print(f"reference trial: {reference}{_changes(config, base) if experiment.comparisons else ''}")
    for question, pairs in experiment.comparisons.items():
        print(f"asked: {question} {'; '.join(f'{one} against {other}' for one, other in pairs)}")
    if experiment.space.dimensions:
        print("first proposals:")
        for values in first_proposals(experiment, base.seed if args.seed is None else args.seed, _FIRST):
            print(f"  {', '.join(f'{k} {v}' for k, v in values.items())}")
    _print_cost(experiment, args.trials, placement, sum(r.height * r.width * 3 for r in manifest))
    print(f"next: python -m study.run{typed(argument for argument in sys.argv[1:] if argument != '--dry-run')}")
    return 0


def _changes(config: TrialConfig, base: TrialConfig) -> str:
    """How a setting differs from the base, after its name."""
    changed = ", ".join(f"{name} {value}" for name, (value, _) in differences(config, base).items())
    return f" ({changed})"


def first_proposals(experiment: Experiment, seed: int, count: int) -> list[dict[str, object]]:
    """What the sampler tries first, before any result is known: every trial has a slot and none has been validated."""
    state = StudyState().apply(
        StudyOpened(
            time=time.time(), format=FORMAT, study="", experiment="", seed=seed, question={}, digest="", text="",
            runtime={}, data={},
        )
    )  # fmt: skip
    running: list[int] = []
    asked = len(experiment.references) + count
    while (step := next_step(state, experiment, asked, now=time.time(), running=running)) is not None:
        if isinstance(step, Start):
            running.append(step.trial)
        else:
            state = state.apply(step)
    return [dict(t.proposed.values) for t in state.trials.values() if t.proposed.role == "search"]


def patches_without_progress(experiment: Experiment, trials: int) -> int:
    """Patches that the search trains if its proposals do not get better: the mean of simulated searches.

    A sampler that learns makes trials better than those before them, and more of them continue at the rungs.

    Args:
        trials: in all, references included. Those are never stopped.
    """
    budget = experiment.base.train.budget_patches
    references = min(trials, len(experiment.references))
    searched = trials - references
    if experiment.scheduler not in ("successive_halving", "asha") or not searched:
        return trials * budget
    simulated = min(searched, _SIMULATED_TRIALS)
    blind = replace(experiment, references={}, replicates=0, sampler="random", replay=None)
    patches = [_patches_of_blind_search(blind, seed, simulated) for seed in range(_SIMULATED_SEARCHES)]
    return references * budget + math.ceil(sum(patches) / len(patches) * searched / simulated)


def _patches_of_blind_search(experiment: Experiment, seed: int, trials: int) -> int:
    """Patches of a search whose trials differ by chance alone."""

    def score(trial: TrialState, patches: int) -> float:
        return float(child_seed(seed, "quality", trial.number))

    base = experiment.base
    every, budget = base.evaluation.every_patches, base.train.budget_patches
    trained = 0
    for state, _ in search(experiment, score, seed=seed, trials=trials, every=every, budget=budget):
        trained = patches_trained(state)
    return trained


def _print_cost(experiment: Experiment, trials: int, placement: Placement, pixels_bytes: int) -> None:
    base = experiment.base
    show_progress("measuring how fast this trains here")
    # Compiling on a CPU saves less than a third of a step, and to try it takes minutes.
    engine: Engine = "eager" if placement.device == "cpu" and base.train.engine == "auto" else base.train.engine
    runtime = resolve_runtime(experiment, trials=trials, placement=placement, engine=engine)
    with OwnThread(runtime.apply) as thread:
        rate = 1 / thread(measure, base.model, base.data, base.train, runtime).seconds_per_patch
    budget = base.train.budget_patches
    if experiment.space.size is not None:
        trials = min(trials, len(experiment.references) + experiment.space.size)
    replicated = experiment.replicates * (experiment.finalists + len(experiment.references)) * budget
    most = trials * budget + replicated
    least = patches_without_progress(experiment, trials) + replicated
    show_progress("")
    slots = f"{placement.slots} at once, " if placement.slots > 1 else ""
    threads = f"{runtime.threads} thread{'s' * (runtime.threads != 1)}"
    least_seconds, most_seconds = (math.ceil(patches / placement.slots) / rate for patches in (least, most))
    measured = f"({slots}measured {rate:.0f} patches/s on {runtime.device}, {threads})"
    if least == most:
        print(f"time: about {duration(least_seconds)} of training steps, at most {duration(most_seconds)} {measured}")
    else:
        print(f"time: about {duration(least_seconds)} to {duration(most_seconds)} of training steps {measured}")
        print("  the first if later proposals are no better than earlier ones, the second if every trial continues at "
              "every rung")  # fmt: skip
    if least_seconds > _LONG_SECONDS:
        gpu = "a GPU (--gpus 0), " if runtime.device == "cpu" else ""
        print(f"  to make it shorter: fewer --trials, {gpu}or in the experiment a lower train.budget_patches (with "
              "rungs and evaluation.every_patches), model.n_blocks or model.n_feats")  # fmt: skip
    if runtime.device == "cpu" and runtime.precision == "fp32" and placement.executor != "ray" and has_amx():
        print("  train.precision bf16 trains the full network 2.3 to 2.9 times as fast on this CPU, which has AMX; its "
              "numbers differ from fp32's, so auto stays fp32")  # fmt: skip
    weights = 4 * sum(p.numel() for p in A2N(base.model, base.data.scale).parameters())
    store = pixels_bytes * (1 + len(experiment.train_kernels) / base.data.scale**2)
    # Each finished trial's weights lie in its folder and in MLflow; one checkpoint holds four times the weights.
    disk = store + weights * (2 * trials + 4)
    print(f"disk: about {disk / 1e6:.0f} MB, of which {store / 1e6:.0f} MB hold the pixels")
