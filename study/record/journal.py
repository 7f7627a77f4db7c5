"""The record of a study: append-only JSON lines, one writer, a checksum per line (contract 3).

A line is the event's JSON with its sequence number first and, last, 16 hex digits of BLAKE2b over everything
before them. A tail that a kill tore is dropped by the next writer and ignored by readers; a damaged line
anywhere else is an error, because what follows it would be interpreted without it. A journal that was published is
the same lines in a gzip file (`.gz`): readers unpack it on the way, and nobody writes to it.
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
"""What json.loads does, without what takes it half its time on a short line."""


class JournalError(SuiteError):
    """The record is damaged or of another format."""


class UnknownJournalError(JournalError):
    """The record is of a format that this version does not know, which says nothing about its content."""


class TornLineError(ValueError):
    """A line does not match its checksum: its writing was cut short, or it was damaged."""


def encode(seq: int, event: Event) -> bytes:
    """One line of the journal, newline included. Raises ValueError for NaN and infinities: JSON has none."""
    content = json.dumps({"seq": seq, **events.to_json(event)}, separators=(",", ":"), allow_nan=False)
    body = content[:-1].encode()
    return body + b',"sum":"' + _checksum(body) + b'"}\n'


def decode(line: bytes) -> tuple[int, Event]:
    """(sequence number, event) of one line, newline included.

    Raises:
        TornLineError: it is not what was written, or not all of it.
        UnknownFormatError: it is the first line of a journal that this version does not know.
        ValueError: it is, and no event of this format.
    """
    body, mark, rest = line.rpartition(b',"sum":"')
    if not mark or rest != _checksum(body) + b'"}\n':
        raise TornLineError("does not match its checksum")
    try:
        text = body.decode() + "}"
        content, end = _parse(text)
        if end != len(text):
            raise ValueError("has more than one object")
        return content.pop("seq"), events.from_json(content)
    except (KeyError, TypeError) as exc:
        raise ValueError(f"is no event of format {events.FORMAT} ({exc})") from exc


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


@dataclass
class JournalPosition:
    """How far a journal was read."""

    count: int = 0
    """Events."""
    end: int = 0
    """Bytes of their lines."""


def read(path: Path, place: JournalPosition | None = None) -> Iterator[Event]:
    """The events of a journal, also while it is being written; `place` is moved along.

    Raises:
        JournalError: a line before the last is damaged, out of sequence, or of another format.
    """
    for event, end in _lines(path):
        if place is not None:
            place.count, place.end = place.count + 1, end
        yield event


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The lines of a journal, compressed or not, as a file. Raises JournalError where its compression is damaged."""
    try:
        with path.open("rb") as file:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise JournalError(f"{path}: is damaged or was cut short ({exc}); restore the file from a copy") from exc


def compressed(path: Path) -> bytes:
    """A journal's whole lines, byte for byte, as the content of a gzip file; the same for the same lines.

    Raises:
        JournalError: as `read` does.
    """
    ends = [end for _, end in _lines(path)]
    with opened(path) as file:
        return gzip.compress(file.read(ends[-1] if ends else 0), mtime=0)


def _lines(path: Path) -> Iterator[tuple[Event, int]]:
    """Each event with the offset after its line; ends silently at a torn tail."""
    end = 0
    with opened(path) as file:
        torn: str | None = None
        for number, line in enumerate(file):
            if torn:
                raise JournalError(torn)
            if not line.endswith(b"\n"):
                return  # torn, or being written this moment: then the rest of it is no line after it
            try:
                seq, event = decode(line)
            except TornLineError as exc:
                # A power cut may tear the last line too; that it was not the last shows with the next one.
                torn = f"{path}: line {number + 1} {exc}; restore the file from a copy"
                continue
            except events.UnknownFormatError as exc:
                raise UnknownJournalError(f"{path}: {exc}") from exc
            except ValueError as exc:
                raise JournalError(f"{path}: line {number + 1} {exc}") from exc
            if seq != number:
                raise JournalError(
                    f"{path}: line {number + 1} has sequence number {seq} where {number} was expected; "
                    "restore the file from a copy"
                )
            end += len(line)
            yield event, end


class Journal:
    """The one writer of a study's record. Open it only while owning the study.

    Args:
        guard: raises if the study belongs to another owner by now; asked before and after each line.
        read_to: where the reading of the whole journal ended, if its owner has read it already.
    """

    def __init__(
        self, path: Path, guard: Callable[[], None] = lambda: None, read_to: JournalPosition | None = None
    ) -> None:
        assert path.suffix != ".gz", "a published journal is only read (StudyFolder.require_unpublished)"
        self._path, self._guard = path, guard
        if read_to is None:
            read_to = JournalPosition()
            if path.exists():
                deque(read(path, read_to), maxlen=0)
        self._next, self._end = read_to.count, read_to.end
        self._file = _open_to_append(path)
        try:
            guard()  # only now: a new owner puts a copy in its place, so no process reads what was opened before that
            sync_folder(path.parent)
            self._drop_torn_tail()
        except BaseException:
            self._file.close()
            raise

    def append(self, event: Event) -> None:
        """Write the event; when this returns it is on the disk, and the next owner of the study reads it.

        Validations too: a checkpoint that outlived the line before it in a power cut would lose that point for good.

        Raises:
            TakenOverError: the study belongs to another owner, or another process wrote to its journal. Then the line
                does not count: either it was not written, or the process that has the study decides about it.
        """
        line = encode(self._next, event)
        self._guard()
        self._check_end(self._end)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._check_end(self._end + len(line))
        self._guard()  # asked again: this process may have been stopped since the first time
        self._next += 1
        self._end += len(line)

    def close(self) -> None:
        self._file.close()

    def _drop_torn_tail(self) -> None:
        """Cut off what a kill left after the last whole line."""
        size = self._size()
        if size == self._end:
            return
        if size < self._end or self._has_another_line():
            self._check_end(self._end)
        os.ftruncate(self._file.fileno(), self._end)
        os.fsync(self._file.fileno())
        self._guard()

    def _has_another_line(self) -> bool:
        """Whether a whole line follows the last one that was read: a line of another process, and no torn one."""
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
        """Raises TakenOverError unless the journal ends where this owner's last line does."""
        found = self._size()
        if found != expected:
            self._guard()  # names the owner, if there is another one
            raise TakenOverError(
                f"{self._path}: expected to end after {expected} bytes, found {found}: another process has written to "
                "it; end that process; this one has stopped"
            )


def _open_to_append(path: Path) -> BinaryIO:
    """The file, made if there is none. Whatever is written goes to its end, so that no line is ever overwritten."""
    how = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    if not path.exists():
        how |= os.O_CREAT | os.O_EXCL
    return os.fdopen(os.open(path, how, 0o666), "ab")


def study_id(opened: StudyOpened) -> str:
    """Tells a study from another one of the same name, wherever its folder is carried."""
    return short_digest(to_json(opened))
