"""The executor that a placement asks for."""

import math

from sr_core.data.homes import choose_home
from sr_core.data.store import PatchStore
from sr_core.training.runtime import Runtime
from study.executors import Executor
from study.executors.inline import InlineExecutor
from study.executors.processes import ProcessCrew, Setup
from study.executors.remote import Limits, RemoteExecutor
from study.placement import Placement
from study.trial import Bench


def open_executor(placement: Placement, store: PatchStore, runtime: Runtime, scale: int) -> Executor:
    """The slots of a session. What can be said about the pixels is said by now, before a live view begins."""
    home = choose_home(store, scale, runtime.device, slots=placement.slots, slots_per_device=placement.slots_per_device)
    if placement.executor == "inline":
        return InlineExecutor(Bench(store, runtime, home))
    limits = Limits(silence=placement.hang_timeout, trial=placement.trial_timeout or math.inf)
    setup = Setup(store=store.path, runtime=runtime, home=home, gpus=placement.gpus)
    return RemoteExecutor(ProcessCrew(setup), placement.slots, limits)
