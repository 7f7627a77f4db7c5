"""Failures that end a download, at once or after retries: one line is shown, and the downloaded part stays."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_core.download import fetch as fetch_module
from sr_core.download.fetch import TRIES, fetch
from sr_core.errors import DownloadError

DATA = np.random.default_rng(3).bytes(50_000)  # what the server has
OTHER = np.random.default_rng(4).bytes(50_000)


def test_a_refusal_is_final_and_an_overload_is_not(download: Any) -> None:
    for status, reason in ((404, "Not Found"), (403, "Forbidden"), (410, "Gone")):
        download.server.plan(status=status)
        download.fails(f"the server answers {status} .{reason}.")
    assert len(download.server.asked) == 3
    download.server.plan(status=500)
    download.server.plan(status=503, headers={"Retry-After": "0"})
    assert download() == DATA


def test_an_overload_that_lasts_is_given_up(download: Any) -> None:
    download.server.usual.status = 503
    download.fails(f"the server answers 503, {TRIES} times in a row; 0 B are kept")
    assert len(download.server.asked) == TRIES


def test_pauses_double_and_a_server_may_ask_for_longer_ones(download: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(fetch_module, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr(fetch_module.time, "sleep", paused.append)
    download.server.plan(3, status=500)
    download.server.plan(status=503, headers={"Retry-After": "50"})
    download.server.plan(status=503, headers={"Retry-After": "5000"})
    download()
    assert paused == [1, 2, 4, 50, 60]


def test_a_host_that_does_not_exist_is_told_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DownloadError, match=r"^cannot reach nowhere\.invalid .*; check the network, or name a mirror"):
        fetch("http://nowhere.invalid/a.zip", tmp_path / "a.zip", None, progress=lambda *_: None, say=said.append)
    assert said == []


def test_a_server_that_is_down_is_asked_a_few_times(tmp_path: Path, quick: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
    said: list[str] = []
    with pytest.raises(DownloadError, match=f"Connection refused, {TRIES} times in a row"):
        fetch(url, tmp_path / "a.zip", None, progress=lambda *_: None, say=said.append)
    assert len(said) == TRIES - 1


def test_a_disk_without_room_is_told_before_a_byte_comes(download: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=99_999)
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: usage)
    download.fails("expected 50 kB of free space for the download and 50 kB for unpacking, got 100 kB; make room")
    assert not download.part.exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
from sr_core.download.fetch import fetch
from sr_core.errors import DownloadError
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
try:
    fetch(sys.argv[1], Path(sys.argv[2]), None, progress=lambda *_: None, say=print)
except DownloadError as exc:
    sys.exit(str(exc))
"""


def test_a_disk_that_fills_up_is_one_line_and_can_be_continued(download: Any) -> None:
    command = [sys.executable, "-c", FULL_DISK, f"{download.server.url}/file.zip", str(download.path)]
    full = subprocess.run(command, capture_output=True, text=True)
    assert full.returncode == 1 and full.stdout == ""
    assert re.fullmatch(r".*file\.zip\.part: cannot be written \(File too large\); make room .*\n", full.stderr)
    assert download.part.read_bytes() == DATA[:30_000]
    assert download(published=None) == DATA
    assert download.ranges == [None, "bytes=30000-"]


@pytest.mark.parametrize("stored", [b"", b"[]", b"{", b'{"url": 1}', b'{"unpacked": [1], "sha256": "x"}', b"\xff"])
def test_a_damaged_record_is_none(download: Any, stored: bytes) -> None:
    download.part.write_bytes(DATA[:30_000])
    (download.path.parent / "file.zip.json").write_bytes(stored)
    assert download(published=None) == DATA
    assert json.loads((download.path.parent / "file.zip.json").read_text())["size"] == len(DATA)


def test_a_file_there_that_is_another_one_is_named_and_left(download: Any) -> None:
    download.path.write_bytes(OTHER)
    with pytest.raises(
        DownloadError, match=r"file\.zip: this is a different file .SHA-256 .*; delete it and run again"
    ):
        assert download() == OTHER
