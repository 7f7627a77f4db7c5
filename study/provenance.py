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

from sr_core.durable import write_durably

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

NUMERIC_LIBRARIES = ("torch", "numpy", "opencv-python-headless", "pillow", "h5py")
"""Those that a trial's numbers pass through. The others decide what is tried and shown."""

_MOST_CHANGES = 2_000_000
"""Characters of uncommitted changes that are kept."""


def collect() -> dict[str, Any]:
    """The present code and machine as plain values."""
    return {
        "source": source_hash(),
        "files": source_files(),
        "git": _git(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
        "packages": sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
    }


@cache
def source_hash() -> str:
    """16 hex digits over every Python file of `sr_core` and `study`, names included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, path in source_paths().items():
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_files() -> dict[str, str]:
    """8 hex digits of each of these files, so that one that changed can be named."""
    return {
        name: hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest() for name, path in source_paths().items()
    }


def source_paths() -> dict[str, Path]:
    """Every Python file of `sr_core` and `study` by its name, e.g. `sr_core/seed.py`."""
    return {
        f"{package}/{path.relative_to(_folder(package)).as_posix()}": path
        for package in _PACKAGES
        for path in sorted(_folder(package).rglob("*.py"))
    }


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the code runs from, and whether files differ from it; None outside of one."""

    try:
        return {"commit": _ask_git("rev-parse", "HEAD").strip(), "dirty": bool(_ask_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def keep_uncommitted_changes(path: Path) -> None:
    """Write how the checkout's files differ from its commit, as `git diff` tells it, if they do.

    Files that git does not know are not in it, and nothing is written outside of a checkout.
    """
    try:
        changes = _ask_git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return
    if len(changes) > _MOST_CHANGES:
        changes = f"{changes[:_MOST_CHANGES]}\n(cut off here)\n"
    if changes:
        path.parent.mkdir(exist_ok=True)
        write_durably(path, changes.encode())


def _ask_git(*arguments: str) -> str:
    command = ["git", "-C", str(_folder("study")), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=10)
    return done.stdout.decode("utf-8", errors="replace")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def cpu_model() -> str:
    """What the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
