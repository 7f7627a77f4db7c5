"""The listing of a folder: its images, the entries that are left out, and the unusable ones."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import ImageError
from sr_core.images.scan import SUFFIXES, LeftOut, holds_image, list_images, scan


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_every_suffix_of_a_format_that_is_read_makes_an_image_in_any_case(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        add(tmp_path, f"a{suffix}", f"b{suffix.upper()}")
    assert {".jfif", ".jpe", ".jfi", ".mpo", ".dib"} <= SUFFIXES
    assert len(list_images(tmp_path)) == 2 * len(SUFFIXES)


def test_what_is_left_out_is_counted_and_named_in_one_line(tmp_path: Path) -> None:
    add(tmp_path / "in", "x.png", "b.gif", "deep/c.GIF", "d.heic", ".e.png", ".hidden/f.jpg", "g.npy")
    for name in ("one", "two"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "in" / "disk").symlink_to("/not/mounted")
    found = scan(tmp_path / "in")
    assert found.images == ("x.png",)
    assert found.left_out.line() == (
        "left out: 2 hidden images (.e.png, …), 2 GIF files (b.gif, …), 1 HEIC file (d.heic), 1 broken link (disk), "
        "1 NPY file (g.npy), 2 linked folders (one, two)"
    )


def test_documents_and_what_systems_put_into_folders_are_not_mentioned(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "notes.txt", "scores.json", "Thumbs.db", ".DS_Store", "._a.png", "__MACOSX/._a.png")
    os.mkfifo(tmp_path / "pipe")
    found = scan(tmp_path)
    assert (found.images, found.left_out, found.unusable) == (("a.png",), LeftOut(), {})
    assert found.left_out.line() == ""


def test_thumbnails_that_a_system_keeps_are_hidden(tmp_path: Path) -> None:
    add(tmp_path, "a.jpg", "@eaDir/a.jpg/THUMB.jpg")
    assert (scan(tmp_path).images, scan(tmp_path).left_out.names()) == (
        ("a.jpg",),
        {"hidden image": ["@eaDir/a.jpg/THUMB.jpg"]},
    )


def test_a_name_that_is_not_utf8_or_breaks_the_line_is_told_in_printable_text() -> None:
    assert LeftOut((("GIF file", "caf\udce9\n.gif"),)).line() == "left out: 1 GIF file (caf\\xe9 .gif)"


def test_a_folder_named_as_an_image_is_a_folder(tmp_path: Path) -> None:
    add(tmp_path, "x.png/y.png")
    (tmp_path / "z.png").symlink_to(tmp_path / "x.png")
    found = scan(tmp_path)
    assert found.images == ("x.png/y.png",)
    assert found.left_out.line() == "left out: 1 linked folder (z.png)"


def dangling(path: Path) -> None:
    path.symlink_to("gone.png")


def circular(path: Path) -> None:
    path.symlink_to(path.name)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def to_a_device(path: Path) -> None:
    path.symlink_to(os.devnull)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (dangling, "is a link to gone.png, which cannot be followed"),
        (circular, "which leads in a circle"),
        (os.mkfifo, "got a named pipe"),
        pytest.param(listening, "got a socket", marks=pytest.mark.filterwarnings("ignore::ResourceWarning")),
        (to_a_pipe, "got a named pipe"),
        (to_a_device, "got a device"),
    ],
)
def test_what_is_named_as_an_image_and_is_no_file_is_refused_and_the_first_is_named(
    make: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    add(tmp_path, "a.png", "c/c.png")
    make(tmp_path / "c" / "b.png")
    dangling(tmp_path / "d.png")
    with pytest.raises(ImageError, match=r"c/b\.png: .*" + reason):
        list_images(tmp_path)


def test_a_subfolder_that_cannot_be_listed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "a.png", "locked/b.png", ".trash/c.png", "lost+found/d.png")
    scandir = os.scandir

    def refusing(path: Path) -> Any:
        if path.name in ("locked", ".trash", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ImageError, match=r"locked: this folder cannot be read \(Permission denied\)"):
        list_images(tmp_path)
    assert set(scan(tmp_path).closed) == {"locked"}, "hidden folders are no part of the set"
    with pytest.raises(ImageError, match=r"locked: this folder cannot be read"):
        list_images(tmp_path / "locked")


def test_a_folder_without_images_says_what_it_holds_instead(tmp_path: Path) -> None:
    add(tmp_path, "a.gif")
    with pytest.raises(ImageError, match=r"no image in this folder.*\(left out: 1 GIF file \(a\.gif\)\)"):
        list_images(tmp_path)


def test_whether_a_folder_holds_an_image_is_told_without_hidden_ones_and_links(tmp_path: Path) -> None:
    add(tmp_path, ".a.png", ".b/c.png", "deep/er/notes.txt")
    (tmp_path / "x.png").mkdir()
    (tmp_path / "y.png").symlink_to("deep")
    assert not holds_image(tmp_path)
    add(tmp_path, "deep/er/d.png")
    assert holds_image(tmp_path)
    assert not holds_image(tmp_path, below=False)
    assert not holds_image(tmp_path / "gone")
