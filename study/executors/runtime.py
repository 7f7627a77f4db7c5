"""Measures under which runtime settings an experiment's trials train fastest on this machine (promise 2)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from sr_core.config import Engine
from sr_core.process.machine import cores
from study.executors.placement import Placement
from study.executors.separate import THIS_PROCESS, GpuRunner
from study.question.experiment import Experiment

if TYPE_CHECKING:
    from sr_core.training.runtime import Runtime


def resolve_runtime(
    experiment: Experiment,
    *,
    trials: int,
    placement: Placement,
    engine: Engine | None = None,
    pixels: int = 0,
    run: GpuRunner = THIS_PROCESS,
) -> "Runtime":
    """Return the settings under which `trials` trials of the experiment train fastest here, each in its slot's share.

    Args:
        engine: replaces the experiment's own engine.
        pixels: size in bytes of the training images, which each slot may keep on its GPU.
        run: runs the measurement on the device.
    """
    from sr_core.training.choice import choose

    base = experiment.base
    batch_sizes = [base.train.batch_size]
    shapes = 1
    for dimension in experiment.space.dimensions:
        compiled_settings = set()
        for value in dimension.samples:
            settings = dimension.settings(value)
            if "train.batch_size" in settings:
                batch_sizes.append(settings["train.batch_size"])
            compiled_settings.add(tuple((k, v) for k, v in settings.items() if _needs_recompilation(k)))
        shapes *= len(compiled_settings)

    largest = max(batch_sizes)
    return run(
        choose,
        base.model,
        base.data,
        replace(base.train, batch_size=largest, budget_patches=largest, engine=engine or base.train.engine),
        device=placement.device,
        cores_to_use=placement.cores_each(cores()),
        trainings_per_device=placement.slots_per_device,
        pixels=pixels,
        patches=trials * base.train.budget_patches,
        shapes=shapes * placement.slots,
    )


def _needs_recompilation(name: str) -> bool:
    """Return True if code compiled for one value of this hyperparameter cannot be used for another value.

    Shapes and constants of the network are compiled in; the temperature is a tensor.
    """
    network = name.startswith("model.") and name != "model.temperature"
    return network or name in ("train.batch_size", "data.lr_patch_size")
