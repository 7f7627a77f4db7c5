"""Download of one large file over HTTP. It can be resumed, and the file appears only when its content is right."""

import errno
import http.client
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from email.utils import parsedate
from pathlib import Path
from urllib.parse import urlsplit

from sr_core.download.fetch_record import Content, DownloadRecord, append, content_of, writing
from sr_core.errors import DownloadError
from sr_core.process.progress import bytes_text

TIMEOUT_SECONDS = 30.0
"""A connection that sends nothing for this time counts as lost."""
BACKOFF_SECONDS = 1.0
"""Pause before the second try. It doubles before each further try."""
TRIES = 6
"""The download stops after this number of tries in a row that bring less than `WORTHWHILE` bytes."""
WORTHWHILE = 2**20
"""Bytes after which a try counts as successful."""

_LONGEST_PAUSE_SECONDS = 60.0
_BLOCK_BYTES = 2**18
_RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}
_OFFLINE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}
_MIRROR = "check the network, or name a mirror with --url-base"


def fetch(
    url: str,
    path: Path,
    published: Content | None,
    *,
    progress: Callable[[int, int], None],
    say: Callable[[str], None],
) -> None:
    """Download the file at `url` to `path` and check its size and SHA-256.

    An interrupted download stays in NAME.part in the same folder, and the next call resumes it. Without `published`,
    the first complete download is recorded in NAME.json, and every later download must equal it.

    Args:
        progress: called with (bytes downloaded, bytes in total).
        say: called with one line before each retry and each restart.
    Raises:
        DownloadError: there is no network, the server refuses or serves another file, the disk is full, or `TRIES`
            tries in a row brought nothing.
    """
    wanted = published or DownloadRecord.of(path).content
    if path.exists():
        content = content_of(path)
        if wanted is not None and content != wanted:
            raise DownloadError(
                f"{path}: this is a different file ({content.against(wanted)}); delete it and run again"
            )
    else:
        origin = "published" if published else "downloaded first"
        content = _Download(url, path, wanted, progress, say).to_the_end(origin)
    replace(DownloadRecord.of(path), url=url, size=content.size, sha256=content.sha256).store(path)
    if not path.exists():
        with writing(path):
            _part(path).replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@dataclass
class _Download:
    url: str
    path: Path
    wanted: Content | None
    progress: Callable[[int, int], None]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.part = _part(self.path)

    def to_the_end(self, origin: str) -> Content:
        """Complete the part and return its content; restart once from the beginning if the content is wrong."""
        self._complete()
        content = content_of(self.part)
        if self.wanted is None or content == self.wanted:
            return content

        self.say(f"{self.path.name}: {content.against(self.wanted)}; starting again from the beginning")
        self._discard()
        self._complete()
        content = content_of(self.part)
        if content == self.wanted:
            return content

        self._discard()
        difference = content.against(self.wanted)
        raise DownloadError(f"{self.url}: this is not the file that was {origin} ({difference}); {_MIRROR}")

    def _complete(self) -> None:
        """Transfer until the part is as long as the file."""
        began = self._bytes_here()
        most = began
        tries = 0
        while not self._is_complete():
            pause = BACKOFF_SECONDS * 2**tries
            try:
                self._transfer()
                continue
            except urllib.error.HTTPError as exc:
                exc.close()
                if exc.code not in _RETRYABLE_STATUS:
                    raise DownloadError(f"{self.url}: the server answers {exc.code} ({exc.reason}); {_MIRROR}") from exc
                reason = f"the server answers {exc.code}"
                retry_after = exc.headers.get("Retry-After", "")
                if retry_after.isdecimal():
                    pause = max(pause, float(retry_after))
            except (OSError, http.client.HTTPException) as exc:
                reason = _reason(exc)
                if _is_offline(exc) and most == began:
                    raise DownloadError(f"cannot reach {urlsplit(self.url).netloc} ({reason}); {_MIRROR}") from exc
            here = self._bytes_here()
            tries = 1 if here >= most + WORTHWHILE else tries + 1
            most = max(most, here)
            if tries == TRIES:
                raise DownloadError(
                    f"{self.url}: {reason}, {TRIES} times in a row; {bytes_text(here)} are kept: run again to resume"
                )
            self.say(f"{self.path.name}: {reason}, at {bytes_text(here)}; retrying")
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))

    def _bytes_here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _is_complete(self) -> bool:
        return self._bytes_here() == (self.wanted.size if self.wanted else DownloadRecord.of(self.path).size)

    def _transfer(self) -> None:
        """Receive what one connection brings.

        Raises:
            OSError: a retry may bring more.
        """
        record = DownloadRecord.of(self.path)
        here = self._bytes_here()
        validator = record.validator if record.url == self.url else None
        if validator is None and self.wanted is None:
            here = 0  # nothing could show that the rest belongs to the same file
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity", "User-Agent": "a2n-study"})
        if here:
            request.add_header("Range", f"bytes={here}-")
            if validator:
                request.add_header("If-Range", validator)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as exc:
            if exc.code != 416 or not here:
                raise
            self._discard()  # the file is now shorter than the part
            raise ConnectionError("the file on the server is not longer than the part that is here") from exc
        with response:
            start, length = _extent(response.status, response.headers)
            version = _validator(response.headers)
            if start not in (0, here) or (start and validator and not self._is_of(validator, version)):
                self._discard()
                raise ConnectionError("the server sent a different part than requested")
            total = self._checked(length, response.headers)
            if start and (total <= start or (self.wanted is None and total != record.size)):
                self._discard()
                raise ConnectionError("the length of the file has changed")
            self._check_room(total - start, total)
            if start == 0:  # also from a server that knows no ranges, or whose file has changed
                self._discard()
                replace(record, url=self.url, validator=version, size=total).store(self.path)
            self._receive(response, total)

    def _is_of(self, validator: str, version: str | None) -> bool:
        """True if an answer of this version belongs to the version that the part began with.

        A server that has an ETag repeats it with a part (RFC 9110, 15.3.7). An answer without one belongs to another
        file, unless a checksum is available to decide later.
        """
        if version is None:
            return self.wanted is not None or parsedate(validator) is not None
        return version == validator

    def _receive(self, response: http.client.HTTPResponse, total: int) -> None:
        with writing(self.part):
            file = self.part.open("ab", buffering=0)
        with file:
            here = file.tell()
            self.progress(here, total)
            while here < total and (block := response.read1(min(_BLOCK_BYTES, total - here))):
                append(file, block)
                here += len(block)
                self.progress(here, total)
            with writing(self.part):
                os.fsync(file.fileno())
        if here < total:
            raise ConnectionError("the connection ended early")

    def _discard(self) -> None:
        with writing(self.part):
            self.part.unlink(missing_ok=True)

    def _checked(self, length: int | None, headers: Message) -> int:
        """The length of the file in bytes, if the server and the expected content agree on it."""
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DownloadError(f"{self.url}: the server answers in {encoding}, which was not requested; {_MIRROR}")
        wanted = self.wanted.size if self.wanted else None
        if length is None:
            length = wanted
        if length is None:
            raise DownloadError(f"{self.url}: the server does not say how long the file is; {_MIRROR}")
        if wanted not in (None, length):
            raise DownloadError(
                f"{self.url}: this is a different file ({length:,} bytes, expected {wanted:,}); {_MIRROR}"
            )
        return length

    def _check_room(self, missing: int, total: int) -> None:
        """Check the free disk space. Images hardly compress, so unpacking takes the size of the archive again."""
        free = shutil.disk_usage(self.part.parent).free
        if free < missing + total:
            raise DownloadError(
                f"{self.part.parent}: expected {bytes_text(missing)} of free space for the download and "
                f"{bytes_text(total)} for unpacking, got {bytes_text(free)}; make room or choose another folder"
            )


def _extent(status: int, headers: Message) -> tuple[int, int | None]:
    """The offset at which the answer begins (-1 if unknown) and the length of the file in bytes (None if unknown)."""
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", "").strip())
        return (int(match[1]), int(match[2])) if match else (-1, None)
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _validator(headers: Message) -> str | None:
    """The value for If-Range: a strong ETag, or the date of change if there is no ETag (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag is None:
        return headers.get("Last-Modified")
    return None if etag.startswith("W/") else etag


def _is_offline(exc: Exception) -> bool:
    """True if the machine has no network, so a retry would fail too."""
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(cause, (socket.gaierror, ssl.SSLCertVerificationError)):
        return True
    return isinstance(cause, OSError) and cause.errno in _OFFLINE


def _reason(exc: Exception) -> str:
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
