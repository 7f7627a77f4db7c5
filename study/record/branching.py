"""Recognises studies that were copied or renamed by the name in their record, and gives them their own identity.

Trackers identify a study by a digest of its record's first line. Two folders with the same first line would write into
the same runs. Therefore a folder can only be continued under the name in its record. Branching rewrites that line.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.durable import write_durably
from study.question.config import short_digest
from study.record.events import Event, StudyOpened
from study.record.folder import StudyFolder
from study.record.journal import encode, read, study_id

_STANDINGS = (".mlflow.json", ".optuna.json")
"""The files that hold the state of the study's views (`study.record.standing`)."""
_NOT_COPIED = {"lock", "owners", "trainings", *_STANDINGS}
"""Entries of a study's folder that a branch does not get: ownership, longer trainings and the state of its views."""


def require_own_name(folder: StudyFolder) -> None:
    """Check that the study's folder has the name in its record.

    Raises:
        SuiteError: the folder was renamed, or copied from another study.
    """
    study = replace(folder, training="")
    opened = next(read(study.journal), None) if study.journal.exists() else None
    if not isinstance(opened, StudyOpened) or opened.study == folder.study:
        return
    raise SuiteError(
        f"{study.path}: this folder was renamed or copied, it holds the record of study {opened.study!r}; rename it "
        f"back to {opened.study}, or turn it into a separate study: python -m study.branch {folder.study} --root "
        f"{folder.root} --study-name {folder.study}"
    )


def branch(source: StudyFolder, target: StudyFolder) -> list[str]:
    """Copy a study under a new name. If source and target are the same folder, rename the study in place.

    Returns:
        Lines for the terminal that say what was done.
    Raises:
        SuiteError: the source is published or owned by a live process, the target exists, or it cannot be written.
    """
    source.require_unpublished()
    owner = source.owner()
    if owner is not None:
        raise SuiteError(f"study {source.study!r} is owned by {owner}; stop that session first, then branch")
    size = source.journal.stat().st_size
    events = list(read(source.journal))
    opened = events[0] if events else None
    if not isinstance(opened, StudyOpened):
        raise SuiteError(f"{source.journal}: the record is empty; run the study first")
    in_place = target.path == source.path
    if in_place and opened.study == target.study:
        raise SuiteError(f"study {target.study!r} already has that name; choose another one")
    if not in_place and target.path.exists():
        raise SuiteError(f"{target.path}: already exists; choose another name")
    origin = {"study": opened.study, "id": study_id(opened), "events": len(events), "time": time.time()}
    renamed = replace(opened, study=target.study, data={**opened.data, "branched_from": origin})
    try:
        if in_place:
            _rename(source, renamed)
        else:
            _copy(source, target, _lines([renamed, *events[1:]]), size)
    except OSError as exc:
        raise SuiteError(
            f"{target.path}: cannot be written ({exc.strerror or exc}); free some space and try again"
        ) from exc
    return [f"study {target.study!r}: {len(events):,} events of study {opened.study!r}, in {target.path}"]


def _rename(folder: StudyFolder, renamed: StudyOpened) -> None:
    """Rename the longer trainings and then the study. If a kill interrupts this, the same command completes it."""
    trainings = folder.trainings()
    with ExitStack() as owned:
        for record in (folder, *trainings):
            owned.enter_context(record.owned())
        for training in trainings:
            _rename_training(training, renamed)
        _begin_with(folder, renamed)


def _rename_training(training: StudyFolder, study: StudyOpened) -> None:
    """Make a longer training belong to the renamed study. Otherwise it would continue in the original's runs."""
    opened = next(read(training.journal), None)
    if not isinstance(opened, StudyOpened) or training.journal.suffix == ".gz":
        return
    origin = {**opened.question["training"], "study": study_id(study)}
    question = {**opened.question, "training": origin}
    _begin_with(training, replace(opened, study=study.study, question=question, digest=short_digest(question)))


def _begin_with(folder: StudyFolder, opened: StudyOpened) -> None:
    """Replace the first line of the record. The views then start again from the beginning."""
    _, *rest = read(folder.journal)
    for name in _STANDINGS:
        (folder.path / name).unlink(missing_ok=True)
    write_durably(folder.journal, _lines([opened, *rest]))


def _lines(events: Sequence[Event]) -> bytes:
    return b"".join(encode(number, event) for number, event in enumerate(events))


def _copy(source: StudyFolder, target: StudyFolder, journal: bytes, size: int) -> None:
    """Copy the study's folder. The target appears only when it is complete.

    Args:
        journal: the content of the target's journal.
        size: bytes of the source's journal when it was read.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.study}.", dir=target.root))
    try:
        for path in _files(source.path):
            copy = temporary / path.relative_to(source.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        write_durably(temporary / source.journal.name, journal)
        if source.owner() is not None or source.journal.stat().st_size != size:
            # A copied checkpoint may be ahead of the copied record, which would then lack a validation for good.
            raise SuiteError(
                f"study {source.study!r} continued while it was copied; stop that session first, then branch"
            )
        temporary.chmod(source.path.stat().st_mode & 0o777)
        temporary.rename(target.path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _files(folder: Path) -> Iterator[Path]:
    """The regular files in the folder that a copy needs. Links are skipped, because they lead out of the folder."""
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in _NOT_COPIED]
            names = [name for name in names if name not in _NOT_COPIED and not name.startswith("journal.jsonl")]
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and not name.endswith(".writing"):
                yield path
