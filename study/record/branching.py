"""Studies that were copied or renamed: recognised by the name in their record, and given an identity of their own.

Trackers know a study by its identity, a digest of the record's first line. Two folders with the same first line would
write into the same runs, so a folder continues only under the name that its record has. Branching rewrites that line.
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
_NOT_COPIED = {"lock", "owners", "trainings", *_STANDINGS}
"""At the top of a study's folder: who owns it, trainings with a record of their own, how far its views are."""


def require_own_name(folder: StudyFolder) -> None:
    """Raises SuiteError if the folder was renamed, or copied from another study's."""
    study = replace(folder, training="")
    opened = next(read(study.journal), None) if study.journal.exists() else None
    if not isinstance(opened, StudyOpened) or opened.study == folder.study:
        return
    raise SuiteError(
        f"{study.path}: this is the record of study {opened.study!r}, so the folder was renamed or copied; rename it "
        f"back to {opened.study}, or make it a study of its own: python -m study.branch {folder.study} --root "
        f"{folder.root} --study-name {folder.study}"
    )


def branch(source: StudyFolder, target: StudyFolder) -> list[str]:
    """Copy the study, or rename it in place if source and target are one folder; lines that say what was done.

    Raises:
        SuiteError: the source is published or owned by a live process, the target exists, or it cannot be written.
    """
    source.require_unpublished()
    if (owner := source.owner()) is not None:
        raise SuiteError(f"study {source.study!r} is owned by {owner}; stop that session first, then branch")
    size = source.journal.stat().st_size
    events = list(read(source.journal))
    opened = events[0] if events else None
    if not isinstance(opened, StudyOpened):
        raise SuiteError(f"{source.journal}: nothing is recorded yet; run the study first")
    in_place = target.path == source.path
    if in_place and opened.study == target.study:
        raise SuiteError(f"study {target.study!r} has that name already; give another one")
    if not in_place and target.path.exists():
        raise SuiteError(f"{target.path}: exists already; give another name")
    origin = {"study": opened.study, "id": study_id(opened), "events": len(events), "time": time.time()}
    renamed = replace(opened, study=target.study, data={**opened.data, "branched_from": origin})
    try:
        if in_place:
            _rename(source, renamed)
        else:
            _copy(source, target, _lines([renamed, *events[1:]]), size)
    except OSError as exc:
        raise SuiteError(f"{target.path}: cannot be written ({exc.strerror or exc}); make room and try again") from exc
    return [f"study {target.study!r}: {len(events):,} events of study {opened.study!r}, in {target.path}"]


def _rename(folder: StudyFolder, renamed: StudyOpened) -> None:
    """The longer trainings go along, before the study: what a kill leaves half done is done by the same command."""
    trainings = folder.trainings()
    with ExitStack() as owned:
        for one in (folder, *trainings):
            owned.enter_context(one.owned())
        for training in trainings:
            _rename_training(training, renamed)
        _begin_with(folder, renamed)


def _rename_training(training: StudyFolder, study: StudyOpened) -> None:
    """Let a training be one of the renamed study: a copy's would go on in the runs of the original's."""
    opened = next(read(training.journal), None)
    if not isinstance(opened, StudyOpened) or training.journal.suffix == ".gz":
        return
    of = {**opened.question["training"], "study": study_id(study)}
    question = {**opened.question, "training": of}
    _begin_with(training, replace(opened, study=study.study, question=question, digest=short_digest(question)))


def _begin_with(folder: StudyFolder, opened: StudyOpened) -> None:
    """Replace the record's first line; the views are shown all of it again."""
    _, *rest = read(folder.journal)
    for name in _STANDINGS:
        (folder.path / name).unlink(missing_ok=True)
    write_durably(folder.journal, _lines([opened, *rest]))


def _lines(events: Sequence[Event]) -> bytes:
    return b"".join(encode(number, event) for number, event in enumerate(events))


def _copy(source: StudyFolder, target: StudyFolder, journal: bytes, size: int) -> None:
    """The target appears whole or not at all.

    Args:
        size: of the source's journal in bytes, when it was read.
    """
    aside = Path(tempfile.mkdtemp(prefix=f".{target.study}.", dir=target.root))
    try:
        for path in _files(source.path):
            place = aside / path.relative_to(source.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
        write_durably(aside / source.journal.name, journal)
        if source.owner() is not None or source.journal.stat().st_size != size:
            # A checkpoint may be copied that is ahead of the copied record, which then lacks a validation for good.
            raise SuiteError(
                f"study {source.study!r} went on while it was copied; stop that session first, then branch"
            )
        aside.chmod(source.path.stat().st_mode & 0o777)
        aside.rename(target.path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below the folder that belong to the record; links lead elsewhere and stay."""
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in _NOT_COPIED]
            names = [name for name in names if name not in _NOT_COPIED and not name.startswith("journal.jsonl")]
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and not name.endswith(".writing"):
                yield path
