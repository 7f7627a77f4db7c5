"""Files that survive a kill and a power cut: written aside, synced, then renamed."""

import os
from contextlib import suppress
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a kill or power cut leaves the old file or the new one, never a part.

    Processes that write the same file at once do not meet: what each writes beside it has a name of its own.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:  # a full disk: what was written helps nobody
        with suppress(OSError):
            aside.unlink()
        raise
    sync_folder(path.parent)


def remove_parts(folder: Path) -> None:
    """Remove what kills left beside files anywhere below the folder; a process that is still writing fails."""
    for part in folder.rglob(".*.writing"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk; a file's own sync does not see to that."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
