"""A web server as a child process: on which addresses, in which environment, until when."""

import errno
import fcntl
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sr_core.errors import SuiteError
from sr_core.process.redaction import redact
from study.tracking import server_guard

_PREFIX = "study-ui-"
_START_SECONDS = 180.0
_STOP_SECONDS = server_guard.STOP_SECONDS + 5.0
_NEW_SECONDS = 60.0
"""Age of a folder from which on its guard holds the lock, if it has one."""
_PORTS_TRIED = 100
_LINES_TOLD = 3
EVERY_ADDRESS = ("0.0.0.0", "::", "")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks a server of this machine, whatever proxy the environment names for the outside."""


def free_port(host: str, asked: int | None, first: int) -> int:
    """The port asked for, or else the first free one from `first`.

    Raises:
        SuiteError: the port asked for is taken, or there is no such address.
    """
    reason: Exception | None = None
    for port in [asked] if asked is not None else range(first, first + _PORTS_TRIED):
        try:
            found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, (name, _, *rest) = found[0]
            with closing(socket.socket(family)) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((name, port, *rest))
                return port
        except (OSError, OverflowError, UnicodeError) as exc:
            reason = exc
            if getattr(exc, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                break  # no other port of this address is better
    raise SuiteError(f"--host {host} --port {asked or first}: cannot listen there ({reason}); choose another port")


def reachable(host: str) -> str:
    """Returns the host to connect to, as it stands in a URL, for a server that listens on `host`."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a server that listens on `host`."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> list[str]:
    """Returns every name, as it stands in a URL, under which a server that listens on `host` may be asked for."""
    names = ["localhost", "127.0.0.1", "[::1]", reachable(host)]
    if host in EVERY_ADDRESS:
        own = socket.gethostname()
        names += [own, *_own_addresses(own)]
    return list(dict.fromkeys(form for name in names for form in (name, name.lower())))


def _own_addresses(name: str) -> list[str]:
    """The addresses of this machine that its name leads to, that name in full, and from where it reaches others."""
    found = []
    with suppress(OSError, UnicodeError):
        for *_, full, address in socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME):
            found += [full, str(address[0])] if full else [str(address[0])]
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((elsewhere, 9))  # sends nothing: the system only chooses a route
            found.append(str(probe.getsockname()[0]))
    return [f"[{address}]" if ":" in address else address for address in found]


def own_environment(dropped: Sequence[str], host: str) -> dict[str, str]:
    """Returns this process's environment without the variables that start so, and without a proxy to `host`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(tuple(dropped))}
    return kept | without_proxy(host)


def without_proxy(host: str) -> dict[str, str]:
    """Returns the variables that keep requests to this host away from a proxy."""
    given = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    parts = [part.strip() for part in given.split(",")]
    if "*" in parts:  # alone it means every host; among others it means nothing
        return dict.fromkeys(("no_proxy", "NO_PROXY"), "*")
    hosts = dict.fromkeys([*filter(None, parts), *_LOOPBACK, host.strip("[]")])
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(filter(None, hosts)))


def ask(url: str, body: Mapping[str, object] | None = None) -> Any:
    """Returns what a server of this machine answers, read as JSON.

    Raises:
        OSError: it cannot be reached, or answers with an error (urllib.error.HTTPError).
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with _DIRECT.open(request, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def running(
    what: str, command: Sequence[str], environment: Mapping[str, str], page: str, folder: Path
) -> Iterator[None]:
    """Run a server in a folder of its own, for as long as the block runs; the block begins once `page` answers.

    It ends with the block, and with this process, however that ends; so does all that it started.

    Args:
        folder: one of `own_folder`; the server's working directory.

    Raises:
        SuiteError: it ended, or did not answer; says its last lines.
    """
    with (folder / server_guard.LOG).open("ab") as log:
        guard = subprocess.Popen(
            [sys.executable, "-I", server_guard.__file__, str(folder), *command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(what, guard, page, folder / server_guard.LOG)
        yield
    finally:
        assert guard.stdin is not None
        with suppress(OSError):
            guard.stdin.close()
        try:
            guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            guard.kill()
            guard.wait()


def _wait(what: str, guard: "subprocess.Popen[bytes]", page: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(page):
        ended = guard.poll() is not None
        if ended or time.monotonic() > deadline:
            lines = [" ".join(line.split()) for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
            said = redact(" / ".join(lines[-_LINES_TOLD:])[-600:]) or "it said nothing"
            raise SuiteError(f"{what} {'did not start' if ended else 'does not answer'}: {said}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for one server, for as long as the block runs; those that killed commands left are removed first."""
    _clear()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear() -> None:
    """Remove the folders of servers whose guard is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            old = time.time() - status.st_mtime > _NEW_SECONDS
            if not old or status.st_uid != os.geteuid() or folder.is_symlink():
                continue
            with (folder / server_guard.LOCK).open("r+") as lock:  # a folder without one was made by other code
                if _free(lock):
                    shutil.rmtree(folder, ignore_errors=True)


def _free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
