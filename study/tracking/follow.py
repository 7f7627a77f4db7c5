"""Keeping views of the journal up to date.

MLflow and Optuna's database are views (promise 3). A view remembers how many of the journal's events it holds. Its
keeper reads on from there and hands over the rest. A tracker that is slow or down therefore delays nothing and costs
no memory. A view that was deleted is rebuilt by reading from the start.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from sr_core.process.locks import lock
from study.record.events import Event, StudyOpened
from study.record.folder import JOURNALS, StudyFolder
from study.record.journal import study_id
from study.record.ownership import is_at
from study.record.standing import Standing
from study.record.state import StudyState
from study.record.tail import BATCH, Reading, Tail
from study.tracking.databases import ViewError


class Sink(Protocol):
    """One view of the journal, in the user's tool."""

    name: str
    where: str
    """The store's address for people to read, without a password."""

    def prepare(self) -> None:
        """Creates the store if it is an embedded one. `open` does this too, as its first step."""

    def open(self, opened: StudyOpened) -> int:
        """Connects, creates what is missing, and returns how many of the journal's events the view already holds.

        May raise any exception of a tracker that is down. ViewError reads best in the foreground. The keeper calls
        `open` again later, also after a failed `take`.
        """

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """Shows these events. Idempotent, because events that a kill interrupted come again.

        Args:
            state: the fold up to and including the last of these events.
            upto: what `open` may return once the view holds these events. A smaller number is safe: the events
                after it come again.
        """

    def close(self) -> None:
        """Closes the connections."""


def require_own(folder: StudyFolder, opened: StudyOpened, owner: str) -> None:
    """Raises ViewError if a view's runs belong to another folder of the root, and this folder is a copy of that one.

    A folder that was renamed keeps its runs.

    Args:
        owner: the name of the folder from which the view was written.
    """
    if owner == folder.study or Path(owner).name != owner:
        return
    original = folder.root / owner / JOURNALS[0]
    first = Tail(original).read(1) if original.is_file() else []
    if first and isinstance(first[0], StudyOpened) and study_id(first[0]) == study_id(opened):
        raise ViewError(
            f"{folder.path} is a copy of {original.parent}, which owns the runs of this study; nothing is written to "
            "them: continue that study, or start one under another name"
        )


class Keeper:
    """Hands a journal to one sink, batch by batch. A lock keeps other keepers of the same view out.

    Args:
        reading: the journal's reading, if keepers of other views share it.
    """

    def __init__(self, journal: Path, sink: Sink, reading: Reading | None = None) -> None:
        self._journal = journal
        self._sink = sink
        self._reading = reading or Reading(journal)
        self._tail: Tail | None = None
        self._lock: IO[str] | None = None
        self._lock_path = journal.with_name(f".{sink.name}.lock")
        self.offset = 0
        """Bytes of the journal that the view is known to hold."""
        self.count = 0
        """Events of the journal that the view is known to hold."""

    def advance(self) -> int:
        """Hands over the next batch and returns its number of events, 0 at the end of the journal.

        After an exception, the next call connects again and continues from what the view then holds.
        """
        try:
            if self._lock is not None and not is_at(self._lock, self._lock_path):
                raise ViewError(f"{self._lock_path}: another process took over the study, and writes this view now")
            if self._tail is None and not self._open():
                return 0
            assert self._tail is not None
            events = self._tail.read(BATCH)
            if events:
                self._sink.take(events, self._tail.state, self._tail.count)
            self.offset = self._tail.offset
            self.count = self._tail.count
        except BaseException:
            self.close()
            raise
        return len(events)

    def close(self) -> None:
        """Closes the view and releases its lock."""
        self._tail = None
        try:
            self._sink.close()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _open(self) -> bool:
        """Connects and reads up to what the view holds. Returns False if the journal has no event yet."""
        tail = Tail(self._journal, self._reading)
        if not tail.read(1):
            return False
        assert tail.state.opened is not None
        self._lock = _only_keeper(self._lock_path)
        events_held = self._sink.open(tail.state.opened)
        tail.skip_to(events_held)
        # A view can hold more than the journal if a power cut took the journal's end. Then everything is shown again.
        self._tail = tail if tail.count == events_held else Tail(self._journal, self._reading)
        return True


def _only_keeper(path: Path) -> IO[str]:
    """Returns a file whose lock ends with the file or the process.

    On a file system without locks, the study's ownership alone keeps other keepers out.

    Raises:
        ViewError: another process holds the lock, or the file cannot be written.
    """
    try:
        file = path.open("a")
    except OSError as exc:
        raise ViewError(f"{path}: cannot be written ({exc.strerror}); choose a writable folder") from exc
    if lock(file) == "theirs":
        file.close()
        raise ViewError(f"{path}: another process keeps this view up to date; wait until it ends")
    return file


@contextmanager
def keeping(journal: Path, sink: Sink, reading: Reading | None = None) -> Iterator[Keeper]:
    """Yields a keeper of the view, and closes it after the block."""
    keeper = Keeper(journal, sink, reading)
    try:
        yield keeper
    finally:
        keeper.close()


def sync(journal: Path, sink: Sink, report: Callable[[int], None] | None = None) -> int:
    """Brings a view up to date now, and returns how many events it lacked.

    Args:
        report: called after each batch with the number of events handed over so far.
    """
    total = 0
    began = time.perf_counter()
    cpu_began = time.thread_time()
    with keeping(journal, sink) as keeper:
        while count := keeper.advance():
            total += count
            if report:
                report(total)

    standing = Standing(
        time=time.time(),
        events=keeper.count,
        busy_seconds=time.perf_counter() - began,
        cpu_seconds=time.thread_time() - cpu_began,
    )
    standing.save(journal, sink.name, sink.where)
    return total
