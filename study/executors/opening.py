"""The executor that a placement asks for."""

import importlib.util
import math
from dataclasses import replace

from sr_core.errors import SuiteError
from sr_core.patches.placement import PatchSourceName, choose_patch_source, pixel_bytes
from sr_core.store.hdf5 import PatchStore
from sr_core.training.memory import needing_gpu, share_of_each
from sr_core.training.runtime import Runtime
from study.executors.inline import InlineExecutor
from study.executors.placement import Placement
from study.executors.processes import ProcessPool, ProcessWorkerSetup
from study.executors.protocol import Executor
from study.executors.remote import Limits, RemoteExecutor
from study.executors.runtime import resolve_runtime
from study.executors.separate import THIS_PROCESS, GpuRunner
from study.executors.trial import TrialContext
from study.question.experiment import Experiment
from study.record.course import course_of

_START_SECONDS = 120.0
"""What a process may take to start on a busy machine, however soon its later silence is to be noticed."""


def runtime_for(
    experiment: Experiment,
    trials: int,
    placement: Placement,
    store: PatchStore | None = None,
    run: GpuRunner = THIS_PROCESS,
) -> Runtime:
    """The settings of a study that begins now, resolved where its trials will run; those of the study that it replays.

    Args:
        store: of the images that will be trained on, whose pixels take memory too.
        run: what runs work on a GPU of this machine.
    Raises:
        SuiteError: the replayed study ran on another kind of device.
    """
    if experiment.replay is not None:
        course = course_of(experiment.replay)
        runtime = Runtime.from_json(course.runtime, format=course.format)
        if runtime.device.partition(":")[0] != placement.device:
            raise SuiteError(f"the study to be replayed ran on {runtime.device}, not on {placement.device}; see --gpus")
        return runtime
    pixels = 0 if store is None else pixel_bytes(store, experiment.base.data.scale)
    if placement.executor != "ray":
        return resolve_runtime(experiment, trials=trials, placement=placement, pixels=pixels, run=run)
    _require_ray()
    from study.executors.ray import resolve_there

    return resolve_there(experiment, trials, placement, pixels)


def _require_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise SuiteError("--executor ray needs Ray: pip install -c constraints.txt -e '.[ray]'")


def open_executor(
    placement: Placement,
    store: PatchStore,
    runtime: Runtime,
    scale: int,
    max_bicubic_psnr: float | None,
    run: GpuRunner = THIS_PROCESS,
) -> Executor:
    """The slots of a session. What can be said about the pixels is said by now, before a live view begins.

    Args:
        max_bicubic_psnr: the study's bound for validation crops.
        run: what runs work on a GPU of this machine.
    """
    limits = Limits(silence=placement.hang_timeout, trial=placement.trial_timeout or math.inf)
    if placement.executor == "ray":
        _require_ray()
        from study.executors.ray import RayPool

        # A slot that waits for room in the cluster is silent for good reason.
        pool = RayPool(placement, store, runtime, scale, max_bicubic_psnr)
        return RemoteExecutor(pool, placement.slots, replace(limits, start=math.inf), one_machine=False)
    limits = replace(limits, start=max(limits.silence, _START_SECONDS))
    runtime, home, share = run(_settled, runtime, store, scale, placement)
    if placement.executor == "inline":
        return InlineExecutor(TrialContext(store, runtime, home, max_bicubic_psnr=max_bicubic_psnr))
    setup = ProcessWorkerSetup(
        store=store,
        runtime=runtime,
        home=home,
        gpus=placement.gpus,
        gpu_share=share,
        max_bicubic_psnr=max_bicubic_psnr,
    )
    return RemoteExecutor(ProcessPool(setup), placement.slots, limits)


def _settled(
    runtime: Runtime, store: PatchStore, scale: int, placement: Placement
) -> tuple[Runtime, PatchSourceName, float]:
    """What depends on the GPUs of this machine: settings as it can restore them, where the pixels live, and the part of
    its GPU's memory that a worker may take."""
    here = runtime.here()
    beside = placement.slots_per_device
    share = 1.0
    with needing_gpu(here.device):
        home = choose_patch_source(store, scale, here.device, slots=placement.slots, slots_per_device=beside)
        if here.device != "cpu" and beside > 1:
            share = share_of_each(here.device, beside)
    return here, home, share
