"""Unpacking of an archive. Its folders appear only when all of them are complete."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from sr_core.download.fetch_record import DownloadRecord, append, writing
from sr_core.errors import DownloadError
from sr_core.process.durable import name_digest
from sr_core.process.progress import bytes_text

_BLOCK_BYTES = 2**20
_MAX_NAME_BYTES = 128
"""Longest file name that gets a suffix. File systems that encrypt names allow only a few bytes more."""
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
"""What `tarfile` and `zipfile` raise for a damaged, encrypted or unusual archive."""


class BadArchiveError(DownloadError):
    """An archive is damaged, or holds other files than expected. None of its files have appeared."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    size: int
    crc32: int | None
    """CRC-32 as stated by the archive; None for a tar."""
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    to: Path,
    place: Callable[[str], str | None],
    check: Callable[[Collection[str]], None],
    *,
    progress: Callable[[int, int], None],
) -> None:
    """Unpack the members selected by `place` below `to`, and store their sizes and checksums in the archive's record.

    The files are first collected next to the archive. The folders move into `to` when the last file is unpacked, so
    that every folder in `to` is complete. A file that an interrupted call left is reused if its checksum is right.

    Args:
        place: returns a member's path below `to`, with forward slashes, or None to skip the member.
        check: raises BadArchiveError unless the paths are exactly the expected ones.
        progress: called with (bytes unpacked, bytes in total).
    Raises:
        BadArchiveError: the archive is damaged, or a member would be placed outside the folder.
        DownloadError: a folder already exists, or the disk is full.
    """
    collected = archive.parent / "unpacked"
    unpacked: dict[str, tuple[int, int]] = {}
    with _members(archive) as everything:
        members = _placed(archive, everything, place)
        check(members)
        folders = sorted({path.split("/")[0] for path in members})
        done = 0
        total = sum(member.size for member in members.values())
        _check_room(collected, members, total)
        for path, member in members.items():
            unpacked[path] = (member.size, _extract(archive, path, member, collected / path))
            done += member.size
            progress(done, total)
    record = DownloadRecord.of(archive)
    replace(record, unpacked={**(record.unpacked or {}), **unpacked}).store(archive)
    for folder in folders:
        with writing(to / folder):
            for file in (collected / folder).rglob("*"):
                if file.is_file() and file.relative_to(collected).as_posix() not in members:
                    file.unlink()  # left by an interrupted call
            (collected / folder).replace(to / folder)  # fails if the target exists and is not empty
    with writing(collected):
        shutil.rmtree(collected)


def damaged(to: Path, unpacked: Mapping[str, tuple[int, int]], progress: Callable[[int, int], None]) -> list[str]:
    """The names of unpacked files that are missing or have changed."""
    total = sum(size for size, _ in unpacked.values())
    done = 0
    wrong = []
    for name, (size, crc) in unpacked.items():
        if not _is_right(to / name, size, crc):
            wrong.append(name)
        done += size
        progress(done, total)
    return wrong


@contextmanager
def _members(archive: Path) -> Iterator[dict[str, Member]]:
    """The archive's files by name.

    Raises:
        BadArchiveError: the archive is damaged, or a member is not a regular file inside the folder.
    """
    try:
        with ExitStack() as stack:
            if zipfile.is_zipfile(archive):
                listed = _zip_members(stack.enter_context(zipfile.ZipFile(archive)))
            elif tarfile.is_tarfile(archive):
                listed = _tar_members(stack.enter_context(tarfile.open(archive)))
            else:
                raise BadArchiveError(f"{archive}: expected a zip or tar archive; try another mirror")
            members: dict[str, Member] = {}
            for name, member in listed:
                if member is None or not _stays_inside(name):
                    raise BadArchiveError(
                        f"{archive}: the member {name!r} is not a file inside the folder; nothing was unpacked"
                    )
                members[name] = member
            yield members
    except _ARCHIVE_ERRORS as exc:
        raise BadArchiveError(f"{archive}: cannot be unpacked ({exc}); try another mirror") from exc


def _zip_members(file: zipfile.ZipFile) -> Iterator[tuple[str, Member | None]]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not made on Unix
        if kind == stat.S_IFDIR or (kind == 0 and info.is_dir()):
            continue
        regular = kind in (0, stat.S_IFREG)
        member = Member(info.file_size, info.CRC, partial(file.open, info)) if regular else None
        yield info.orig_filename, member  # `filename` is cut off at a zero byte


def _tar_members(file: tarfile.TarFile) -> Iterator[tuple[str, Member | None]]:
    def opened(info: tarfile.TarInfo) -> IO[bytes]:
        source = file.extractfile(info)
        assert source is not None  # it is a regular file
        return source

    for info in file:
        if not info.isdir():
            yield info.name, Member(info.size, None, partial(opened, info)) if info.isreg() else None


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name)


def _placed(archive: Path, members: Mapping[str, Member], place: Callable[[str], str | None]) -> dict[str, Member]:
    placed: dict[str, Member] = {}
    for name, member in members.items():
        path = place(name)
        if path is None:
            continue
        if path in placed:
            raise BadArchiveError(f"{archive}: holds {path} twice; nothing was unpacked")
        placed[path] = member
    return placed


def _check_room(collected: Path, members: Mapping[str, Member], total: int) -> None:
    here = sum((collected / name).stat().st_size for name in members if (collected / name).exists())
    free = shutil.disk_usage(collected.parent).free
    if free < total - here:
        raise DownloadError(
            f"{collected}: expected {bytes_text(total - here)} of free space for unpacking, got {bytes_text(free)}; "
            "make room"
        )


def _extract(archive: Path, name: str, member: Member, to: Path) -> int:
    """Unpack one member to `to`, unless the file is already there, and return its CRC-32."""
    if member.crc32 is not None and _is_right(to, member.size, member.crc32):
        return member.crc32
    aside = to.with_name(f".{_short(to)}.partial")
    crc = 0
    size = 0
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        target = aside.open("wb", buffering=0)
    with member.open() as source, target:
        while block := source.read(_BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
            size += len(block)
            append(target, block)
        with writing(to):
            os.fsync(target.fileno())
    if size != member.size or member.crc32 not in (None, crc):
        raise BadArchiveError(f"{archive}: the member {name} is damaged; try another mirror")
    with writing(to):
        aside.replace(to)
    return crc


def _short(path: Path) -> str:
    """The file's name, or a digest of it if the name is too long for a suffix."""
    if len(os.fsencode(path.name)) <= _MAX_NAME_BYTES:
        return path.name
    return name_digest(path)


def _is_right(path: Path, size: int, crc32: int) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            crc = 0
            while block := file.read(_BLOCK_BYTES):
                crc = zlib.crc32(block, crc)
            return crc == crc32
    except OSError:
        return False
