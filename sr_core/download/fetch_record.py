"""The record of a downloaded file, kept in a small JSON file next to it."""

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
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    def against(self, wanted: "Content") -> str:
        """The difference from the wanted content, in words."""
        if self.size != wanted.size:
            return f"{self.size:,} bytes, expected {wanted.size:,}"
        return f"SHA-256 {self.sha256[:16]}…, expected {wanted.sha256[:16]}…"


def content_of(path: Path) -> Content:
    """Size and SHA-256 of a file on disk."""
    with path.open("rb") as file:
        return Content(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class DownloadRecord:
    """The record of the file NAME, stored in NAME.json. It stays when the file is deleted."""

    url: str = ""
    validator: str | None = None
    """The version of the file that NAME.part belongs to, as the server names it: a strong ETag or a date of change."""
    size: int | None = None
    sha256: str | None = None
    """SHA-256 of the first complete download. Every later download must equal it."""
    unpacked: Mapping[str, tuple[int, int]] | None = None
    """Size and CRC-32 of each unpacked file; set when all files are unpacked."""

    @property
    def content(self) -> Content | None:
        """The content of the first complete download; None before that."""
        if self.size is None or self.sha256 is None:
            return None
        return Content(self.size, self.sha256)

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stored record; an empty record if it is missing or damaged."""
        try:
            stored = json.loads(_record_path(path).read_bytes())
            unpacked = {name: (int(size), int(crc)) for name, (size, crc) in (stored["unpacked"] or {}).items()}
            return cls(**{**stored, "unpacked": unpacked or None})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def store(self, path: Path) -> None:
        """Replace the stored record atomically."""
        record_path = _record_path(path)
        with writing(record_path):
            write_durably(record_path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def forget(cls, path: Path) -> None:
        """Delete the file and its recorded content. The next download may have another content."""
        with writing(path):
            path.unlink(missing_ok=True)
        cls(unpacked=cls.of(path).unpacked).store(path)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def append(file: io.FileIO, block: bytes) -> None:
    """Write the whole block to an unbuffered file, so that a full disk shows here and not when the file is closed."""
    with writing(Path(str(file.name))):
        left = memoryview(block)
        while left:  # a write may take only a part of the bytes
            left = left[file.write(left) :]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a DownloadError, so that it is not mistaken for an OSError of the network."""
    try:
        yield
    except OSError as exc:
        raise DownloadError(f"{path}: cannot be written ({exc.strerror}); make room or choose another folder") from exc
