"""`study.sync --publish DIR` writes a study's record for others, without images and small enough for a repository.

The published record holds the complete compressed journal and the tables and texts of the results, also of the study's
longer trainings. Every command that reads a study accepts it with `--root DIR`. No command changes it.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.output import write_output
from study.record.folder import StudyFolder
from study.record.journal import compressed, read, study_id
from study.record.state import StudyState, fold

_SUFFIXES = (".csv", ".txt", ".json")
"""Suffixes of the results that are published. Images and weights are not."""


def publish(folder: StudyFolder, to: Path) -> list[str]:
    """Write the record into the folder `to`, or update the one that is there.

    Returns:
        Lines for the terminal that say what was written.
    Raises:
        SuiteError: the folder holds another study of this name or a later state of this one, or it cannot be written.
    """
    target = StudyFolder(to.expanduser().resolve(), folder.study)
    if target.path == folder.path:
        raise SuiteError(f"--publish {to}: this is the study's own --root; name another folder")
    state = fold(read(folder.journal))
    _check(target, state)
    written: list[Path] = []
    try:
        for source in (folder, *folder.trainings()):
            for path, content in _files(source, StudyFolder(target.root, folder.study, source.training)):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_output(path, content)
                written.append(path)
    except OSError as exc:
        raise SuiteError(f"--publish {to}: cannot be written ({exc.strerror or exc}); choose another folder") from exc

    sizes = {path: path.stat().st_size for path in written}
    incomplete = "" if state.complete else " (not complete)"
    return [
        f"published {state.count} events of study {folder.study}{incomplete} in {target.path}: {len(written)} files, "
        f"{sum(sizes.values()) / 1e6:.2f} MB",
        *(f"  {path.relative_to(target.path)}  {size} bytes" for path, size in sizes.items()),
        f"next: python -m study.reproduce best --root {shlex.quote(str(target.root))} --study-name {folder.study}",
    ]


def _check(target: StudyFolder, state: StudyState) -> None:
    """Raise SuiteError if publishing would overwrite another study or a later state of this one."""
    opened = state.opening
    if not target.journal.is_file():
        return
    published = fold(read(target.journal))
    if not target.published:
        raise SuiteError(f"{target.journal}: this folder holds an unpublished study; publish into another folder")
    if published.opened is None or study_id(published.opened) != study_id(opened):
        raise SuiteError(
            f"{target.journal}: another study of this name is published there; remove it, or choose another folder"
        )
    if published.count > state.count:
        raise SuiteError(
            f"{target.journal}: the published record has {published.count} events, this study only {state.count}; "
            "the published record was not changed"
        )


def _files(source: StudyFolder, target: StudyFolder) -> Iterator[tuple[Path, bytes]]:
    """Every file to publish, with its content."""
    concluded = fold(read(source.journal)).concluded
    for name, path in source.written(concluded.files if concluded is not None else ()).items():
        if path.suffix in _SUFFIXES:
            yield target.path / name, path.read_bytes()
    yield target.path / "journal.jsonl.gz", compressed(source.journal)  # last: only with it is the folder a record
