"""What is known of a downloaded file, kept in a small JSON beside it."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

from sr_core.errors import DownloadError
from sr_core.process.durable import write_durably


class Content(NamedTuple):
    """What a file holds, as far as it matters."""

    size: int
    sha256: str

    def against(self, wanted: "Content") -> str:
        """In words, how this differs from what was wanted."""
        if self.size != wanted.size:
            return f"{self.size:,} bytes, expected {wanted.size:,}"
        return f"SHA-256 {self.sha256[:16]}…, expected {wanted.sha256[:16]}…"


def content_of(path: Path) -> Content:
    """Size and SHA-256 of a file as it lies on the disk."""
    with path.open("rb") as file:
        return Content(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class DownloadRecord:
    """Of a file NAME, in NAME.json; stays when the file goes."""

    url: str = ""
    validator: str | None = None
    """The server's name for the version that NAME.part is a beginning of: a strong ETag, or the date of change."""
    size: int | None = None
    sha256: str | None = None
    """Of the first download that was complete; every later one must equal it."""
    unpacked: Mapping[str, tuple[int, int]] | None = None
    """Size and CRC-32 of each file that came out of it, once all have."""

    @property
    def content(self) -> Content | None:
        """Of the first complete download."""
        return Content(self.size, self.sha256) if self.size is not None and self.sha256 is not None else None

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stored record; an empty one if there is none or it is damaged."""
        try:
            stored = json.loads(_beside(path).read_bytes())
            unpacked = {name: (int(size), int(crc)) for name, (size, crc) in (stored["unpacked"] or {}).items()}
            return cls(**{**stored, "unpacked": unpacked or None})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def store(self, path: Path) -> None:
        """Replaces the stored record, whole or not at all."""
        beside = _beside(path)
        with writing(beside):
            write_durably(beside, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def forget(cls, path: Path) -> None:
        """Removes the file, and what its content was: the next download need not equal it."""
        with writing(path):
            path.unlink(missing_ok=True)
        cls(unpacked=cls.of(path).unpacked).store(path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def append(file: io.FileIO, block: bytes) -> None:
    """Writes all of it to a file without a buffer, in which a full disk would show only when the file is closed."""
    with writing(Path(str(file.name))):
        left = memoryview(block)
        while left:  # the system may take less than it is given
            left = left[file.write(left) :]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes a disk that is full or write-protected a DownloadError; a network that is down is an OSError too."""
    try:
        yield
    except OSError as exc:
        raise DownloadError(f"{path}: cannot be written ({exc.strerror}); make room or choose another folder") from exc
