"""Writes the report of a study as one page and its figures, from the journal and the files in the study's folder."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.names import utf8
from sr_core.process.output import make_output_folder, write_output
from study.record.events import Event
from study.record.folder import StudyFolder
from study.report.answer import answer
from study.report.cache import Cache
from study.report.cost import cost
from study.report.course import history, learning_curves_section
from study.report.images import images
from study.report.importances import importances
from study.report.kernels import kernels
from study.report.markup import paragraph
from study.report.page import Section, page
from study.report.provenance import provenance, reproduce_section
from study.report.ranking import ranking
from study.report.record import StudyRecord, moment, record_of
from study.report.replicates import replicates
from study.report.space_views import parallel, slices
from study.statistics.verdict import verdict

logger = logging.getLogger(__name__)

MANIFEST = "files.json"
"""File in `figures` with the digest of every file that the report wrote there, by name."""


def write_report(
    folder: StudyFolder,
    events: Iterable[Event],
    *,
    out: Path | None = None,
    data: Path | None = None,
    show: bool = True,
    warn: Callable[[str], None] = logger.warning,
) -> Path:
    """Write the report and return the path of the page.

    Args:
        events: the study's journal.
        out: output folder; by default `report` in the study's folder.
        data: where the study's images are now, if they were moved.
        show: False omits all images.
        warn: called with a sentence about each figure that could not be drawn.
    Raises:
        SuiteError: nothing is recorded yet, or the folder cannot be written.
    """
    record = record_of(folder, events, folder.owner())
    target = out or folder.report.parent
    try:
        make_output_folder(target)
        cache = Cache(target / "cache")
        content, faults = contents(record, data, cache, show)
        for name, file in content.items():
            path = target / name
            path.parent.mkdir(exist_ok=True)
            if not path.is_file() or path.read_bytes() != file:
                write_output(path, file)
        remove_stale(target / "figures", {Path(name).name: file for name, file in content.items() if "/" in name})
        cache.sweep()
    except OSError as exc:
        raise SuiteError(
            f"{target}: the report cannot be written ({exc.strerror}); choose a folder with --out"
        ) from exc
    for fault in faults:
        warn(fault)
    return target / folder.report.name


def remove_stale(figures: Path, content: Mapping[str, bytes]) -> None:
    """Remove figures of scenes or sections that no longer exist, and record which files belong to the report now.

    The folder may hold other files. A file is removed only if an earlier report wrote it and it has not changed since.

    Args:
        content: the files of this report in the folder, by name.
    """
    manifest = figures / MANIFEST
    try:
        recorded = dict(json.loads(manifest.read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # the first report in this folder: no file belongs to it yet
        recorded = {}

    for path in figures.glob("*"):
        stale = path.name in recorded and path.name not in content and path.is_file()
        if stale and _digest(path.read_bytes()) == recorded[path.name]:
            path.unlink()

    text = json.dumps({name: _digest(file) for name, file in sorted(content.items())}, indent=0) + "\n"
    if (content or recorded) and (not manifest.is_file() or manifest.read_text("utf-8") != text):
        write_output(manifest, text.encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def contents(record: StudyRecord, data: Path | None, cache: Cache, show: bool) -> tuple[Mapping[str, bytes], list[str]]:
    """Return the files of the report by their path in its folder, and a sentence about each figure that failed."""
    result = verdict(record.state)
    parts: list[Callable[[], Section]] = [
        lambda: ranking(record),
        lambda: replicates(record, result),
        lambda: images(record, data, cache, show=show),
        lambda: history(record),
        lambda: learning_curves_section(record),
        lambda: importances(record, cache),
        lambda: parallel(record),
        lambda: slices(record),
        lambda: kernels(record, data, cache),
        lambda: cost(record),
        lambda: provenance(record),
        lambda: reproduce_section(record),
    ]
    sections = [part() for part in parts]
    foot = paragraph(
        f"Made by python -m study.report from the {record.state.count:,} events of the study's journal, the last of "
        f"{moment(record.state.last_time)}. The same journal gives the same page."
    )
    text = page(f"{record.opened.study}: report", answer(record, result), sections, foot)
    files = {record.folder.report.name: utf8(text)}
    faults: list[str] = []
    for section in sections:
        files |= section.files
        faults += section.faults
    return files, faults
