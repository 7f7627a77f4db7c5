"""Prints what the device is, and the throughput of a large copy and of large matrix products on it.

python benchmarks/gpu_facts.py [--device cuda:0]
"""

import argparse
import os
import platform
import subprocess

import torch
from step_costs import floors

from sr_core.process.machine import available_memory, cores
from sr_core.training.compiled import can_compile


def driver() -> str:
    """Returns what nvidia-smi reports of the driver and the state of the device."""
    fields = "name,driver_version,compute_mode,memory.total,memory.used,clocks.sm,temperature.gpu,mig.mode.current"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"nvidia-smi: {exc}"
    return done.stdout.strip() or done.stderr.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    device = parser.parse_args().device
    print(f"- Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}")
    print(
        f"- {cores()} cores, {available_memory() / 1e9:.0f} GB available, compiler for {device}: {can_compile(device)}"
    )
    kinds = ["fp32"]
    if device != "cpu":
        print(f"- CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, NCCL not used")
        gpu = torch.cuda.get_device_properties(device)
        free, total = torch.cuda.mem_get_info(device)
        print(f"- {gpu.name}: {gpu.multi_processor_count} multiprocessors, capability {gpu.major}.{gpu.minor}")
        print(f"- {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
        convolutions = torch.backends.cudnn.allow_tf32
        products = torch.backends.cuda.matmul.allow_tf32
        override = os.environ.get("NVIDIA_TF32_OVERRIDE")
        print(f"- TF32 in convolutions: {convolutions}, in products: {products}, NVIDIA_TF32_OVERRIDE: {override}")
        for line in driver().splitlines():
            print(f"- {line}")
        kinds.append("bf16")
    for kind in kinds:
        reached = floors(device, kind)
        print(
            f"- {reached['GB/s']:.0f} GB/s copied, bytes read and written; {reached['GFLOP/s'] / 1e3:.1f} TFLOP/s in "
            f"{kind} products",
            flush=True,
        )


if __name__ == "__main__":
    main()
