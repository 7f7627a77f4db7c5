"""Files that survive a kill and a power cut: written under another name, synced, then renamed."""

import errno
import hashlib
import os
import platform
import re
import secrets
from contextlib import suppress
from pathlib import Path

_CANNOT_SYNC_FOLDERS = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF}
)
"""What CIFS, FUSE and WSL answer to the sync of a folder. The disk's own errors (EIO, ENOSPC) are not among them."""


def write_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a kill or power cut leaves the old file or the new one, never a part.

    Processes that write the same file at once do not meet, on whichever machines they run. A link at `path` is
    replaced: this is for files of our own. What users name goes through `sr_core.process.output.write_output`.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a full disk, or Ctrl-C: a part is of no use
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def temporary_name(path: Path, suffix: str = "writing") -> Path:
    """A hidden name in the same folder that no other writer has: no other process, host or container.

    It is short, so a file whose name is as long as the file system allows can be written.
    """
    return path.with_name(f".{name_digest(path)}.{host_name()}-{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def host_name() -> str:
    """This machine's name as a part of file names: letters, digits and hyphens, at most 32."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32]


def name_digest(path: Path) -> str:
    """16 hex digits that stand for a file's name."""
    return hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()


def remove_parts(folder: Path) -> None:
    """Remove what killed writers left anywhere below the folder; a process that is still writing fails."""
    for part in folder.rglob(".*.writing"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk; a file's own sync does not see to that.

    Some file systems cannot do it, and some folders may be written but not read. Both are no error: the files
    themselves are synced.
    """
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as exc:
        if exc.errno not in _CANNOT_SYNC_FOLDERS:
            raise
