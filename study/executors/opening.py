"""Opens the executor that a placement describes."""

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
"""Time allowed for a worker process to start, even if the user asks for a shorter hang timeout."""


def runtime_for(
    experiment: Experiment,
    trials: int,
    placement: Placement,
    store: PatchStore | None = None,
    run: GpuRunner = THIS_PROCESS,
) -> Runtime:
    """Resolve the runtime settings of a new study on the device on which its trials will run.

    A study that replays another one takes over the recorded settings of that study.

    Args:
        store: the training images, whose pixels occupy memory too.
        run: runs work on a GPU of this machine.
    Raises:
        SuiteError: the replayed study ran on another kind of device, or Ray is not installed.
    """
    if experiment.replay is not None:
        course = course_of(experiment.replay)
        runtime = Runtime.from_json(course.runtime, format=course.format)
        if runtime.device.partition(":")[0] != placement.device:
            raise SuiteError(f"the replayed study ran on {runtime.device}, not on {placement.device}; see --gpus")
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
    """Open the executor of a session.

    Call this before the live view starts, because it may print how the pixels are stored.

    Args:
        max_bicubic_psnr: the study's upper bound for the bicubic PSNR of validation crops, in dB.
        run: runs work on a GPU of this machine.
    Raises:
        SuiteError: Ray is not installed, or no cluster answers.
    """
    limits = Limits(silence=placement.hang_timeout, trial=placement.trial_timeout or math.inf)
    if placement.executor == "ray":
        _require_ray()
        from study.executors.ray import RayPool

        # A slot may wait for free resources in the cluster, so its start has no time limit.
        pool = RayPool(placement, store, runtime, scale, max_bicubic_psnr)
        return RemoteExecutor(pool, placement.slots, replace(limits, start=math.inf), one_machine=False)

    limits = replace(limits, start=max(limits.silence, _START_SECONDS))
    runtime, source_name, gpu_share = run(_fit_to_machine, runtime, store, scale, placement)
    if placement.executor == "inline":
        return InlineExecutor(TrialContext(store, runtime, source_name, max_bicubic_psnr=max_bicubic_psnr))

    setup = ProcessWorkerSetup(
        store=store,
        runtime=runtime,
        source_name=source_name,
        gpus=placement.gpus,
        gpu_share=gpu_share,
        max_bicubic_psnr=max_bicubic_psnr,
    )
    return RemoteExecutor(ProcessPool(setup), placement.slots, limits)


def _fit_to_machine(
    runtime: Runtime, store: PatchStore, scale: int, placement: Placement
) -> tuple[Runtime, PatchSourceName, float]:
    """Return what depends on this machine's GPUs: its runtime, the patch source, and a worker's share of GPU memory."""
    local_runtime = runtime.here()
    slots_per_device = placement.slots_per_device
    gpu_share = 1.0
    with needing_gpu(local_runtime.device):
        source_name = choose_patch_source(
            store, scale, local_runtime.device, slots=placement.slots, slots_per_device=slots_per_device
        )
        if local_runtime.device != "cpu" and slots_per_device > 1:
            gpu_share = share_of_each(local_runtime.device, slots_per_device)

    return local_runtime, source_name, gpu_share
