"""`study.run --dry-run`: describe a study and estimate its cost before it is run; writes nothing."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sr_core.config import Engine
from sr_core.model.network import A2N
from sr_core.process.cli import show_progress
from sr_core.process.machine import cores, has_amx
from sr_core.seed import child_seed
from sr_core.store.manifest import Manifest
from sr_core.store.sources import ImageSet
from sr_core.training.own_thread import OwnThread
from sr_core.training.speed import measure
from study.commandline import typed
from study.executors.placement import Placement
from study.executors.runtime import resolve_runtime
from study.question.config import TrialConfig, differences
from study.question.experiment import Experiment
from study.record.events import FORMAT, StudyOpened
from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import StudyState, TrialState, fold
from study.screen.terminal import duration
from study.search.policy import Start, next_step
from study.search.simulation import patches_trained, search
from study.session.opening import find_images, left_out, read_images
from study.session.options import RunOptions

_MAX_PROPOSALS_SHOWN = 5
_LONG_SECONDS = 24 * 3600
"""Estimates above this get advice on how to shorten the study."""
_SIMULATED_TRIALS = 50
"""Trials of a simulated search; in a longer search the same share of trials continues at each rung."""
_SIMULATED_SEARCHES = 3
_ROLES = {
    "nuisance": "tuned to its best value, but not part of the question",
    "scientific": "part of the question: the other hyperparameters are tuned for each of its values, for a fair "
    "comparison",
}


def show(name: str, experiment: Experiment, options: RunOptions, placement: Placement, folder: StudyFolder) -> int:
    """Print the images, search space, budget, first proposals, and the estimated time and disk space; returns 0.

    Raises:
        SuiteError: the study could not be run with these options or images.
    """
    placement.check({"threads": 1}, cores())
    images = find_images(options.data, experiment)
    manifest = read_images(folder.root, images).manifest
    too_small = left_out(experiment, manifest)

    print(f"{name}: {experiment.question}")
    if folder.journal.exists():
        _print_existing(folder, options)
    _print_images(images, manifest, too_small)
    _print_space(experiment)
    _print_budget(experiment)
    _print_comparisons(experiment)
    if experiment.space.dimensions:
        print("first proposals:")
        seed = experiment.base.seed if options.seed is None else options.seed
        for values in first_proposals(experiment, seed, _MAX_PROPOSALS_SHOWN):
            print(f"  {', '.join(f'{k} {v}' for k, v in values.items())}")
    _print_cost(experiment, options.trials, placement, sum(r.height * r.width * 3 for r in manifest))
    print(f"next: python -m study.run{typed(argument for argument in sys.argv[1:] if argument != '--dry-run')}")
    return 0


def _print_existing(folder: StudyFolder, options: RunOptions) -> None:
    count = fold(read(folder.journal)).counted
    trials = "1 trial" if count == 1 else f"{count} trials"
    root = ["--root", str(options.root)] if options.root else []
    flags = typed([*root, "--study-name", folder.study])
    print(
        f"study {folder.study} already exists, with {trials} (python -m study.status{flags}); the command in the last "
        "line continues it; the lines below describe a new study"
    )


def _print_images(images: ImageSet, manifest: Manifest, too_small: Mapping[str, Sequence[str]]) -> None:
    n_train = sum(r.split == "train" for r in manifest)
    n_valid = sum(r.split == "valid" for r in manifest)
    small = ", ".join(f"{len(names)} too small for {setting}" for setting, names in too_small.items())
    print(f"images: {n_train} for training ({small or '0 too small'}), {n_valid} for validation, from {images.origin}")
    if images.left_out:
        print(images.left_out.line(), file=sys.stderr, flush=True)


def _print_space(experiment: Experiment) -> None:
    dimensions = experiment.space.describe()
    if dimensions:
        print(f"search space: {experiment.space.size or 'infinitely many'} configurations")
    for dimension in dimensions:
        values = dimension.get("values")
        if not values:
            values = f"{dimension['low']} to {dimension['high']}"
            if dimension["log"]:
                values += ", log"
        print(f"  {dimension['role']:<10}  {'+'.join(dimension['names'])}: {dimension['range']} {values}")
    for role in sorted({dimension["role"] for dimension in dimensions}):
        print(f"  ({role}: {_ROLES[role]})")


def _print_budget(experiment: Experiment) -> None:
    base = experiment.base
    print(
        f"budget: {base.train.budget_patches} patches per trial, validated every {base.evaluation.every_patches}; "
        f"evaluation kernel {base.evaluation.kernel}"
    )
    rungs = ", ".join(map(str, experiment.rungs)) or "none"
    continuing = f", the best 1/{experiment.reduction_factor:g} continue" if experiment.rungs else ""
    print(f"rungs: {rungs}; scheduler {experiment.scheduler}{continuing}; sampler {experiment.sampler}")


def _print_comparisons(experiment: Experiment) -> None:
    """Print what is compared at the end: finalists, references and the pairs that the experiment names."""
    if experiment.replicates:
        print(f"finalists: {experiment.finalists} and the references, retrained with {experiment.replicates} seeds")
    else:
        print("finalists: none; with replicates=0 the result is a ranking of single runs without a verdict")
    for reference, config in experiment.references.items():
        changes = _changes(config, experiment.base) if experiment.comparisons else ""
        print(f"reference trial: {reference}{changes}")
    for question, pairs in experiment.comparisons.items():
        print(f"comparison: {question} {'; '.join(f'{one} against {other}' for one, other in pairs)}")


def _changes(config: TrialConfig, base: TrialConfig) -> str:
    """The hyperparameters in which a configuration differs from the base, in parentheses."""
    changed = ", ".join(f"{name} {value}" for name, (value, _) in differences(config, base).items())
    return f" ({changed})"


def first_proposals(experiment: Experiment, seed: int, count: int) -> list[dict[str, object]]:
    """The first `count` proposals of the search, made before any trial has been validated.

    Args:
        seed: seed of the study.
    Returns:
        Per proposal, the values of the swept hyperparameters by dotted name; fewer if the space holds fewer.
    """
    state = StudyState().apply(
        StudyOpened(
            time=time.time(),
            format=FORMAT,
            study="",
            experiment="",
            seed=seed,
            question={},
            digest="",
            text="",
            runtime={},
            data={},
        )
    )
    running: list[int] = []
    trials = len(experiment.references) + count
    while True:
        step = next_step(state, experiment, trials, now=time.time(), running=running)
        if step is None:
            break
        if isinstance(step, Start):
            running.append(step.trial)
        else:
            state = state.apply(step)
    return [dict(t.proposed.values) for t in state.trials.values() if t.proposed.role == "search"]


def patches_without_progress(experiment: Experiment, trials: int) -> int:
    """Patches that the search trains if its proposals do not improve: the mean over simulated searches.

    If the sampler learns, later trials are better than earlier ones, so that more of them continue at the rungs.

    Args:
        trials: total number of trials, including references, which are never stopped.
    """
    budget = experiment.base.train.budget_patches
    references = min(trials, len(experiment.references))
    searched = trials - references
    if experiment.scheduler not in ("successive_halving", "asha") or not searched:
        return trials * budget
    simulated = min(searched, _SIMULATED_TRIALS)
    blind = replace(experiment, references={}, comparisons={}, replicates=0, sampler="random", replay=None)
    patches = [_patches_of_blind_search(blind, seed, simulated) for seed in range(_SIMULATED_SEARCHES)]
    return references * budget + math.ceil(sum(patches) / len(patches) * searched / simulated)


def _patches_of_blind_search(experiment: Experiment, seed: int, trials: int) -> int:
    """Patches trained by a search in which trials differ only by chance."""

    def score(trial: TrialState, patches: int) -> float:
        return float(child_seed(seed, "quality", trial.number))

    base = experiment.base
    every = base.evaluation.every_patches
    budget = base.train.budget_patches
    trained = 0
    for state, _ in search(experiment, score, seed=seed, trials=trials, every=every, budget=budget):
        trained = patches_trained(state)
    return trained


def _print_cost(experiment: Experiment, trials: int, placement: Placement, pixels_bytes: int) -> None:
    """Measure the training speed on this machine, and print the estimated time and disk space."""
    base = experiment.base
    show_progress("measuring the training speed on this machine")
    # Compiling on a CPU saves less than a third of a step, and trying it takes minutes.
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
    threads = "1 thread" if runtime.threads == 1 else f"{runtime.threads} threads"
    least_seconds = math.ceil(least / placement.slots) / rate
    most_seconds = math.ceil(most / placement.slots) / rate
    measured = f"({slots}measured {rate:.0f} patches/s on {runtime.device}, {threads})"
    if least == most:
        print(f"time: about {duration(least_seconds)} of training steps, at most {duration(most_seconds)} {measured}")
    else:
        print(f"time: about {duration(least_seconds)} to {duration(most_seconds)} of training steps {measured}")
        print(
            "  the first if later proposals are no better than earlier ones, the second if every trial continues at "
            "every rung"
        )
    if least_seconds > _LONG_SECONDS:
        gpu = "a GPU (--gpus 0), " if runtime.device == "cpu" else ""
        print(
            f"  to make it shorter: fewer --trials, {gpu}or in the experiment a lower train.budget_patches (with "
            "rungs and evaluation.every_patches), model.n_blocks or model.n_feats"
        )
    if runtime.device == "cpu" and runtime.precision == "fp32" and placement.executor != "ray" and has_amx():
        print(
            "  train.precision bf16 trains the full network 2.3 to 2.9 times as fast on this CPU, which has AMX; its "
            "numbers differ from fp32's, so auto stays fp32"
        )
    weights = 4 * sum(p.numel() for p in A2N(base.model, base.data.scale).parameters())
    store = pixels_bytes * (1 + len(experiment.train_kernels) / base.data.scale**2)
    # A finished trial's weights are in its folder and in MLflow; a checkpoint holds four times the weights.
    disk = store + weights * (2 * trials + 4)
    print(f"disk: about {disk / 1e6:.0f} MB, of which {store / 1e6:.0f} MB are pixels")
