"""Out of an archive into folders that appear only when all of them are complete."""

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

_BLOCK = 2**20
_LONGEST_NAME = 128
"""In bytes; even file systems that encrypt names take a few more."""
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
"""What the two modules raise on a damaged, encrypted or exotic archive."""


class BadArchiveError(DownloadError):
    """An archive is damaged, or holds other files than expected; nothing of it has appeared."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    size: int
    crc32: int | None
    """As the archive states it; a tar does not."""
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    to: Path,
    place: Callable[[str], str | None],
    check: Callable[[Collection[str]], None],
    *,
    progress: Callable[[int, int], None],
) -> None:
    """Puts the files that `place` gives a path below `to`, and notes in the archive's record what they are.

    They are collected beside the archive and move into `to`, folder by folder, when the last one is there, so that a
    folder under its name is a whole one. Of what an interrupted call left, files are used again where their checksum
    shows that they are right.

    Args:
        place: a member's path below `to`, with forward slashes, or None to leave it out.
        check: raises BadArchiveError unless these paths are all that there should be.
        progress: is told (bytes unpacked, bytes in all).
    Raises:
        BadArchiveError: also if a member would leave the folder.
        DownloadError: a folder is there already, or the disk is full.
    """
    collected = archive.parent / "unpacked"
    unpacked: dict[str, tuple[int, int]] = {}
    with _members(archive) as everything:
        members = _placed(archive, everything, place)
        check(members)
        folders = sorted({path.split("/")[0] for path in members})
        done, total = 0, sum(member.size for member in members.values())
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
                    file.unlink()  # of an interrupted call
            (collected / folder).replace(to / folder)  # an error if something has been put there
    with writing(collected):
        shutil.rmtree(collected)


def damaged(to: Path, unpacked: Mapping[str, tuple[int, int]], progress: Callable[[int, int], None]) -> list[str]:
    """Those of the unpacked files that are missing or no longer what they were."""
    wrong, done, total = [], 0, sum(size for size, _ in unpacked.values())
    for name, (size, crc) in unpacked.items():
        if not _is_right(to / name, size, crc):
            wrong.append(name)
        done += size
        progress(done, total)
    return wrong


@contextmanager
def _members(archive: Path) -> Iterator[dict[str, Member]]:
    """The archive's files by name: plain files whose names stay inside the folder."""
    try:
        with ExitStack() as stack:
            if zipfile.is_zipfile(archive):
                listed = _zip_members(stack.enter_context(zipfile.ZipFile(archive)))
            elif tarfile.is_tarfile(archive):
                listed = _tar_members(stack.enter_context(tarfile.open(archive)))
            else:
                raise BadArchiveError(f"{archive}: is no zip and no tar; try another mirror")
            members: dict[str, Member] = {}
            for name, member in listed:
                if member is None or not _stays_inside(name):
                    raise BadArchiveError(f"{archive}: refused, its member {name!r} is no file inside the folder")
                members[name] = member
            yield members
    except _BROKEN as exc:
        raise BadArchiveError(f"{archive}: cannot be unpacked ({exc}); try another mirror") from exc


def _zip_members(file: zipfile.ZipFile) -> Iterator[tuple[str, Member | None]]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix made the archive
        if kind == stat.S_IFDIR or (kind == 0 and info.is_dir()):
            continue
        member = Member(info.file_size, info.CRC, partial(file.open, info)) if kind in (0, stat.S_IFREG) else None
        yield info.orig_filename, member  # the other name ends at a zero byte


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
        if (path := place(name)) is not None:
            if path in placed:
                raise BadArchiveError(f"{archive}: refused, it holds {path} twice")
            placed[path] = member
    return placed


def _check_room(collected: Path, members: Mapping[str, Member], total: int) -> None:
    here = sum((collected / name).stat().st_size for name in members if (collected / name).exists())
    free = shutil.disk_usage(collected.parent).free
    if free < total - here:
        raise DownloadError(
            f"{collected}: {bytes_text(total - here)} are to be unpacked, only {bytes_text(free)} are free; make room"
        )


def _extract(archive: Path, name: str, member: Member, to: Path) -> int:
    """Puts one member at `to`, unless it is there already; its CRC-32."""
    if member.crc32 is not None and _is_right(to, member.size, member.crc32):
        return member.crc32
    aside = to.with_name(f".{_short(to)}.partial")
    crc = size = 0
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        target = aside.open("wb", buffering=0)
    with member.open() as source, target:
        while block := source.read(_BLOCK):
            crc = zlib.crc32(block, crc)
            size += len(block)
            append(target, block)
        with writing(to):
            os.fsync(target.fileno())
    if size != member.size or member.crc32 not in (None, crc):
        raise BadArchiveError(f"{archive}: its member {name} is damaged; try another mirror")
    with writing(to):
        aside.replace(to)
    return crc


def _short(path: Path) -> str:
    """The file's name, or what stands for it if there is no room for more characters."""
    return path.name if len(os.fsencode(path.name)) <= _LONGEST_NAME else name_digest(path)


def _is_right(path: Path, size: int, crc32: int) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            crc = 0
            while block := file.read(_BLOCK):
                crc = zlib.crc32(block, crc)
            return crc == crc32
    except OSError:
        return False
