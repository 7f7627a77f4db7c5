"""One large file over HTTP: goes on where it was cut off, and is under its name only when it is whole and right."""

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
"""A connection that is silent for so long counts as lost."""
BACKOFF_SECONDS = 1.0
"""Before the second try; twice as long before each further one."""
TRIES = 6
"""In a row that bring less than `WORTHWHILE` bytes; then the download gives up and can be continued later."""
WORTHWHILE = 2**20

_LONGEST_PAUSE_SECONDS = 60.0
_BLOCK = 2**18
_LATER = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may change
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
    """Brings the file at `url` to `path`: whole, and equal to what was published or else to the first download of it.

    What has come of it stays in NAME.part beside it, whatever happens, and the next call asks for the rest. Without
    `published`, the first complete download is recorded in NAME.json and every later one compared with it.

    Args:
        progress: is told (bytes here, bytes in all).
        say: is told in a line when something is tried again or started anew.
    Raises:
        DownloadError: no network, the server refuses or serves another file, the disk is full, or `TRIES` in a row
            brought nothing.
    """
    wanted = published or DownloadRecord.of(path).content
    if path.exists():
        found = content_of(path)
        if wanted is not None and found != wanted:
            raise DownloadError(f"{path}: is another file ({found.against(wanted)}); delete it and run again")
    else:
        found = _Download(url, path, wanted, progress, say).to_the_end("published" if published else "downloaded first")
    replace(DownloadRecord.of(path), url=url, size=found.size, sha256=found.sha256).store(path)
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
        """Completes the part, a second time from the start if it turns out wrong, and returns what it holds."""
        self._complete()
        found = content_of(self.part)
        if self.wanted is None or found == self.wanted:
            return found
        self.say(f"{self.path.name}: {found.against(self.wanted)}; starting anew")
        self._discard()
        self._complete()
        if (found := content_of(self.part)) == self.wanted:
            return found
        self._discard()
        difference = found.against(self.wanted)
        raise DownloadError(f"{self.url}: is not the file that was {origin} ({difference}); {_MIRROR}")

    def _complete(self) -> None:
        """Transfers until the part is as long as the file."""
        began = most = self._here()
        tries = 0
        while not self._is_complete():
            pause = BACKOFF_SECONDS * 2**tries
            try:
                self._transfer()
                continue
            except urllib.error.HTTPError as exc:
                exc.close()
                if exc.code not in _LATER:
                    raise DownloadError(f"{self.url}: the server answers {exc.code} ({exc.reason}); {_MIRROR}") from exc
                reason, asked = f"the server answers {exc.code}", exc.headers.get("Retry-After", "")
                pause = max(pause, float(asked) if asked.isdecimal() else 0)
            except (OSError, http.client.HTTPException) as exc:
                reason = _reason(exc)
                if _is_offline(exc) and most == began:
                    raise DownloadError(f"cannot reach {urlsplit(self.url).netloc} ({reason}); {_MIRROR}") from exc
            here = self._here()
            tries = 1 if here >= most + WORTHWHILE else tries + 1
            most = max(most, here)
            if tries == TRIES:
                raise DownloadError(
                    f"{self.url}: {reason}, {TRIES} times in a row; {bytes_text(here)} are kept: run again to continue"
                )
            self.say(f"{self.path.name}: {reason}, at {bytes_text(here)}; trying again")
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))

    def _here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _is_complete(self) -> bool:
        return self._here() == (self.wanted.size if self.wanted else DownloadRecord.of(self.path).size)

    def _transfer(self) -> None:
        """One connection's worth; an OSError where another one may bring more."""
        record, here = DownloadRecord.of(self.path), self._here()
        validator = record.validator if record.url == self.url else None
        if validator is None and self.wanted is None:
            here = 0  # nothing could tell whether the rest is of the same file
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
            self._discard()  # the file has become shorter than what is here
            raise ConnectionError("the server has no more of it than is here") from exc
        with response:
            start, length = _extent(response.status, response.headers)
            version = _validator(response.headers)
            if start not in (0, here) or (start and validator and not self._is_of(validator, version)):
                self._discard()
                raise ConnectionError("the server sent another part than was asked for")
            total = self._checked(length, response.headers)
            if start and (total <= start or (self.wanted is None and total != record.size)):
                self._discard()
                raise ConnectionError("the file has another length by now")
            self._check_room(total - start, total)
            if start == 0:  # also from a server that knows no ranges, or whose file has changed
                self._discard()
                replace(record, url=self.url, validator=version, size=total).store(self.path)
            self._receive(response, total)

    def _is_of(self, validator: str, version: str | None) -> bool:
        """Whether a part of this version belongs to the one asked for. A server that has an ETag repeats it with a part
        (RFC 9110, 15.3.7), so one without is of another file, unless a checksum will tell.
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
            while here < total and (block := response.read1(min(_BLOCK, total - here))):
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
        """How long the file is, by the server and by what is wanted."""
        if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
            raise DownloadError(f"{self.url}: the server answers in {encoding}, unasked; {_MIRROR}")
        wanted = self.wanted.size if self.wanted else None
        if length is None:
            length = wanted
        if length is None:
            raise DownloadError(f"{self.url}: the server does not say how long the file is; {_MIRROR}")
        if wanted not in (None, length):
            raise DownloadError(f"{self.url}: is another file ({length:,} bytes, expected {wanted:,}); {_MIRROR}")
        return length

    def _check_room(self, missing: int, total: int) -> None:
        """Images hardly compress: unpacked, an archive takes its own size again."""
        free = shutil.disk_usage(self.part.parent).free
        if free < missing + total:
            raise DownloadError(
                f"{self.part.parent}: {bytes_text(missing)} are to come and {bytes_text(total)} to be unpacked, and "
                f"only {bytes_text(free)} are free; make room or choose another folder"
            )


def _extent(status: int, headers: Message) -> tuple[int, int | None]:
    """Where the answer begins in the file, -1 if that is not said, and how long the file is."""
    if status == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", "").strip())
        return (int(told[1]), int(told[2])) if told else (-1, None)
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _validator(headers: Message) -> str | None:
    """What If-Range may hold: an ETag that is not weak, or a date where there is no ETag (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    if etag is None:
        return headers.get("Last-Modified")
    return None if etag.startswith("W/") else etag


def _is_offline(exc: Exception) -> bool:
    """Whether trying again soon is pointless."""
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(cause, (socket.gaierror, ssl.SSLCertVerificationError)):
        return True
    return isinstance(cause, OSError) and cause.errno in _OFFLINE


def _reason(exc: Exception) -> str:
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
