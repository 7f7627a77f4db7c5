"""The settings under which an experiment's trials train fastest here (contract 2)."""

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
    """The settings under which that many trials of this experiment train fastest here, each on its slot's share.

    Args:
        engine: in place of the experiment's own.
        pixels: bytes of the training images, which each slot may keep on its GPU.
        run: where it is tried.
    """
    from sr_core.training.choice import choose

    base, dimensions = experiment.base, experiment.space.dimensions
    batches, shapes = [base.train.batch_size], 1
    for dimension in dimensions:
        rows = [dimension.settings(value) for value in dimension.samples]
        batches += [row["train.batch_size"] for row in rows if "train.batch_size" in row]
        shapes *= len({tuple((k, v) for k, v in row.items() if _compiled_anew(k)) for row in rows})
    return run(
        choose,
        base.model,
        base.data,
        replace(base.train, batch_size=(most := max(batches)), budget_patches=most, engine=engine or base.train.engine),
        device=placement.device,
        cores_to_use=placement.cores_each(cores()),
        trainings_per_device=placement.slots_per_device,
        pixels=pixels,
        patches=trials * base.train.budget_patches,
        shapes=shapes * placement.slots,
    )


def _compiled_anew(name: str) -> bool:
    """Whether compiled code holds for one value only: of shapes, and of numbers within it (temperature is a tensor)."""
    network = name.startswith("model.") and name != "model.temperature"
    return network or name in ("train.batch_size", "data.lr_patch_size")
