"""Shared fixtures: a web server on localhost that fails on demand, a download from it, and private shared memory."""

import hashlib
import re
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import numpy as np
import pytest

from sr_core.download import fetch
from sr_core.download.fetch_record import Content
from sr_core.errors import DownloadError
from sr_core.patches import shared_pixels


@dataclass
class Answer:
    """The answer to one request: that of a correct server, except for the fields set here."""

    status: int | None = None
    body: bytes | None = None
    """The content to send instead of the file."""
    drop: int | None = None
    """Number of bytes of the body after which the connection is cut."""
    reset: bool = False
    """True if the reader gets an error at the cut, and not the end of the data."""
    stall: float = 0.0
    """Seconds of silence instead of the cut."""
    ranges: bool = True
    if_range: bool = True
    """True if If-Range is respected, so that a part is sent only for the version named there."""
    etag: str | None = '"1"'
    length: int | Literal["none"] | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """A server of `files` that answers the next requests according to `plan`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.usual = Answer()
        self.asked: list[dict[str, str]] = []
        """The headers of every request, with its path as "path"."""
        self.sent = 0
        """Bytes of bodies."""
        self._planned: deque[Answer] = deque()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def plan(self, times: int = 1, **answer: Any) -> None:
        self._planned.extend(Answer(**answer) for _ in range(times))

    def behave(self) -> None:
        """Forgets what was planned."""
        self._planned.clear()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append({"path": request.path, **request.headers})
        answer = self._planned.popleft() if self._planned else self.usual
        body = answer.body if answer.body is not None else self.files.get(request.path)
        request.close_connection = True
        if answer.status is not None or body is None:
            request.send_response(answer.status or 404)
            for name, value in {"Content-Length": "0", **answer.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            return
        start, total = 0, len(body)
        same = not answer.if_range or request.headers.get("If-Range") in (None, answer.etag)
        if answer.ranges and same and (told := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))):
            start = int(told[1])
            if start >= total:
                request.send_response(416)
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            request.send_response(200)
        if answer.length != "none":
            request.send_header("Content-Length", str(answer.length or total - start))
        if answer.etag is not None:
            request.send_header("ETag", answer.etag)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.end_headers()
        block = body[start:] if answer.drop is None else body[start : start + answer.drop]
        request.wfile.write(block)
        request.wfile.flush()
        self.sent += len(block)
        if answer.stall:
            time.sleep(answer.stall)
        if answer.reset:
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = Thread(target=serving.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield serving
    serving.http.shutdown()
    thread.join()
    serving.http.server_close()


class Download:
    """`fetch` of /file.zip, 50,000 bytes, into a folder; keeps what it said."""

    data = np.random.default_rng(3).bytes(50_000)
    published = Content(len(data), hashlib.sha256(data).hexdigest())

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.path = server, folder / "file.zip"
        self.part = folder / "file.zip.part"
        self.said: list[str] = []
        self.shown: list[tuple[int, int]] = []
        server.files["/file.zip"] = self.data

    def __call__(self, published: Content | None = published) -> bytes:
        fetch.fetch(
            f"{self.server.url}/file.zip",
            self.path,
            published,
            progress=lambda done, total: self.shown.append((done, total)),
            say=self.said.append,
        )
        return self.path.read_bytes()

    def fails(self, reason: str, published: Content | None = published) -> None:
        with pytest.raises(DownloadError, match=reason) as caught:
            self(published)
        assert "\n" not in str(caught.value)
        assert not self.path.exists()

    @property
    def ranges(self) -> list[str | None]:
        """What part each request asked for."""
        return [asked.get("Range") for asked in self.server.asked]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that retry at once and count 1,000 bytes as progress."""
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(fetch, "WORTHWHILE", 1000)


@pytest.fixture
def download(server: Server, tmp_path: Path, quick: None) -> Download:
    return Download(server, tmp_path)


@pytest.fixture
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder instead of /dev/shm, so that concurrent tests do not share pixels."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared_pixels, "FOLDER", folder)
    return folder
