"""Files on their way to a tracker; one that is refused keeps no other from arriving, and is tried again later."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from sr_core.process.redaction import redact
from study.tracking.mlflow.names import legal_path

Files = Mapping[str, str | bytes | Path]
"""Path in the run's artifacts -> what it holds, or the file to copy."""


class Client(Protocol):
    """What a tracker's client does with files, as MLflow's does."""

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> object: ...

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> object: ...


MISSING = "study.files_missing"
"""Tag of a run that lacks files; how many, and the name of one."""
_PATIENCE_SECONDS = 20.0
"""How long a tracker that refuses files may keep numbers waiting, in one attempt."""
_REFUSED_IN_A_ROW = 3
_NOT_TRIED = "not tried, because others were refused"


def send(client: Client, run: str, files: Files) -> dict[str, str]:
    """Put files into a run's artifacts, in one call; if that fails, each by itself, the smallest first.

    Returns:
        Why a file was refused, by its name. Whatever a storage raises is such a reason: each has errors of its own.
    """
    if not files:
        return {}
    with TemporaryDirectory(prefix="artifacts-") as scratch:
        places = _laid_out(Path(scratch), files)
        if _attempt(lambda: client.log_artifacts(run, scratch)) is None:
            return {}
        return _one_by_one(client, run, Path(scratch), places)


def _laid_out(scratch: Path, files: Files) -> dict[str, Path]:
    """The files as they shall lie in the artifacts, by name; those to be copied are links."""
    places = {}
    for name, given in files.items():
        place = scratch / legal_path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(given, Path):
            place.symlink_to(given.resolve())  # MLflow copies what it points to
        else:
            place.write_bytes(given.encode("utf-8", "backslashreplace") if isinstance(given, str) else given)
        places[name] = place
    return places


def _one_by_one(client: Client, run: str, scratch: Path, places: Mapping[str, Path]) -> dict[str, str]:
    began, in_a_row, refused = time.monotonic(), 0, dict[str, str]()
    for name, place in sorted(places.items(), key=lambda item: _size(item[1])):
        if in_a_row >= _REFUSED_IN_A_ROW or time.monotonic() - began > _PATIENCE_SECONDS:
            refused[name] = _NOT_TRIED
            continue
        above = place.parent.relative_to(scratch).as_posix()
        why = _attempt(lambda: client.log_artifact(run, str(place), None if above == "." else above))  # noqa: B023
        in_a_row = 0 if why is None else in_a_row + 1
        if why is not None:
            refused[name] = why
    return refused


def _attempt(upload: Callable[[], object]) -> str | None:
    """Why an upload failed, in a few words; None if it did not."""
    try:
        upload()
    except Exception as exc:
        return redact(f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}")[:200]
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
