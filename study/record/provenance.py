"""Where a result came from: code, versions, machine. Recorded with every session; none of it steers anything."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sr_core
import study
from sr_core.process.durable import write_durably
from sr_core.process.names import printable

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

DECIDING_LIBRARIES = (*NUMERIC_LIBRARIES, "optuna", "scipy", "scikit-learn", "greenlet")
"""Those that a trial's numbers, a proposal or an importance depend on."""

_CODE = ("sr_core", "study", "experiments")
"""Folders of a checkout whose changes are recorded."""

_LARGEST_PATCH_BYTES = 20_000_000

_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([0-9A-Za-z.!+_-]+)")


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
    """The folder that this package was imported from: a folder of its name in the working directory is another one."""
    return Path(study.__file__ if package == "study" else sr_core.__file__).resolve().parent


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that tracks this code, and whether files of the code differ from it.

    None if the code is in no checkout: a repository around it that does not track it, such as a project with this
    suite in its virtual environment, says nothing about this code and is not asked further. If a checkout is there
    and cannot be asked, "unknown" says why.
    """
    try:
        if not _is_tracked():
            return None
        commit = _ask_git("rev-parse", "HEAD").decode().strip()
        changed = _ask_git("status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none", "--", *_CODE)
    except (OSError, subprocess.SubprocessError) as exc:
        return {"unknown": _reason(exc)} if (_checkout() / ".git").exists() else None
    return {"commit": commit, "dirty": bool(changed)}


def keep_uncommitted_changes(path: Path) -> None:
    """Write how the code's tracked files differ from their commit, as a patch for `git apply`, if they do.

    Binary files are included. Files that git does not track are not, and neither is anything outside `sr_core`,
    `study` and `experiments`. Nothing is written unless the code runs from a checkout that tracks it, nor where the
    patch is larger than 20 MB.
    """
    try:
        if not _is_tracked():
            return
        # Every option that a user's configuration could set otherwise is given, so that the patch can be applied.
        changes = _ask_git(
            "diff", "--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames",
            "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0",
            "-O/dev/null", "--submodule=short", "--line-prefix=", "HEAD", "--", *_CODE,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return
    if changes and len(changes) <= _LARGEST_PATCH_BYTES:
        path.parent.mkdir(exist_ok=True)
        write_durably(path, changes)


def _checkout() -> Path:
    return _folder("study").parent


def _is_tracked() -> bool:
    """Whether git tracks the files that run here; raises SubprocessError or OSError if git cannot say."""
    inside = _run_git("rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 and b"not a git repository" in inside.stderr:
        return False
    inside.check_returncode()
    return (
        _run_git("ls-files", "--error-unmatch", "--", "study/record/provenance.py", "sr_core/seed.py").returncode == 0
    )


def _ask_git(*arguments: str) -> bytes:
    done = _run_git(*arguments)
    done.check_returncode()
    return done.stdout


def _run_git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # GIT_DIR, GIT_INDEX_FILE, GIT_EXTERNAL_DIFF, … are about another repository, or the caller's own use of git.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    # The code of a checkout that belongs to another user runs here already, so git may read it as well.
    options = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "--no-pager", "-C", str(_checkout())]
    return subprocess.run(
        ["git", *options, *arguments], capture_output=True, check=False, timeout=10, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _reason(exc: Exception) -> str:
    """Why git could not be asked, in a line."""
    if isinstance(exc, FileNotFoundError):
        return "git is not installed"
    if isinstance(exc, subprocess.CalledProcessError):
        lines = exc.stderr.decode("utf-8", "replace").split("\n")
        return printable(lines[0]) or f"git ended with status {exc.returncode}"
    return str(exc)


def recorded_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version of a record's lines `name==version`, names as package indexes compare them.

    A record may come from others, and its lines go into files that pip installs from: a line that is anything but a
    name and a version, such as one that adds an option for pip, is left out.
    """
    found = (_REQUIREMENT.fullmatch(line) for line in requirement_lines(packages))
    return {plain_name(match[1]): match[2] for match in found if match}


def other_versions(then: Mapping[str, Any]) -> list[str]:
    """Returns `name VERSION then, VERSION now` for each deciding library whose version a provenance records otherwise.

    A library is left out if the provenance names no version of it, as that of an older record may.
    """
    recorded = _all_recorded(then)
    found = list[str]()
    for name in DECIDING_LIBRARIES:
        before, now = recorded.get(name), _version(name)
        if before and now not in before:
            found.append(f"{name} {min(before)} then, {now} now")
    return found


def _all_recorded(then: Mapping[str, Any]) -> dict[str, set[str]]:
    """Returns every version that a provenance names, by library: a list of packages may name a library twice."""
    packages, versions = then.get("packages"), then.get("versions")
    found: dict[str, set[str]] = {}
    for line in requirement_lines(packages) if isinstance(packages, list | tuple) else ():
        name, _, version = line.partition("==")
        found.setdefault(plain_name(name), set()).add(version)
    for name, version in versions.items() if isinstance(versions, Mapping) else ():
        legal = isinstance(version, str) and _REQUIREMENT.fullmatch(f"{name}=={version}")
        if legal or version == "not installed":
            found[plain_name(str(name))] = {version}
    return found


def requirement_lines(packages: Iterable[str]) -> list[str]:
    """Those of a record's lines that are a name and a version, and nothing else that pip would obey."""
    return [line for line in packages if isinstance(line, str) and _REQUIREMENT.fullmatch(line)]


def plain_name(package: str) -> str:
    """A package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


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
