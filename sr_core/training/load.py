"""Measures the load and memory use of a training's device, for information only."""

import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_MIB = 2**20
"""Bytes per MiB."""
_STATM = Path("/proc/self/statm")


class LoadMeter:
    """Samples the load of one device and summarises the samples between validations. A sample is cheap."""

    def __init__(self, device: str) -> None:
        """
        Args:
            device: "cpu" or "cuda:N", as numbered in this process.
        """
        self._device = device
        self._gauges: dict[str, Callable[[], float]] = {"memory_usage_megabytes": _resident_mib}
        if device != "cpu":
            self._gauges["gpu_memory_usage_megabytes"] = self._gpu_memory_mib
            if _can_measure_utilisation(device):
                self._gauges["gpu_utilization_percentage"] = self._gpu_utilisation
        self._begin()

    def sample(self) -> None:
        """Take one sample. It asks the GPU's driver and does not wait for the GPU.

        A gauge that fails is removed, because a driver update during a training must not end the training.
        """
        for name, gauge in list(self._gauges.items()):
            try:
                self._samples[name].append(gauge())
            except Exception as exc:  # the driver's library raises undocumented errors of its own
                del self._gauges[name]
                logger.warning("%s is no longer measured: %s", name, " ".join(str(exc).split()) or type(exc).__name__)

    def take(self) -> dict[str, float]:
        """The load since the last call, or since the start, under MLflow's metric names. Takes one more sample first.

        Memory is the largest sample, in MiB. GPU utilisation is the mean, in per cent. CPU utilisation is that of this
        process, in per cent of one core.
        """
        self.sample()
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        load = {"cpu_utilization_percentage": 100 * cpu / wall if wall > 0 else 0.0}
        for name, values in self._samples.items():
            if not values:
                continue  # the gauge failed at the first sample
            load[name] = sum(values) / len(values) if name.endswith("_percentage") else max(values)
        self._begin()
        return load

    def _begin(self) -> None:
        self._samples: dict[str, list[float]] = {name: [] for name in self._gauges}
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def _gpu_memory_mib(self) -> float:
        return torch.cuda.memory_reserved(self._device) / _MIB

    def _gpu_utilisation(self) -> float:
        return float(torch.cuda.utilization(self._device))


def _can_measure_utilisation(device: str) -> bool:
    """True if the driver's management library (NVML) responds. A MIG instance or a container may lack it."""
    try:
        torch.cuda.utilization(device)
    except Exception:  # NVML errors derive directly from Exception, and its module may be missing
        return False
    return True


def _resident_mib() -> float:
    """The memory of this process in MiB: the current value on Linux, the peak on other systems."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / _MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
