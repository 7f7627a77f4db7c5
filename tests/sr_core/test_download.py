"""The download command from end to end: archives from a server on localhost are unpacked, checked and resumed."""

import errno
import fcntl
import io
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_core.download import __main__ as download
from sr_core.download import fetch, unpack
from sr_core.download.fetch_record import DownloadRecord, content_of
from sr_core.images.scan import list_images
from sr_core.store.sources import folder_images

PNG = np.random.default_rng(5).bytes(300)
"""The content of every image file, because no test here decodes one."""
BENCHMARK = {"Set5": 5, "Set14": 14, "B100": 100, "Urban100": 100}


def zipped(names: list[str], folder: str = "", **infos: Any) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name in names:
            info = zipfile.ZipInfo(f"{folder}{name}")
            for key, value in infos.items():
                setattr(info, key, value)
            file.writestr(info, PNG + name.encode())
    return data.getvalue()


def tarred(names: list[str], kind: bytes = tarfile.REGTYPE) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for name in names:
            body = PNG + name.encode()
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(body) if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(body))
    return data.getvalue()


def images(first: int, last: int) -> list[str]:
    return [f"{number:04}.png" for number in range(first, last + 1)]


def benchmark_names() -> list[str]:
    hr = [f"benchmark/{name}/HR/{number}.png" for name, count in BENCHMARK.items() for number in range(count)]
    lr = [f"benchmark/Set5/LR_bicubic/X2/{number}x2.png" for number in range(5)]
    return [*hr, *lr, "benchmark/Set5/bin/Set5.pt", "benchmark/Set5/HR/._0.png", "benchmark/README"]


@pytest.fixture
def mirror(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server of packs with the right numbers of files. DIV2K has 900 in the training folder."""
    server.files["/DIV2K_train_HR.zip"] = zipped(images(1, 900), "DIV2K_train_HR/")
    server.files["/DIV2K_valid_HR.zip"] = zipped(images(801, 900), "DIV2K_valid_HR/")
    server.files["/benchmark.tar"] = tarred(benchmark_names())
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(unpack.os, "fsync", lambda _: None)  # a thousand files
    return server


def arguments(pack: str, to: Path, mirror: Any) -> list[str]:
    return [pack, "--to", str(to), "--url-base", mirror.url, "--any-edition"]


@pytest.fixture
def run(mirror: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    def command(pack: str) -> tuple[int, str, str]:
        status = download.main(arguments(pack, tmp_path / "data", mirror))
        return status, *capsys.readouterr()

    return command


Run = Callable[[str], tuple[int, str, str]]


def test_div2k_trains_with_800_and_validates_with_100(run: Run, mirror: Any, tmp_path: Path) -> None:
    to = tmp_path / "data"
    status, out, err = run("div2k")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"next: python -m study.run --experiment a2n_x2 --data {to} --dry-run"
    assert "DIV2K_train_HR: 800 images" in out
    assert sorted(path.name for path in to.iterdir()) == [".download", "DIV2K_train_HR", "DIV2K_valid_HR"]
    assert [path.name for path in sorted((to / "DIV2K_train_HR").iterdir())] == images(1, 800)
    assert (to / "DIV2K_valid_HR" / "0900.png").read_bytes() == PNG + b"0900.png"
    found = folder_images(to)
    assert (len(found.train), len(found.valid)) == (800, 100)
    left = sorted(path.name for path in (to / ".download").iterdir())
    assert left == ["DIV2K_train_HR.zip.json", "DIV2K_valid_HR.zip.json", "lock"]


def test_a_second_run_checks_every_image_and_asks_for_nothing(run: Run, mirror: Any, tmp_path: Path) -> None:
    run("benchmark")
    asked = len(mirror.asked)
    status, out, _ = run("benchmark")
    assert status == 0 and len(mirror.asked) == asked
    assert "B100: already downloaded, all 100 files are unchanged" in out
    (tmp_path / "data" / "B100" / "HR" / "7.png").write_bytes(PNG)
    (tmp_path / "data" / "B100" / "HR" / "8.png").unlink()
    status, out, err = run("benchmark")
    assert status == 2 and len(err.splitlines()) == 1
    assert "7.png: 2 of 100 files are missing or changed; move" in err


def test_the_benchmark_pack_gives_each_set_its_hr_and_lr(run: Run, tmp_path: Path) -> None:
    to = tmp_path / "data"
    status, out, _ = run("benchmark")
    assert status == 0
    assert out.splitlines()[-1].startswith("next: python -m sr_core.evaluate --weights bicubic --benchmark ")
    for name, count in BENCHMARK.items():
        assert len(list_images(to / name / "HR")) == count
    assert sorted(path.name for path in (to / "Set5").rglob("*")) == sorted(
        ["HR", "LR_bicubic", "X2", *(f"{n}.png" for n in range(5)), *(f"{n}x2.png" for n in range(5))]
    )


def test_a_set_that_was_removed_is_fetched_again_alone(run: Run, mirror: Any, tmp_path: Path) -> None:
    run("benchmark")
    (tmp_path / "data" / "Set14").rename(tmp_path / "moved")
    before = (tmp_path / "data" / "B100").stat().st_ino
    status, out, _ = run("benchmark")
    assert status == 0 and "Set14/HR: 14 images" in out and "Set5/HR: 5" not in out
    assert (tmp_path / "data" / "B100").stat().st_ino == before


def test_without_any_edition_the_published_checksum_counts(mirror: Any, tmp_path: Path, capsys: Any) -> None:
    status = download.main(["benchmark", "--to", str(tmp_path), "--url-base", mirror.url])
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this is a different file" in line and "expected 250,112,000" in line
    assert [path.name for path in tmp_path.iterdir()] == [".download"]


def test_the_catalogue_names_three_archives_and_what_they_hold() -> None:
    archives = [archive for pack in download.PACKS.values() for archive in pack]
    assert [archive.name for archive in archives] == ["DIV2K_train_HR.zip", "DIV2K_valid_HR.zip", "benchmark.tar"]
    for archive in archives:
        assert archive.url.startswith("https://") and len(archive.published.sha256) == 64
    train, valid = (archive.wanted.fullmatch for archive in download.DIV2K)
    assert [n for n in range(2000) if train(f"x/DIV2K_train_HR/{n:04}.png")] == list(range(1, 801))
    assert [n for n in range(2000) if valid(f"DIV2K_valid_HR/{n:04}.png")] == list(range(801, 901))


def test_a_published_archive_passes_with_its_checksum(mirror: Any, tmp_path: Path, monkeypatch: Any) -> None:
    data = mirror.files["/benchmark.tar"]
    pack = download.BENCHMARK[0]
    (tmp_path / "whole").write_bytes(data)
    known = type(pack)(pack.url, content_of(tmp_path / "whole"), pack.images, pack.wanted)
    monkeypatch.setitem(download.PACKS, "benchmark", (known,))
    mirror.plan(5, drop=len(data) // 7)
    assert download.main(["benchmark", "--to", str(tmp_path / "data"), "--url-base", f"{mirror.url}/"]) == 0
    assert len(mirror.asked) == 6
    assert DownloadRecord.of(tmp_path / "data" / ".download" / "benchmark.tar").content == known.published


@pytest.mark.parametrize(
    "data",
    [
        zipped(["../evil.png"]),
        zipped(["DIV2K_train_HR/../../evil.png"]),
        zipped(["/tmp/evil.png"]),
        zipped(["DIV2K_train_HR\\..\\..\\evil.png"]),
        zipped(["C:evil.png"]),
        zipped(["link"], external_attr=(stat.S_IFLNK | 0o777) << 16),
        tarred(["../evil.png"]),
        tarred(["/tmp/evil.png"]),
        tarred(["link"], tarfile.SYMTYPE),
        tarred(["link"], tarfile.LNKTYPE),
        tarred(["fifo"], tarfile.FIFOTYPE),
        tarred(["device"], tarfile.CHRTYPE),
    ],
)
def test_a_member_that_would_leave_the_folder_refuses_the_archive(
    run: Run, mirror: Any, tmp_path: Path, data: bytes
) -> None:
    mirror.files["/DIV2K_train_HR.zip"] = data
    status, _, err = run("div2k")
    assert status == 2
    (line,) = err.splitlines()
    assert "DIV2K_train_HR.zip: the member " in line and "is not a file inside the folder; nothing was unpacked" in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == [
        ".download", "DIV2K_train_HR.zip.json", "lock"
    ]  # fmt: skip


TRAIN = zipped(images(1, 800), "DIV2K_train_HR/")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>no such file</html>", "expected a zip or tar archive"),
        (zipped(images(1, 799), "DIV2K_train_HR/"), "expected 800 images for DIV2K_train_HR, got 799"),
        (zipped([*images(1, 800), "x/DIV2K_train_HR/0001.png"], "DIV2K_train_HR/"), "holds .*0001.png twice"),
        (TRAIN.replace(PNG, PNG[::-1], 1), "cannot be unpacked .Bad CRC-32"),
        (TRAIN[:-30], "expected a zip or tar archive"),
        (tarred([f"DIV2K_train_HR/{name}" for name in images(1, 800)])[:200_000], "got 195;"),
    ],
)
def test_an_archive_that_is_not_the_right_one_leaves_nothing_and_no_claim(
    run: Run, mirror: Any, tmp_path: Path, data: bytes, reason: str
) -> None:
    right, mirror.files["/DIV2K_train_HR.zip"] = mirror.files["/DIV2K_train_HR.zip"], data
    status, _, err = run("div2k")
    assert status == 2
    (line,) = err.splitlines()
    assert re.search(reason, line)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".download"]
    mirror.files["/DIV2K_train_HR.zip"] = right
    assert run("div2k")[0] == 0


def test_a_folder_from_elsewhere_is_left_alone(run: Run, mirror: Any, tmp_path: Path) -> None:
    own = tmp_path / "data" / "DIV2K_valid_HR"
    own.mkdir(parents=True)
    (own / "0801.png").write_bytes(PNG)
    status, _, err = run("div2k")
    assert status == 2 and mirror.asked == []
    expected = (
        "DIV2K_valid_HR: already exists and was not downloaded by this command; move it away or choose another --to"
    )
    assert expected in err
    (own / "0801.png").unlink()
    assert run("div2k")[0] == 0  # an empty folder may be used


def test_two_downloads_into_one_folder_do_not_meet(run: Run, tmp_path: Path) -> None:
    state = tmp_path / "data" / ".download"
    state.mkdir(parents=True)
    with download._alone(state):
        status, _, err = run("benchmark")
    assert status == 2 and "another download into this folder is running; wait until it ends" in err
    assert run("benchmark")[0] == 0


def test_a_folder_that_cannot_be_made_is_one_line(mirror: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    assert download.main(arguments("benchmark", tmp_path / "file", mirror)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("address", ["file:///etc", "ftp://example.org", "example.org/data", "http://a b"])
def test_a_mirror_is_an_http_address(address: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        download.main(["div2k", "--to", "x", "--url-base", address])
    assert caught.value.code == 2
    assert "expected a URL that begins with http:// or https://" in capsys.readouterr().err


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "sr_core.download", *args]


def test_without_a_network_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command("div2k", "--to", str(tmp_path), "--url-base", "http://nowhere.invalid"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: cannot reach nowhere\.invalid \(.*\); check the network, or name a mirror with --url-base\n",
        done.stderr,
    )


def test_help_is_quick_and_light() -> None:
    code = "import sys, sr_core.download.__main__ as d\ntry: d.main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--any-edition" in done.stdout
    assert not any(f"'{name}'" in done.stdout for name in ("numpy", "torch", "PIL", "h5py"))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_download_goes_on_where_it_was(mirror: Any, tmp_path: Path) -> None:
    size = len(mirror.files["/benchmark.tar"])
    mirror.plan(drop=size // 2, stall=30)
    args = arguments("benchmark", tmp_path, mirror)
    part = tmp_path / ".download" / "benchmark.tar.part"
    with subprocess.Popen(command(*args), stdout=subprocess.DEVNULL) as killed:
        while not part.exists() or part.stat().st_size < size // 2:
            time.sleep(0.02)
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
    subprocess.run(command(*args), check=True, stdout=subprocess.DEVNULL)
    assert [asked.get("Range") for asked in mirror.asked] == [None, f"bytes={size // 2}-"]
    assert len(list_images(tmp_path / "Urban100" / "HR")) == 100


def test_without_locks_a_download_goes_on_and_says_what_it_cannot_prevent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    status, out, err = run("benchmark")
    assert (status, err) == (0, "")
    assert "this file system has no locks; do not start a second download into this folder" in out
