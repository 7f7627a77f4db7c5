"""Where a result came from: code, versions, machine. Recorded with every session; none of it steers anything."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGES = ("sr_core", "study")
_LIBRARIES = (
    "torch",
    "optuna",
    "mlflow",
    "h5py",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scikit-image",
    "pandas",
)


def collect() -> dict[str, Any]:
    """The present code and machine as plain values."""
    return {
        "source": source_hash(),
        "git": _git(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


@cache
def source_hash() -> str:
    """16 hex digits over every Python file of `sr_core` and `study`, names included."""
    digest = hashlib.blake2b(digest_size=8)
    for package in _PACKAGES:
        for path in sorted(_folder(package).rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(_folder(package)).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the code runs from, and whether files differ from it; None outside of one."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(_folder("study")), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
