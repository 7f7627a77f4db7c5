"""How busy the device of a training is, and how much memory it takes: for people to look at, nothing depends on it."""

import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_MIB = 2**20
_STATM = Path("/proc/self/statm")


class LoadMeter:
    """Samples the load of one device, cheaply enough for every tick, and sums the samples up between validations."""

    def __init__(self, device: str) -> None:
        """
        Args:
            device: "cpu" or "cuda:N" as this process sees it.
        """
        self._device = device
        self._gauges: dict[str, Callable[[], float]] = {"memory_usage_megabytes": _resident_mib}
        if device != "cpu":
            self._gauges["gpu_memory_usage_megabytes"] = self._gpu_memory_mib
            if _can_tell_utilisation(device):
                self._gauges["gpu_utilization_percentage"] = self._gpu_utilisation
        self._begin()

    def sample(self) -> None:
        """Look once. A GPU's driver is asked, not the GPU: what runs there is not waited for.

        A gauge that fails is not asked again: the driver may be updated while a training runs, which must not end it.
        """
        for name, gauge in list(self._gauges.items()):
            try:
                self._seen[name].append(gauge())
            except Exception as exc:  # the driver's library raises errors of its own, and more than it documents
                del self._gauges[name]
                logger.warning("%s is not told any more: %s", name, " ".join(str(exc).split()) or type(exc).__name__)

    def take(self) -> dict[str, float]:
        """The load since the last call or the start, after one more look, by MLflow's names of such metrics.

        Memory in MiB is the largest seen, the utilisation of the GPU in per cent the mean; that of the CPU is by this
        process, and 100 is one core.
        """
        self.sample()
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        load = {"cpu_utilization_percentage": 100 * cpu / wall if wall > 0 else 0.0}
        for name, values in self._seen.items():
            if not values:
                continue  # its gauge has just failed
            load[name] = sum(values) / len(values) if name.endswith("_percentage") else max(values)
        self._begin()
        return load

    def _begin(self) -> None:
        self._seen: dict[str, list[float]] = {name: [] for name in self._gauges}
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _gpu_memory_mib(self) -> float:
        return torch.cuda.memory_reserved(self._device) / _MIB

    def _gpu_utilisation(self) -> float:
        return float(torch.cuda.utilization(self._device))


def _can_tell_utilisation(device: str) -> bool:
    """Whether the driver's management library answers; a share of a GPU (MIG) or a container may lack it."""
    try:
        torch.cuda.utilization(device)
    except Exception:  # NVML's own errors derive from Exception alone; the module need not be there
        return False
    return True


def _resident_mib() -> float:
    """Memory of this process now; its peak where the system does not tell."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / _MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
