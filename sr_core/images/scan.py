"""Listing of a folder: its images, the entries that are left out, and entries that look like images but are unusable.

No file is opened here, so a large folder is listed quickly and a named pipe cannot block.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sr_core.errors import ImageError
from sr_core.process.names import printable

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
)
"""Suffixes of the supported formats, in any case. The content decides the format of a file."""

_OTHER_FORMATS = """
    apng gif heic heics heif hif avif avifs jxl jxr wdp hdp jp2 j2k j2c jpc jpf jpx jpm
    dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 pef srw x3f 3fr iiq raw
    svg svgz psd psb xcf kra ora eps emf wmf ico icns cur
    ppm pgm pbm pnm pam pfm tga dds pcx qoi sgi ras xbm xpm bpg flif
    exr hdr rgbe fits fit fts dcm npy npz
"""
OTHER_FORMATS = frozenset(f".{suffix}" for suffix in _OTHER_FORMATS.split())
"""Suffixes of image formats that are not supported."""

HIDDEN = "hidden image"
LINKED_FOLDER = "linked folder"
BROKEN_LINK = "broken link"

_SYSTEM_FOLDERS = {"lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "@eaDir", "__MACOSX"}
"""Folders in which operating systems keep data such as thumbnails. They count as hidden."""

_NAMES_SHOWN = {"folder": 3, "link": 3}
_MAX_ENTRIES = 20_000
"""Number of entries after which `holds_image` stops its search."""
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The entries that a command does not read. `line` counts and names them in one line."""

    entries: tuple[tuple[str, str], ...] = ()
    """(kind as a noun in the singular, name) of each entry, in order."""

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __add__(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(self.entries + other.entries)

    def below(self, place: Path | str) -> "LeftOut":
        """The same entries with names relative to the folder above `place`."""
        return LeftOut(tuple((noun, Path(place, name).as_posix()) for noun, name in self.entries))

    def without(self, names: Callable[[str], bool]) -> "LeftOut":
        """The same entries without those for whose names the function returns True."""
        return LeftOut(tuple((noun, name) for noun, name in self.entries if not names(name)))

    def names(self) -> dict[str, list[str]]:
        """The names of the entries by kind."""
        by_noun: dict[str, list[str]] = {}
        for noun, name in self.entries:
            by_noun.setdefault(noun, []).append(name)
        return by_noun

    def summary(self) -> dict[str, dict[str, int | str]]:
        """The count and the first name of each kind, as JSON values."""
        return {noun: {"count": len(names), "first": printable(names[0])} for noun, names in self.names().items()}

    def line(self) -> str:
        """One line such as "left out: 2 linked folders (a, b), 3 GIF files (c.gif, …)"; empty if there are none."""
        if not self:
            return ""
        return "left out: " + ", ".join(_counted(noun, names) for noun, names in self.names().items())


NOTHING = LeftOut()


def _counted(noun: str, names: list[str]) -> str:
    shown = _NAMES_SHOWN.get(noun.rpartition(" ")[2], 1)
    examples = [" ".join(printable(name).splitlines()) for name in names[:shown]]
    if len(names) > shown:
        examples.append("…")
    return f"{len(names)} {noun if len(names) == 1 else _plural(noun)} ({', '.join(examples)})"


def _plural(noun: str) -> str:
    first, _, rest = noun.partition(" of ")
    first = f"{first[:-1]}ies" if first.endswith("py") else f"{first}s"
    return f"{first} of {rest}" if rest else first


@dataclass(frozen=True, slots=True)
class Scan:
    """The content of a folder. Names are relative to the folder, with forward slashes."""

    folder: Path
    images: tuple[str, ...]
    """Regular files with the suffix of an image, sorted."""
    left_out: LeftOut = NOTHING
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Error message by name, for entries with the suffix of an image that are not files."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Error message by name, for subfolders that cannot be listed."""

    def check(self) -> None:
        """Raise ImageError for the first unusable entry in order of names, if there is one."""
        faults = {**self.unusable, **self.closed}
        if faults:
            raise ImageError(faults[min(faults)])

    def nothing(self) -> ImageError:
        """The error for a folder without images."""
        others = f" ({self.left_out.line()})" if self.left_out else ""
        expected = ", ".join(sorted(SUFFIXES))
        return ImageError(f"{self.folder}: no image in this folder; expected {expected} files{others}")


def list_images(folder: Path) -> list[Path]:
    """All image files in a folder and its subfolders, sorted by relative path with forward slashes.

    Raises:
        ImageError: the folder is missing or is a file, holds no image, or an entry cannot be used.
    """
    entries = scan(folder)
    entries.check()
    if not entries.images:
        raise entries.nothing()
    return [folder / name for name in entries.images]


def scan(folder: Path) -> Scan:
    """The content of a folder and all its subfolders.

    | entry | treatment |
    |---|---|
    | a regular file, or a link to one, with a suffix of `SUFFIXES` in any case | an image |
    | any other entry with such a suffix: a broken link, a pipe, a device | unusable |
    | a subfolder of any name | listed; unusable if it cannot be listed |
    | a link to a folder | left out, because it may lead in a circle or to images that are listed already |
    | hidden, or in a hidden folder or a folder of the operating system | left out if it is an image |
    | a file with a suffix of `OTHER_FORMATS` | left out |
    | a broken link with another name | left out |
    | anything else | not mentioned |

    Raises:
        ImageError: the folder is missing, is a file, or cannot be listed.
    """
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError as exc:
        raise ImageError(f"{folder}: no such folder; check the path") from exc
    except OSError as exc:
        raise ImageError(f"{folder}: cannot be read ({exc.strerror}); check the path and its permissions") from exc
    if not stat.S_ISDIR(mode):
        raise ImageError(f"{folder}: expected a folder of images, got {_kind(mode) or 'a file'}")
    walk = _Walk(folder)
    walk.everything()
    if "" in walk.closed:
        raise ImageError(walk.closed[""])
    left_out = LeftOut(tuple(sorted(walk.left_out, key=lambda entry: entry[1])))
    return Scan(folder, tuple(sorted(walk.images)), left_out, walk.unusable, walk.closed)


def holds_image(folder: Path, *, below: bool = True) -> bool:
    """True if a folder holds an image. The search stops after `_MAX_ENTRIES` entries and skips unreadable ones.

    Args:
        below: search its subfolders too.
    """
    waiting = deque([folder])
    examined = 0
    while waiting and examined < _MAX_ENTRIES:
        for entry in _entries_or_none(waiting.popleft()):
            examined += 1
            if _is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                if below:
                    waiting.append(Path(entry.path))
            elif is_image_name(entry.name) and not _is_folder(entry):
                return True
    return False


def images_in(folder: Path) -> list[str]:
    """The names of the images directly in a folder, sorted. Unreadable entries are skipped."""
    names = [entry.name for entry in _entries_or_none(folder) if is_image_name(entry.name) and not _is_folder(entry)]
    return [name for name in names if not _is_hidden(name)]


def check_file(path: Path) -> None:
    """Raise ImageError if the path is not a regular file. A pipe or device could block when it is opened."""
    fault = _fault(path)
    if fault:
        raise ImageError(fault)


def is_folder(path: Path) -> bool:
    """True if the path is a folder or a link to one, False if that is unknown."""
    try:
        return path.is_dir()
    except OSError:  # no permission
        return False


def resolved(path: Path) -> Path:
    """The path without links. A link that leads in a circle stays, and is reported when it is opened."""
    return Path(os.path.realpath(path))


def is_image_name(name: str) -> bool:
    """True if the name has the suffix of a supported image format."""
    return _suffix(name) in SUFFIXES


class _Walk:
    def __init__(self, root: Path) -> None:
        self._root = root
        self.images: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self.unusable: dict[str, str] = {}
        self.closed: dict[str, str] = {}

    def everything(self) -> None:
        waiting = [("", False)]
        while waiting:
            place, hidden = waiting.pop()
            try:
                entries = list(os.scandir(self._root / place))
            except OSError as exc:
                if not hidden:
                    self.closed[place] = _closed(self._root / place, exc)
                continue
            for entry in entries:
                name = f"{place}/{entry.name}" if place else entry.name
                below_hidden = hidden or _is_hidden(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((name, below_hidden))
                elif below_hidden:
                    self._hidden_file(entry, name)
                elif entry.is_symlink():
                    self._link(entry, name)
                else:
                    self._file(entry, name)

    def _hidden_file(self, entry: "os.DirEntry[str]", name: str) -> None:
        # macOS writes a file ._NAME next to every file on a foreign disk.
        if is_image_name(entry.name) and not entry.name.startswith("._") and entry.is_file(follow_symlinks=False):
            self.left_out.append((HIDDEN, name))

    def _link(self, entry: "os.DirEntry[str]", name: str) -> None:
        if _is_folder(entry):
            self.left_out.append((LINKED_FOLDER, name))
        elif not is_image_name(name) and not _leads_somewhere(entry):
            self.left_out.append((BROKEN_LINK, name))
        else:
            self._file(entry, name)

    def _file(self, entry: "os.DirEntry[str]", name: str) -> None:
        suffix = _suffix(name)
        if suffix in OTHER_FORMATS:
            self.left_out.append((f"{suffix[1:].upper()} file", name))
        elif suffix in SUFFIXES:
            fault = "" if entry.is_file(follow_symlinks=False) else _fault(Path(entry.path))
            if fault:
                self.unusable[name] = fault
            else:
                self.images.append(name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _leads_somewhere(entry: "os.DirEntry[str]") -> bool:
    try:
        entry.stat()
    except OSError:
        return False
    return True


def _fault(path: Path) -> str:
    """The reason why a path is not a readable regular file; empty if it is one."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        if path.is_symlink():
            circle = exc.errno == errno.ELOOP
            why = "which leads in a circle" if circle else f"which cannot be followed ({exc.strerror})"
            return f"{path}: is a link to {path.readlink()}, {why}; fix the link or remove it from the folder"
        if isinstance(exc, FileNotFoundError):
            return f"{path}: no such image; check the path"
        return f"{path}: cannot be read ({exc.strerror}); make it readable or remove it from the folder"
    if stat.S_ISREG(mode):
        return ""
    return f"{path}: expected an image file, got {_kind(mode) or 'a folder'}; remove it from the folder"


def _kind(mode: int) -> str:
    return next((kind for test, kind in _KINDS if test(mode)), "")


def _closed(folder: Path, exc: OSError) -> str:
    return (
        f"{folder}: this folder cannot be read ({exc.strerror}), so images would be missing; make it readable, or "
        "remove it from the folder above"
    )


def _entries_or_none(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a name, not a path


def subfolders(folder: Path) -> Iterable[Path]:
    """The subfolders of a folder, including links to folders, sorted by name. Hidden ones are skipped."""
    return [Path(entry.path) for entry in _entries_or_none(folder) if not _is_hidden(entry.name) and _is_folder(entry)]
