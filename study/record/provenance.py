"""The provenance of a result: code, versions and machine. Every session records it, and nothing depends on it."""

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
"""Libraries that compute a trial's numbers. The others affect what is tried and shown."""

DECIDING_LIBRARIES = (*NUMERIC_LIBRARIES, "optuna", "scipy", "scikit-learn", "greenlet")
"""Libraries that a trial's numbers, a proposal or an importance depends on."""

_CODE = ("sr_core", "study", "experiments")
"""Folders of a checkout whose changes are recorded."""

_LARGEST_PATCH_BYTES = 20_000_000

_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([0-9A-Za-z.!+_-]+)")


def collect() -> dict[str, Any]:
    """The code, versions and machine of this process as plain values."""
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
    """16 hex digits (BLAKE2b) over the names and contents of every Python file of `sr_core` and `study`."""
    digest = hashlib.blake2b(digest_size=8)
    for name, path in source_paths().items():
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def source_files() -> dict[str, str]:
    """8 hex digits for each of these files, so that messages can name the files that changed."""
    return {
        name: hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest() for name, path in source_paths().items()
    }


def source_paths() -> dict[str, Path]:
    """Every Python file of `sr_core` and `study` by its name, for example `sr_core/seed.py`."""
    return {
        f"{package}/{path.relative_to(_folder(package)).as_posix()}": path
        for package in _PACKAGES
        for path in sorted(_folder(package).rglob("*.py"))
    }


def _folder(package: str) -> Path:
    """The folder that this package was imported from, which need not be the one in the working directory."""
    return Path(study.__file__ if package == "study" else sr_core.__file__).resolve().parent


def _git() -> dict[str, Any] | None:
    """The commit of the checkout that tracks this code, and if the code differs from that commit.

    Returns None if no checkout tracks the code. A repository around it that does not track it is ignored, such as a
    project with this suite in its virtual environment. If there is a checkout, but git fails, "unknown" says why.
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
    """Write the uncommitted changes of the code as a patch for `git apply`, if there are any.

    The patch includes binary files. It does not include untracked files or anything outside `sr_core`, `study` and
    `experiments`. Nothing is written if no checkout tracks the code, or if the patch is larger than 20 MB.
    """
    try:
        if not _is_tracked():
            return
        # Sets every option that a user's configuration could change, so that the patch can always be applied.
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
    """True if git tracks the files of this process.

    Raises:
        SubprocessError or OSError: git failed.
    """
    inside = _run_git("rev-parse", "--is-inside-work-tree")
    if inside.returncode != 0 and b"not a git repository" in inside.stderr:
        return False
    inside.check_returncode()
    return (
        _run_git("ls-files", "--error-unmatch", "--", "study/record/provenance.py", "sr_core/seed.py").returncode == 0
    )


def _ask_git(*arguments: str) -> bytes:
    """The output of a git command."""
    result = _run_git(*arguments)
    result.check_returncode()
    return result.stdout


def _run_git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # GIT_DIR, GIT_INDEX_FILE, GIT_EXTERNAL_DIFF, … concern another repository or the caller's own use of git.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    # safe.directory: code from another user's checkout already runs here, so git may read it as well.
    options = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "--no-pager", "-C", str(_checkout())]
    return subprocess.run(
        ["git", *options, *arguments], capture_output=True, check=False, timeout=10, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _reason(exc: Exception) -> str:
    """Why git failed, in one line."""
    if isinstance(exc, FileNotFoundError):
        return "git is not installed"
    if isinstance(exc, subprocess.CalledProcessError):
        lines = exc.stderr.decode("utf-8", "replace").split("\n")
        return printable(lines[0]) or f"git ended with status {exc.returncode}"
    return str(exc)


def recorded_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions in a record's lines `name==version`, by normalised package name.

    A record may come from someone else, and pip installs from its lines. Therefore a line that is not just a name and a
    version is left out, for example one with an option for pip.
    """
    versions = {}
    for line in requirement_lines(packages):
        name, _, version = line.partition("==")
        versions[plain_name(name)] = version
    return versions


def other_versions(then: Mapping[str, Any]) -> list[str]:
    """A line `name VERSION then, VERSION now` for each deciding library whose version differs from the recorded one.

    Skips a library if the provenance does not contain its version, as in older records.
    """
    recorded = _all_recorded(then)
    lines: list[str] = []
    for name in DECIDING_LIBRARIES:
        before = recorded.get(name)
        now = _version(name)
        if before and now not in before:
            lines.append(f"{name} {min(before)} then, {now} now")
    return lines


def _all_recorded(then: Mapping[str, Any]) -> dict[str, set[str]]:
    """Every version in a provenance, by library. A list of packages can contain a library twice."""
    recorded: dict[str, set[str]] = {}
    packages = then.get("packages")
    if isinstance(packages, list | tuple):
        for line in requirement_lines(packages):
            name, _, version = line.partition("==")
            recorded.setdefault(plain_name(name), set()).add(version)
    versions = then.get("versions")
    if isinstance(versions, Mapping):
        for name, version in versions.items():
            legal = isinstance(version, str) and _REQUIREMENT.fullmatch(f"{name}=={version}")
            if legal or version == "not installed":
                recorded[plain_name(str(name))] = {version}
    return recorded


def requirement_lines(packages: Iterable[str]) -> list[str]:
    """The lines of a record that are just a name and a version, without anything else that pip would obey."""
    return [line for line in packages if isinstance(line, str) and _REQUIREMENT.fullmatch(line)]


def plain_name(package: str) -> str:
    """The normalised name of a package, as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def cpu_model() -> str:
    """The model name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
