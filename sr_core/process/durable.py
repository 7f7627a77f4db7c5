"""Files that survive a kill and a power cut: they are written under another name, synced, then renamed."""

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
"""Errors of CIFS, FUSE and WSL if a folder is synced. Errors of the disk itself (EIO, ENOSPC) are not among them."""


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a kill or power cut leaves either the old file or the new one.

    Several processes, also on several machines, may write the same file at the same time. A link at `path` is
    replaced, so use this only for files that the suite names. For files that users name, use
    `sr_core.process.output.write_output`.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a full disk, or Ctrl-C: a partial file is useless
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def temporary_name(path: Path, suffix: str = "writing") -> Path:
    """A hidden name in the same folder that no other process, host or container uses.

    It is short, so that it is valid even if the file's own name has the maximum length of the file system.
    """
    return path.with_name(f".{name_digest(path)}.{host_name()}-{os.getpid()}-{secrets.token_hex(4)}.{suffix}")


def host_name() -> str:
    """This machine's name for use in file names: letters, digits and hyphens, at most 32 characters."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:32]


def name_digest(path: Path) -> str:
    """A digest of a file's name: 16 hex digits."""
    return hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()


def remove_parts(folder: Path) -> None:
    """Remove the unfinished files of killed writers anywhere below the folder. A writer that still runs then fails."""
    for part in folder.rglob(".*.writing"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Syncing a file does not sync its name.

    Some file systems cannot sync a folder, and some folders are writable but not readable. Neither is an error,
    because the files themselves are synced.
    """
    if os.name != "posix":  # other systems cannot open a folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        if exc.errno not in _CANNOT_SYNC_FOLDERS:
            raise
