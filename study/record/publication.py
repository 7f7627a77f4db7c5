"""`study.sync --publish DIR`: a study's record as others get it, small enough for a repository and without images.

It holds the whole journal, compressed byte for byte, and the tables and sentences of the results; the same for its
longer trainings. All commands that read a study take it by `--root DIR`; none adds to it.
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
"""Of results that are published: images and weights are not."""


def publish(folder: StudyFolder, to: Path) -> list[str]:
    """Write the record below `to`, or bring one that is there up to date; returns lines that say what was written.

    Raises:
        SuiteError: another study of that name, or a later state of it, is there, or nothing can be written.
    """
    target = StudyFolder(to.expanduser().resolve(), folder.study)
    if target.path == folder.path:
        raise SuiteError(f"--publish {to}: that is the study's own --root; name another folder")
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
    sizes = [path.stat().st_size for path in written]
    return [
        f"published {state.count} events of study {folder.study}{'' if state.complete else ' (not complete)'} in "
        f"{target.path}: {len(written)} files, {sum(sizes) / 1e6:.2f} MB",
        *(f"  {path.relative_to(target.path)}  {size} bytes" for path, size in zip(written, sizes, strict=True)),
        f"next: python -m study.reproduce best --root {shlex.quote(str(target.root))} --study-name {folder.study}",
    ]


def _check(target: StudyFolder, state: StudyState) -> None:
    """Raises SuiteError where what is there would be lost."""
    assert state.opened is not None
    if not target.journal.is_file():
        return
    there = fold(read(target.journal))
    if not target.published:
        raise SuiteError(f"{target.journal}: a study goes on there; publish into another folder")
    if there.opened is None or study_id(there.opened) != study_id(state.opened):
        raise SuiteError(
            f"{target.journal}: another study of this name is published there; remove it, or choose another"
        )
    if there.count > state.count:
        raise SuiteError(f"{target.journal}: holds {there.count} events, this study only {state.count}; it is kept")


def _files(source: StudyFolder, target: StudyFolder) -> Iterator[tuple[Path, bytes]]:
    concluded = fold(read(source.journal)).concluded
    for name, path in source.written(concluded.files if concluded is not None else ()).items():
        if path.suffix in _SUFFIXES:
            yield target.path / name, path.read_bytes()
    yield target.path / "journal.jsonl.gz", compressed(source.journal)  # last: it makes a record of the folder
