"""An output that a user names is written as a shell would write it, and atomically if possible."""

import fcntl
import os
import platform
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sr_core import evaluate, prepare
from sr_core.errors import SuiteError
from sr_core.images.files import write_png
from sr_core.process.durable import temporary_name
from sr_core.process.output import check_output, make_output_folder, write_output
from sr_core.process.whole_file import whole_file

NeedsName = Callable[[str], None]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_is_written_through_and_stays(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/target.csv").write_bytes(b"old")
    (tmp_path / "middle.csv").symlink_to("deep/target.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "middle.csv")
    write_output(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "middle.csv").is_symlink()
    assert (tmp_path / "deep/target.csv").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target.csv"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.csv").symlink_to("deep/target.csv")
    check_output(tmp_path / "link.csv", "--csv")
    write_output(tmp_path / "link.csv", b"new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "deep/target.csv").read_bytes() == b"new"


def test_a_folder_at_the_end_of_a_link_is_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("disk/images")
    make_output_folder(tmp_path / "link")
    make_output_folder(tmp_path / "link")  # and is no fault when it is there
    assert (tmp_path / "disk/images").is_dir()


def test_the_reader_of_a_fifo_gets_the_content(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("pipe")
    for path in (fifo, tmp_path / "link"):
        read: list[bytes] = []
        reader = threading.Thread(target=lambda read=read: read.append(fifo.read_bytes()), daemon=True)
        reader.start()
        check_output(path, "--csv")
        write_output(path, b"x" * 200_000)  # more than a pipe holds at once
        reader.join(10)
        assert read == [b"x" * 200_000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_process_substitution_gets_the_content(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    check_output(Path(f"/dev/fd/{theirs}"), "--csv")
    write_output(Path(f"/dev/fd/{theirs}"), b"new")
    os.close(theirs)
    with open(ours, "rb") as pipe:  # noqa: PTH123
        assert pipe.read() == b"new"


def test_an_open_file_is_written_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        file.write(b"before\n")
        write_output(Path(f"/dev/fd/{file.fileno()}"), b"table\n")
        file.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\ntable\nafter\n"


def test_what_was_printed_comes_before_what_is_written_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    write_output(Path("/dev/stdout"), b"table\n")
    assert capfd.readouterr().out == "before\ntable\n"


def test_a_device_is_written_to_and_stays_one() -> None:
    check_output(Path("/dev/null"), "--csv")
    write_output(Path("/dev/null"), b"new")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"old")
    path.chmod(mode)
    before = path.stat().st_ino
    write_output(path, b"new")
    assert (mode_of(path), path.read_bytes()) == (mode, b"new")
    assert path.stat().st_ino != before  # replaced as a whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"old")
    os.chown(path, 1234, 4321)
    write_output(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (1234, 4321, b"new")


def test_a_file_whose_owner_cannot_be_kept_is_overwritten_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "scores.csv"
    path.write_bytes(b"something longer than the new content")
    before = path.stat().st_ino
    monkeypatch.setattr("sr_core.process.output.keep_mode", refused)
    write_output(path, b"new")
    assert (path.stat().st_ino, path.read_bytes()) == (before, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_hard_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")
    (tmp_path / "other").hardlink_to(tmp_path / "one")
    write_output(tmp_path / "one", b"new")
    assert (tmp_path / "other").read_bytes() == b"new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_output(tmp_path / "scores.csv", b"new")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "scores.csv") == mode


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.csv").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("nowhere/scores.csv")
    for name in ("none/scores.csv", "there.csv/scores.csv", "astray", "."):
        with pytest.raises(SuiteError, match=r"^--csv .*: expected a file in a folder that exists$"):
            check_output(tmp_path / name, "--csv")
    with pytest.raises(SuiteError, match=r"^--csv .*loop: cannot be written \(Too many levels of symbolic links\)"):
        check_output(tmp_path / "loop", "--csv")
    with pytest.raises(SuiteError, match=r"File name too long\); the name is too long for this file system"):
        check_output(tmp_path / ("x" * 256), "--csv")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(SuiteError, match=r"there\.csv: the existing file is read-only; choose another place"):
        check_output(tmp_path / "there.csv", "--csv")
    with pytest.raises(SuiteError, match=r"new\.csv: the folder .* is read-only; choose another place"):
        check_output(tmp_path / "new.csv", "--csv")


# The commands


@pytest.fixture
def scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], int]:
    """scored(csv): the status of scoring bicubic on one image with `--csv`."""
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    (tmp_path / "bench").mkdir()
    write_png(tmp_path / "bench/a.png", image)
    flags = ["--weights", "bicubic", "--scale", "2", "--benchmark", str(tmp_path / "bench")]
    return lambda csv: evaluate.main([*flags, "--csv", str(csv)])


def test_scores_go_through_a_link_and_into_a_fifo(tmp_path: Path, scored: Callable[[Path], int]) -> None:
    (tmp_path / "link.csv").symlink_to("target.csv")
    assert scored(tmp_path / "link.csv") == 0
    table = (tmp_path / "target.csv").read_bytes()
    assert table.startswith(b"name,psnr,ssim\na,") and (tmp_path / "link.csv").is_symlink()

    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    assert scored(tmp_path / "pipe") == 0
    reader.join(10)
    assert read == [table]


def test_a_table_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, scored: Callable[[Path], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert scored(tmp_path / "scores.csv") == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.endswith("is read-only; choose another place\n")


def test_a_store_goes_through_a_link_and_keeps_its_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "disk").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44, 3), dtype=np.uint8)
        write_png(tmp_path / f"images/{number}.png", pixels)
    link = tmp_path / "store.h5"
    link.symlink_to("disk/big.h5")
    command = ["--images", str(tmp_path / "images"), "--out", str(link), "--workers", "1"]
    assert prepare.main([*command, "--scale", "2"]) == 0
    (tmp_path / "disk/big.h5").chmod(0o600)
    assert prepare.main([*command, "--scale", "3", "--verify"]) == 0
    assert link.is_symlink() and mode_of(tmp_path / "disk/big.h5") == 0o600
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["big.h5"]
    os.mkfifo(tmp_path / "pipe")
    assert prepare.main([*command[:2], "--out", str(tmp_path / "pipe")]) == 2
    assert "pipe: expected a file, got a pipe or a device" in capsys.readouterr().err


def test_what_unfinished_copies_are_of_dead_writers_goes_and_others_stay(tmp_path: Path, needs_name: NeedsName) -> None:
    needs_name("ж")
    path = tmp_path / ("ж" * 126 + ".h5")
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours = temporary_name(path, "partial").name
    of_dead = ours.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    earlier = f".known.json.{platform.node()}.{dead.pid}.partial"  # as older versions named them
    in_another_container = of_dead.replace(of_dead[-12:-8], "beef")
    for name in (ours, of_dead, in_another_container, earlier):
        (tmp_path / name).touch()
    with (tmp_path / in_another_container).open() as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        for whole in (path, tmp_path / "known.json"):
            with whole_file(whole) as file:
                file.write(b"new")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "known.json", ours, in_another_container}
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
@pytest.mark.parametrize("number", ["987654", "9" * 30])
def test_a_number_that_no_open_file_has_is_refused_before_the_work(number: str) -> None:
    with pytest.raises(SuiteError, match=rf"^--csv /dev/fd/{number}: "):
        check_output(Path("/dev/fd", number), "--csv")
