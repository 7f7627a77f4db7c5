"""Unpacking resumes after a kill at any point, and a folder appears only when it is complete."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from sr_core.download import unpack as unpack_module
from sr_core.download.fetch_record import DownloadRecord
from sr_core.download.unpack import BadArchiveError, damaged, unpack
from sr_core.errors import DownloadError, ImageError
from sr_core.images.scan import list_images

NeedsName = Callable[[str], None]

NAMES = [f"{folder}/{number}.png" for folder in ("a", "b") for number in range(20)]


def body(name: str) -> bytes:
    return name.encode() * 1000


def make_archive(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.parent / "source"
    for name in NAMES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(body(name))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name in NAMES:
                file.write(source / name, name)
    else:
        with tarfile.open(path, "w") as tar:
            tar.add(source / "a", "a")
            tar.add(source / "b", "b")
    shutil.rmtree(source)
    return path


def run(
    archive: Path,
    to: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
    only: Collection[str] = NAMES,
) -> None:
    def check(paths: Collection[str]) -> None:
        if sorted(paths) != sorted(only):
            raise BadArchiveError("others")

    unpack(archive, to, lambda name: name if name in only else None, check, progress=progress)


def check(archive: Path, to: Path) -> None:
    assert {path.relative_to(to).as_posix(): path.read_bytes() for path in list_images(to)} == {
        name: body(name) for name in NAMES
    }
    unpacked = DownloadRecord.of(archive).unpacked
    assert unpacked is not None and damaged(to, unpacked, lambda *_: None) == []
    assert not (archive.parent / "unpacked").exists()


@pytest.fixture(params=["zip", "tar"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_archive(tmp_path / "to" / ".download" / "pack", request.param)


@pytest.mark.parametrize("name", ["a/" + "ж" * 122 + "_x2.png", "画" * 80 + "/" + "€" * 85])
def test_members_with_the_longest_names_are_unpacked(tmp_path: Path, needs_name: NeedsName, name: str) -> None:
    needs_name(name)
    archive = tmp_path / "state" / "a.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, b"pixels")
    run(archive, tmp_path, only=[name])
    assert (tmp_path / name).read_bytes() == b"pixels"


def test_everything_comes_out_and_is_known_by_checksum(archive: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(archive, tmp_path / "to", lambda done, total: seen.append((done, total)))
    check(archive, tmp_path / "to")
    assert len(seen) == len(NAMES) and seen[-1][0] == seen[-1][1] == sum(len(body(name)) for name in NAMES)
    (tmp_path / "to" / "b" / "3.png").write_bytes(body("b/3.png")[::-1])
    (tmp_path / "to" / "a" / "5.png").unlink()
    unpacked = DownloadRecord.of(archive).unpacked
    assert unpacked is not None and damaged(tmp_path / "to", unpacked, lambda *_: None) == ["a/5.png", "b/3.png"]


def test_what_is_half_unpacked_is_no_image_yet_and_is_used_again(archive: Path, tmp_path: Path) -> None:
    to, half = tmp_path / "to", archive.parent / "unpacked"

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(archive, to, interrupt)
    with pytest.raises(ImageError, match="no image in this folder"):
        list_images(to)
    (half / "a" / "7.png").write_bytes(b"half a picture")
    (half / "a" / "from_before.png").write_bytes(b"of another edition")
    kept = (half / "a" / "8.png").stat().st_ino
    run(archive, to)
    check(archive, to)
    if zipfile.is_zipfile(archive):
        assert (to / "a" / "8.png").stat().st_ino == kept


def test_a_stop_between_two_folders_is_made_up_for(archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    (to / "b").mkdir()
    (to / "b" / "obstacle").touch()
    with pytest.raises(DownloadError, match=r"b: cannot be written \(Directory not empty"):
        run(archive, to)
    assert (to / "a").is_dir()
    (to / "b" / "obstacle").unlink()
    run(archive, to, only=[name for name in NAMES if name.startswith("b/")])
    check(archive, to)


def test_a_disk_without_room_is_told_before_a_file_comes(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=r"expected 300 kB of free space for unpacking, got 1 kB; make room"):
        run(archive, tmp_path / "to")
    assert not (archive.parent / "unpacked").exists()


IN_A_PROCESS = """
import importlib.util, os, resource, signal, sys
from pathlib import Path
from sr_core.errors import DownloadError
spec = importlib.util.spec_from_file_location("unpack_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
archive, to, steps, limit = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
left = steps
def killing(event, _):
    global left
    if event in ("open", "os.rename", "os.remove", "shutil.rmtree"):  # before every step on the disk
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(killing)
try:
    tests.run(archive, to)
except DownloadError as exc:
    sys.exit(str(exc))
"""


def in_a_process(archive: Path, to: Path, kill_at: int = 0, limit: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IN_A_PROCESS, __file__, str(archive), str(to), str(kill_at), str(limit)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_any_moment_a_folder_is_absent_or_whole_and_the_next_call_completes(
    archive: Path, tmp_path: Path
) -> None:
    rng, to = random.Random(7), tmp_path / "to"
    kills = 0
    for step in sorted(rng.sample(range(1, 130), 7), reverse=True):
        for folder in ("a", "b", ".download/unpacked"):
            shutil.rmtree(to / folder, ignore_errors=True)
        killed = in_a_process(archive, to, kill_at=step)
        kills += killed.returncode == -signal.SIGKILL
        for folder in ("a", "b"):
            assert not (to / folder).exists() or len(list((to / folder).iterdir())) == 20
        if missing := [name for name in NAMES if not (to / name).exists()]:
            run(archive, to, only=missing)
        check(archive, to)
    assert kills >= 5


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_a_disk_that_fills_up_is_one_line(archive: Path, tmp_path: Path) -> None:
    full = in_a_process(archive, tmp_path / "to", limit=5000)
    assert full.returncode == 1
    assert re.fullmatch(r".*.*png.partial: cannot be written \(File too large\); make room .*\n", full.stderr)
    run(archive, tmp_path / "to")
    check(archive, tmp_path / "to")
