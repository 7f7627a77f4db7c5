"""Uploads of files to a tracker. A file that the tracker refuses does not stop the others, and is retried later."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from sr_core.process.redaction import redact
from study.tracking.mlflow.names import legal_path

Files = Mapping[str, str | bytes | Path]
"""Path in the run's artifacts -> its content, or the file to copy."""


class Client(Protocol):
    """The part of `MlflowClient` that uploads files."""

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> object: ...

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> object: ...


MISSING = "study.files_missing"
"""Tag of a run that lacks files. Its value has the name of one file and the number of the others."""
_PATIENCE_SECONDS = 20.0
"""How long one attempt at single uploads may take, because metrics wait meanwhile."""
_MAX_REFUSED_IN_A_ROW = 3
_NOT_TRIED = "not tried, because others were refused"


def send(client: Client, run: str, files: Files) -> dict[str, str]:
    """Uploads files to a run's artifacts in one call. If that fails, each is uploaded by itself, the smallest first.

    Returns:
        File name -> why the file was refused. Any exception counts, because each storage has errors of its own.
    """
    if not files:
        return {}
    with TemporaryDirectory(prefix="artifacts-") as scratch:
        paths = _laid_out(Path(scratch), files)
        if _attempt(lambda: client.log_artifacts(run, scratch)) is None:
            return {}
        return _one_by_one(client, run, Path(scratch), paths)


def _laid_out(scratch: Path, files: Files) -> dict[str, Path]:
    """Writes the files below `scratch` as they shall lie in the artifacts, and returns name -> path.

    Files to be copied become links.
    """
    paths = {}
    for name, content in files.items():
        path = scratch / legal_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content.resolve())  # MLflow copies the link's target
        elif isinstance(content, str):
            path.write_bytes(content.encode("utf-8", "backslashreplace"))
        else:
            path.write_bytes(content)
        paths[name] = path
    return paths


def _one_by_one(client: Client, run: str, scratch: Path, paths: Mapping[str, Path]) -> dict[str, str]:
    """Uploads each file by itself, and returns why files were refused, by name.

    After _MAX_REFUSED_IN_A_ROW refusals, or _PATIENCE_SECONDS, the rest is not tried.
    """
    began = time.monotonic()
    refused_in_a_row = 0
    refused: dict[str, str] = {}
    for name, path in sorted(paths.items(), key=lambda item: _size(item[1])):
        if refused_in_a_row >= _MAX_REFUSED_IN_A_ROW or time.monotonic() - began > _PATIENCE_SECONDS:
            refused[name] = _NOT_TRIED
            continue
        parent = path.parent.relative_to(scratch).as_posix()
        reason = _attempt(lambda: client.log_artifact(run, str(path), None if parent == "." else parent))  # noqa: B023
        if reason is None:
            refused_in_a_row = 0
        else:
            refused_in_a_row += 1
            refused[name] = reason
    return refused


def _attempt(upload: Callable[[], object]) -> str | None:
    """Runs an upload and returns why it failed, in a few words; None if it succeeded."""
    try:
        upload()
    except Exception as exc:
        return redact(f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}")[:200]
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
