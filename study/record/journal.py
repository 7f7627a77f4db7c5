"""The record of a study: append-only JSON lines with one writer and a checksum per line (promise 3).

A line is the JSON of an event. Its first key is the sequence number. Its last key is the checksum: 16 hex digits of
BLAKE2b over everything before it. If a kill cuts the last line short, readers ignore that line and the next writer
removes it. A damaged line anywhere else is an error, because the lines after it may depend on it. A published journal
is a gzip file (`.gz`) with the same lines. It is only read, never written to.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from sr_core.errors import SuiteError, TakenOverError
from sr_core.process.durable import sync_folder
from study.question.config import short_digest
from study.record import events
from study.record.events import Event, StudyOpened, to_json

_parse = json.JSONDecoder().raw_decode
"""A faster json.loads for short lines: it skips the checks that take half of the time."""


class JournalError(SuiteError):
    """The record is damaged or has another format."""


class UnknownJournalError(JournalError):
    """The record has a format that this version does not know. Its content may still be intact."""


class TornLineError(ValueError):
    """A line does not match its checksum, because writing it was interrupted or it was damaged."""


def encode(seq: int, event: Event) -> bytes:
    """One line of the journal, including the newline.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot express.
    """
    content = json.dumps({"seq": seq, **events.to_json(event)}, separators=(",", ":"), allow_nan=False)
    body = content[:-1].encode()
    return body + b',"sum":"' + _checksum(body) + b'"}\n'


def decode(line: bytes) -> tuple[int, Event]:
    """The sequence number and the event of one line.

    Args:
        line: one line, including the newline.
    Raises:
        TornLineError: the line is damaged or incomplete.
        UnknownFormatError: it is the first line of a journal in a format that this version does not know.
        ValueError: the line is intact, but it is not an event of this format.
    """
    body, mark, rest = line.rpartition(b',"sum":"')
    if not mark or rest != _checksum(body) + b'"}\n':
        raise TornLineError("does not match its checksum")
    try:
        text = body.decode() + "}"
        content, end = _parse(text)
        if end != len(text):
            raise ValueError("has more than one JSON object")
        return content.pop("seq"), events.from_json(content)
    except (KeyError, TypeError) as exc:
        raise ValueError(f"is not an event of format {events.FORMAT} ({exc})") from exc


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


@dataclass
class JournalPosition:
    """How much of a journal has been read."""

    count: int = 0
    """Number of events."""
    end: int = 0
    """Length of their lines in bytes."""


def read(path: Path, place: JournalPosition | None = None) -> Iterator[Event]:
    """Iterate over the events of a journal. The journal may be written to at the same time.

    Args:
        place: is updated after each event.
    Raises:
        JournalError: a line before the last is damaged, out of sequence, or in another format.
    """
    for event, end in _lines(path):
        if place is not None:
            place.count += 1
            place.end = end
        yield event


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a journal, compressed or not, as a file of lines.

    Raises:
        JournalError: the compressed file is damaged.
    """
    try:
        with path.open("rb") as file:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise JournalError(f"{path}: the file is damaged or incomplete ({exc}); restore the file from a copy") from exc


def compressed(path: Path) -> bytes:
    """The content of a gzip file with the complete lines of a journal. Equal lines give equal bytes.

    Raises:
        JournalError: as `read` does.
    """
    ends = [end for _, end in _lines(path)]
    with opened(path) as file:
        return gzip.compress(file.read(ends[-1] if ends else 0), mtime=0)


def _lines(path: Path) -> Iterator[tuple[Event, int]]:
    """Every event with the offset in bytes of the end of its line. Stops silently at a torn last line."""
    end = 0
    with opened(path) as file:
        torn: str | None = None
        for number, line in enumerate(file):
            if torn:
                raise JournalError(torn)
            if not line.endswith(b"\n"):
                return  # torn or just being written; what may follow now is the rest of this line, not a new one
            try:
                seq, event = decode(line)
            except TornLineError as exc:
                # A power cut can damage the last line. If another line follows, this was not the last: an error.
                torn = f"{path}: line {number + 1} {exc}; restore the file from a copy"
                continue
            except events.UnknownFormatError as exc:
                raise UnknownJournalError(f"{path}: {exc}") from exc
            except ValueError as exc:
                raise JournalError(f"{path}: line {number + 1} {exc}") from exc
            if seq != number:
                raise JournalError(
                    f"{path}: line {number + 1} has sequence number {seq}, expected {number}; restore the file from a "
                    "copy"
                )
            end += len(line)
            yield event, end


class Journal:
    """The only writer of a study's record. A process must own the study to open it.

    Args:
        guard: raises TakenOverError if the study has another owner by now. It is called before and after each line.
        read_to: the end of the journal, if the owner has read all of it already.
    """

    def __init__(
        self, path: Path, guard: Callable[[], None] = lambda: None, read_to: JournalPosition | None = None
    ) -> None:
        assert path.suffix != ".gz", "a published journal is read-only (StudyFolder.require_unpublished)"
        self._path = path
        self._guard = guard
        if read_to is None:
            read_to = JournalPosition()
            if path.exists():
                deque(read(path, read_to), maxlen=0)
        self._next = read_to.count
        self._end = read_to.end
        self._file = _open_to_append(path)
        try:
            # After opening: a new owner replaces the journal by a copy, so a file opened before that is never read.
            guard()
            sync_folder(path.parent)
            self._drop_torn_tail()
        except BaseException:
            self._file.close()
            raise

    def append(self, event: Event) -> None:
        """Write an event. When this returns, the event is on the disk and the next owner of the study reads it.

        This holds for validations, too. If a checkpoint survived a power cut and the validation before it did not, that
        point of the curve would be lost.

        Raises:
            TakenOverError: the study has another owner, or another process has written to its journal. The line then
                does not count: it was not written, or it is up to the new owner whether it stays.
        """
        line = encode(self._next, event)
        self._guard()
        self._check_end(self._end)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._check_end(self._end + len(line))
        self._guard()  # again: this process may have been suspended since the first check
        self._next += 1
        self._end += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _drop_torn_tail(self) -> None:
        """Remove what a kill left after the last complete line."""
        size = self._size()
        if size == self._end:
            return
        if size < self._end or self._has_another_line():
            self._check_end(self._end)
        os.ftruncate(self._file.fileno(), self._end)
        os.fsync(self._file.fileno())
        self._guard()

    def _has_another_line(self) -> bool:
        """True if a complete line follows the last one read: another process wrote it, and it is not a torn tail."""
        with self._path.open("rb") as file:
            file.seek(self._end)
            line = file.readline()
        if not line.endswith(b"\n"):
            return False
        try:
            return decode(line)[0] == self._next
        except ValueError:
            return False

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _check_end(self, expected: int) -> None:
        """Raise TakenOverError unless the journal ends with this owner's last line."""
        size = self._size()
        if size != expected:
            self._guard()  # its message names the other owner, if there is one
            raise TakenOverError(
                f"{self._path}: expected {expected} bytes, found {size}: another process has written to this journal; "
                "end that process, then start again; this process has stopped"
            )


def _open_to_append(path: Path) -> BinaryIO:
    """Open a file for appending and create it if needed. O_APPEND makes sure that no line is ever overwritten."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    if not path.exists():
        flags |= os.O_CREAT | os.O_EXCL
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def study_id(opened: StudyOpened) -> str:
    """A digest (16 hex digits) that identifies a study, even among studies of the same name and in moved folders."""
    return short_digest(to_json(opened))
