"""The report of a study, from its journal and what else there is of it, written as one page and its figures."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sr_core.durable import write_durably
from sr_core.errors import SuiteError
from study.events import Event
from study.folder import StudyFolder
from study.report.answer import answer
from study.report.cache import Cache
from study.report.cost import cost
from study.report.course import history, learning_curves
from study.report.importances import importances
from study.report.kernels import kernels
from study.report.markup import paragraph
from study.report.page import Section, page
from study.report.pictures import pictures
from study.report.provenance import provenance, reproduce
from study.report.ranking import ranking
from study.report.record import Record, moment, record_of
from study.report.replicates import replicates
from study.report.space_views import parallel, slices
from study.verdict import verdict


def write_report(
    folder: StudyFolder,
    events: Iterable[Event],
    *,
    out: Path | None = None,
    data: Path | None = None,
    show: bool = True,
) -> Path:
    """Write the report; the page's path.

    Args:
        events: the study's journal.
        out: where to; by default the study's folder `report`.
        data: where the study's pictures are now, if they moved.
        show: whether parts of the pictures may be in it.
    Raises:
        SuiteError: nothing was recorded yet, or the folder cannot be written.
    """
    record = record_of(folder, events, folder.owner())
    target = out or folder.report.parent
    try:
        target.mkdir(parents=True, exist_ok=True)
        cache = Cache(target / "cache")
        content = contents(record, data, cache, show)
        for name, file in content.items():
            path = target / name
            path.parent.mkdir(exist_ok=True)
            if not path.is_file() or path.read_bytes() != file:
                write_durably(path, file)
        for path in (target / "figures").glob("*"):  # of a scene or section that is no longer there
            if f"figures/{path.name}" not in content and path.suffix in (".png", ".csv"):
                path.unlink()
        cache.sweep()
    except OSError as exc:
        raise SuiteError(
            f"{target}: the report cannot be written ({exc.strerror}); choose a folder with --out"
        ) from exc
    return target / folder.report.name


def contents(record: Record, data: Path | None, cache: Cache, show: bool) -> Mapping[str, bytes]:
    """The files of the report by their path in its folder."""
    told = verdict(record.state)
    parts: list[Callable[[], Section]] = [
        lambda: ranking(record),
        lambda: replicates(record, told),
        lambda: pictures(record, data, cache, show=show),
        lambda: history(record),
        lambda: learning_curves(record),
        lambda: importances(record, cache),
        lambda: parallel(record),
        lambda: slices(record),
        lambda: kernels(record, data, cache),
        lambda: cost(record),
        lambda: provenance(record),
        lambda: reproduce(record),
    ]
    sections = [part() for part in parts]
    foot = paragraph(
        f"Made by python -m study.report from {record.state.count:,} events of the study's journal, the last one of "
        f"{moment(record.state.last_time)}. The same journal gives the same page."
    )
    text = page(f"{record.opened.study}: report", answer(record, told), sections, foot)
    return {record.folder.report.name: text.encode()} | {
        name: file for section in sections for name, file in section.files.items()
    }
