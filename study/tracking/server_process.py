"""A web server as a child process: its port, the names it answers to, its environment, its start and its end."""

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
_LOCKED_AFTER_SECONDS = 60.0
"""Age of a folder after which a living guard is sure to hold its lock."""
_MAX_PORTS_TRIED = 100
_MAX_LINES_QUOTED = 3
EVERY_ADDRESS = ("0.0.0.0", "::", "")
"""Hosts that stand for every address of this machine."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Connects to a server of this machine without the environment's proxy."""


def free_port(host: str, port: int | None, first: int) -> int:
    """Returns `port` if it is given, else the first free port from `first` on.

    Raises:
        SuiteError: `port` is taken, or this machine has no such address.
    """
    candidates = range(first, first + _MAX_PORTS_TRIED) if port is None else [port]
    reason: Exception | None = None
    for candidate in candidates:
        try:
            addresses = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, (name, _, *rest) = addresses[0]
            with closing(socket.socket(family)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((name, candidate, *rest))
                return candidate
        except (OSError, OverflowError, UnicodeError) as exc:
            reason = exc
            if getattr(exc, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                break  # every other port of this address fails as well
    raise SuiteError(f"--host {host} --port {port or first}: cannot listen there ({reason}); choose another port")


def reachable(host: str) -> str:
    """Returns the host part of a URL for a server that listens on `host`."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Returns True if only this machine can reach a server that listens on `host`."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> list[str]:
    """Returns every host part of a URL under which clients may reach a server that listens on `host`."""
    names = ["localhost", "127.0.0.1", "[::1]", reachable(host)]
    if host in EVERY_ADDRESS:
        own_name = socket.gethostname()
        names += [own_name, *_own_addresses(own_name)]
    return list(dict.fromkeys(form for name in names for form in (name, name.lower())))


def _own_addresses(name: str) -> list[str]:
    """Returns this machine's full name and its addresses: those of `name`, and those it sends to others from."""
    addresses = []
    with suppress(OSError, UnicodeError):
        for *_, full_name, address in socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME):
            if full_name:
                addresses.append(full_name)
            addresses.append(str(address[0]))
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((elsewhere, 9))  # sends nothing: the system only chooses a route
            addresses.append(str(probe.getsockname()[0]))
    return [f"[{address}]" if ":" in address else address for address in addresses]


def own_environment(dropped: Sequence[str], host: str) -> dict[str, str]:
    """Returns this process's environment without variables of the prefixes `dropped`, and without a proxy to `host`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(tuple(dropped))}
    return variables | without_proxy(host)


def without_proxy(host: str) -> dict[str, str]:
    """Returns the variables that keep requests to this host away from a proxy."""
    exceptions = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    parts = [part.strip() for part in exceptions.split(",")]
    if "*" in parts:  # alone it means every host; among others it has no meaning
        return dict.fromkeys(("no_proxy", "NO_PROXY"), "*")
    hosts = dict.fromkeys([*filter(None, parts), *_LOOPBACK, host.strip("[]")])
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(filter(None, hosts)))


def ask(url: str, body: Mapping[str, object] | None = None) -> Any:
    """Returns the JSON answer of a server of this machine.

    Args:
        body: sent as JSON by POST. Without one the request is a GET.
    Raises:
        OSError: the server cannot be reached, or answers with an error (urllib.error.HTTPError).
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with _DIRECT.open(request, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def running(
    what: str, command: Sequence[str], environment: Mapping[str, str], page: str, folder: Path
) -> Iterator[None]:
    """Runs a server in a folder of its own while the block runs. The block begins once `page` answers.

    The server and all processes that it started end with the block, and with this process, even if that is killed.

    Args:
        what: the server's name, for messages.
        folder: a folder of `own_folder`, the server's working directory.

    Raises:
        SuiteError: the server ended, or did not answer. The message quotes its last lines.
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
    """Waits until `page` answers. Raises SuiteError if the server ended or takes more than _START_SECONDS."""
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(page):
        ended = guard.poll() is not None
        if ended or time.monotonic() > deadline:
            lines = [" ".join(line.split()) for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
            output = redact(" / ".join(lines[-_MAX_LINES_QUOTED:])[-600:]) or "it printed nothing"
            problem = "did not start" if ended else "does not answer"
            raise SuiteError(f"{what} {problem}: {output}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def own_folder() -> Iterator[Path]:
    """Yields a folder for one server while the block runs. Folders that killed commands left are removed first."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    """Removes the folders of servers whose guard is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            old = time.time() - status.st_mtime > _LOCKED_AFTER_SECONDS
            if not old or status.st_uid != os.geteuid() or folder.is_symlink():
                continue
            with (folder / server_guard.LOCK).open("r+") as lock:  # a folder without this file is not a server's
                if _is_free(lock):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_free(lock: IO[str]) -> bool:
    """Returns True if no process holds the lock. This process holds it afterwards, until the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
