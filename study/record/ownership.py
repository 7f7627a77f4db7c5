"""Ensures that a study has at most one owner, by a claim, a lease and a lock (promise 4).

- The claim is a file in `owners` that is created exclusively (`study.record.claims`). It decides who the owner is, and
  keeps every former owner from writing.
- The lease is the time of that file. The owner renews it. Other machines take an owner for dead if it stops renewing.
- The lock on the file `lock` speeds up a restart on the same machine: the kernel releases it when its process dies. On
  a file system without locks, claim and lease are enough.

Version 0.1 only had the lock. Its owners are still respected, and an owner of this version fills in the lock file as
version 0.1 expects it. A process that replaces an owner that may be alive replaces the lock file and the journal by new
files. What the former owner still writes then goes to files that no process reads.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sr_core.errors import SuiteError, TakenOverError
from sr_core.process.durable import sync_folder
from sr_core.process.locks import Lock, age, has_effect, lock, unique_name, write_new
from study.record.claims import Claims, Owner, Renewal, claim_in_words, content_of, read_content, rewrite

RENEW_SECONDS = 10.0
"""Time between two renewals of the lease."""
STALE_SECONDS = 60.0
"""Other machines take an owner for dead if it has not renewed its lease for this time."""
_LOOK_SECONDS = 0.5
"""Time to wait for a lock. It is far longer than a process holds the lock that only checks if there is an owner."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """A study that this process owns."""

    path: Path
    """Path of the lock file."""
    what: str
    """Name of the study in messages."""
    file: IO[str]
    """The open lock file."""
    epoch: int = 0
    """Number of this owner, counted from 1."""
    checkpoints: frozenset[int] | None = None
    """Numbers of the trials that had a checkpoint when this process became the owner; None if unknown."""

    @property
    def lasts(self) -> bool:
        """True unless another process has taken over the study. Stays True if the whole folder is deleted."""
        return self.is_newest and not self._replaced_by_an_old_version()

    @property
    def is_newest(self) -> bool:
        """True unless another process has made a later claim."""
        return claims_of(self.path).newest() <= self.epoch

    def check(self) -> None:
        """Check that this process still owns the study.

        Raises:
            TakenOverError: another process owns it now. The message names that process.
        """
        if not self.lasts:
            raise TakenOverError(
                f"{self.what} was taken over by {self._other()}; this process has stopped, and nothing is lost"
            )

    def _replaced_by_an_old_version(self) -> bool:
        """True if version 0.1, which makes no claim, has replaced our lock file by its own."""
        if is_at(self.file, self.path):
            return False
        with suppress(FileNotFoundError):
            return "epoch" not in content_of(self.path)
        return False

    def _other(self) -> str:
        """A description of the process that has taken over the study."""
        claims = claims_of(self.path)
        newest = claims.newest()
        other = claims.owner(newest) if newest > self.epoch else None
        return str(other) if other else owner(self.path) or "another process"


def claims_of(path: Path) -> Claims:
    """The claims on the study with this lock file."""
    return Claims(path.with_name("owners"))


@contextmanager
def owned(path: Path, what: str, journal: Path, *, take_over: bool = False, after: int = 0) -> Iterator[Ownership]:
    """Own a study while the block runs. The kernel releases the lock even if this process is killed.

    Args:
        path: the lock file.
        what: the name of the study in messages.
        journal: is protected from a former owner that may still be alive.
        take_over: take the study even from a live owner.
        after: the highest epoch in the study's record.
    Raises:
        SuiteError: a live process owns the study (the message names it), or the file system cannot exclude two owners.
    """
    claims = claims_of(path)
    with ExitStack() as stack:
        ownership, content, fenced = _gained(path, what, journal, stack, take_over=take_over, after=after)
        size = _size(journal)
        renewal = Renewal(
            RENEW_SECONDS, lambda: claims.renew(ownership.epoch), lambda: os.utime(ownership.file.fileno())
        )
        try:
            yield ownership
        except Exception:
            if path.exists():  # the lock file is removed first if a study is discarded
                ownership.check()  # a takeover explains most other errors, because the new owner replaces files
            raise
        finally:
            renewal.end()
            with suppress(OSError):  # if the root is gone, others wait until the lease is stale
                if ownership.lasts:  # a clean end: the next owner does not have to wait, on any machine
                    if fenced or _size(journal) != size:
                        claims.leave(ownership.epoch, content)
                    else:
                        claims.forget(ownership.epoch)  # nothing was recorded, and there is no former owner to keep out
                    rewrite(ownership.file, None)


def owner(path: Path) -> str | None:
    """A description of the live process that owns the study with this lock file; None if there is none."""
    content = _holder(path)
    return None if content is None else claim_in_words(content)


def has_begun(path: Path, host: str, pid: int, moment: float) -> bool:
    """True if the study's live owner is this process and had started by this moment.

    Args:
        path: the lock file.
        host, pid: the process of a recorded session.
        moment: when that session began, as Unix time in seconds.
    """
    content = _holder(path) or {}
    since = content.get("since")
    return (content.get("host"), content.get("pid")) == (host, pid) and isinstance(since, float) and since <= moment


def machine() -> str:
    """An identifier shared by all processes on the same kernel, and thus with the same locks. Changes at a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def is_at(file: IO[str], path: Path) -> bool:
    """True if the path still refers to this open file. A discarded study removes it, and a takeover replaces it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class _Last:
    """The current or last owner, as far as this process can tell."""

    content: dict[str, Any]
    """What the owner wrote about itself. Empty if there is no owner, or if it cannot be read."""
    alive: bool
    fence: bool
    """True if the owner counts as dead, but may still be alive and about to write."""
    silence: float | None = None
    """Seconds since its last sign of life, if that is why it counts as alive."""

    def refusal(self, what: str, claim: Owner | None) -> SuiteError:
        """The error for a process that cannot own the study because of this owner."""
        content = self.content or (claim.content if claim else {})  # the owner may not have filled in its lock file yet
        text = f"{what} is being run by {claim_in_words(content)}"
        if self.silence is None:
            return SuiteError(f"{text}; wait until it ends, or take the study over with --take-over")
        return SuiteError(
            f"{text}, whose last sign of life was {max(0.0, self.silence):.0f} s ago; wait until it ends or has been "
            f"silent for {STALE_SECONDS:.0f} s, or take the study over with --take-over"
        )


def _gained(
    path: Path, what: str, journal: Path, stack: ExitStack, *, take_over: bool, after: int
) -> tuple[Ownership, dict[str, Any], bool]:
    """Become the owner of a study.

    Returns:
        The ownership, what other processes read about this one, and True if a former owner may still be alive.
    Raises:
        SuiteError: another process owns the study.
    """
    existed = path.exists()
    lock_file: IO[str] = stack.enter_context(path.open("a+"))
    try:
        return _claimed(path, what, journal, stack, lock_file, existed, take_over=take_over, after=after)
    except OSError:  # for example a full disk: the next process must not mistake this lock file for an owner's
        if not existed and is_at(lock_file, path):
            path.unlink(missing_ok=True)
        raise


def _claimed(
    path: Path,
    what: str,
    journal: Path,
    stack: ExitStack,
    lock_file: IO[str],
    existed: bool,
    *,
    take_over: bool,
    after: int,
) -> tuple[Ownership, dict[str, Any], bool]:
    """Like `_gained`, with the lock file open.

    Args:
        existed: True if the lock file existed before.
    """
    claims = claims_of(path)
    locked = _gain(lock_file, path)
    newest = claims.newest()
    epoch = max(after, newest)
    new_lock: Path | None = None
    file = lock_file
    while True:
        claim = claims.owner(newest)
        last = _last(claim, lock_file, path if existed else None, locked)
        if last.alive and not take_over:
            raise last.refusal(what, claim)
        if last.fence and new_lock is None:
            new_lock = unique_name(path)
            file = stack.enter_context(_new_lock_file(new_lock))
        epoch += 1
        content = _myself(epoch, file, effective=has_effect(new_lock) if new_lock else locked == "ours")
        if claims.claim(epoch, content):
            break
        newest = epoch  # another process was faster, or this host had an outdated listing of the folder
    ownership = Ownership(path, what, file, epoch)
    try:
        rewrite(file, content)
        if new_lock is None:
            _remove_copies(ownership, journal)
        else:
            _fence(ownership, new_lock, journal)
        sync_folder(path.parent)
    except Exception:
        if not ownership.is_newest:
            ownership.check()  # another process has taken it over by now
        if new_lock is None:  # for example a full disk: the next process must not wait for an owner that never started
            with suppress(OSError):
                claims.forget(epoch)
        raise
    ownership.check()
    return ownership, content, new_lock is not None


def _last(claim: Owner | None, file: IO[str], existed: Path | None, locked: Lock) -> _Last:
    """The owner according to the newest claim and the lock file.

    Args:
        claim: the newest claim, if there is one.
        file: the lock file.
        existed: path of the lock file if it existed before this process opened it.
        locked: who holds the lock.
    """
    old = read_content(file)
    if locked == "theirs":
        return _Last(old, alive=True, fence=True)
    if old and existed and (claim is None or "epoch" not in old):  # of version 0.1, or copied without the claims
        if old.get("machine") in (None, machine()):
            return _Last(old, alive=False, fence=claim is not None)
        silence = age(existed)
        return _Last(old, alive=silence < STALE_SECONDS, fence=True, silence=silence)
    if claim is None:
        # Version 0.1 fills in its lock file without waiting for the disk: other hosts can see it empty for a while.
        return _Last({}, alive=False, fence=existed is not None and age(existed) < STALE_SECONDS)
    if claim.left:
        return _Last(claim.content, alive=False, fence=False)
    theirs = (claim.content.get("machine"), claim.content.get("lock"))
    if locked == "ours" and theirs == (machine(), _identity(file)):
        return _Last(claim.content, alive=False, fence=False)  # it held this lock, and the kernel has released it
    return _by_lease(claim)


def _by_lease(claim: Owner) -> _Last:
    """The owner that made this claim. It counts as alive if its last sign of life is recent."""
    silence = claim.silence()
    return _Last(claim.content, alive=silence < STALE_SECONDS, fence=True, silence=silence)


def _holder(path: Path) -> dict[str, Any] | None:
    """What the live owner wrote about itself; None if there is no live owner."""
    claims = claims_of(path)
    try:
        claim = claims.owner(claims.newest())
        if not path.exists():
            last = None if claim is None or claim.left else _by_lease(claim)
        else:
            with path.open("r") as file:
                last = _last(claim, file, path, lock(file, shared=True))
    except OSError:
        return None
    return last.content if last is not None and last.alive else None


def _gain(file: IO[str], path: Path) -> Lock:
    """Try to get the lock; returns who holds it. Waits a moment for processes that only check for an owner."""
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        gained = lock(file)
        if gained == "unsupported":
            return gained
        if gained == "ours" and is_at(file, path):
            return gained if has_effect(path) else "unsupported"
        if time.monotonic() > deadline:
            return "theirs"
        time.sleep(_LOOK_SECONDS / 20)


@contextmanager
def _new_lock_file(new_lock: Path) -> Iterator[IO[str]]:
    """A new, locked lock file that can replace one that another process may hold."""
    with new_lock.open("a+") as file:
        lock(file)
        try:
            yield file
        finally:
            new_lock.unlink(missing_ok=True)


def _fence(ownership: Ownership, new_lock: Path, journal: Path) -> None:
    """Replace the lock file and the journal by our own files, so that no process reads what a former owner writes now.

    This happens after the claim. What the former owner wrote before the claim is in our copy. What it writes later
    fails its own check. A former owner may be doing the same at this moment, and its copy must not replace ours.
    Therefore it checks that it is still the newest after it has written its copy under a temporary name, and we remove
    such copies before we make ours.
    """
    if not ownership.is_newest:
        return
    new_lock.replace(ownership.path)
    for view in ownership.path.parent.glob(".*.lock"):
        view.unlink(missing_ok=True)
    _remove_copies(ownership, journal)
    if not journal.exists():
        return
    copy = _copy(journal, ownership.epoch)
    try:
        write_new(copy, journal.read_bytes())
        if ownership.is_newest:
            copy.replace(journal)
    finally:
        with suppress(OSError):
            copy.unlink()


def _remove_copies(ownership: Ownership, journal: Path) -> None:
    """Remove the copies of the journal that former owners have not put in its place."""
    os.utime(journal.parent)  # makes this host see the files that other hosts created
    for epoch in range(1, ownership.epoch):
        _copy(journal, epoch).unlink(missing_ok=True)


def _size(journal: Path) -> int | None:
    """Size of the journal in bytes; None if there is no journal."""
    return journal.stat().st_size if journal.exists() else None


def _copy(journal: Path, epoch: int) -> Path:
    """Path of an owner's copy of the journal before it replaces the journal."""
    return journal.with_name(f".{journal.name}.copy-{epoch}")


def _myself(epoch: int, file: IO[str], *, effective: bool) -> dict[str, Any]:
    """What other processes read about this one.

    Args:
        effective: True if the lock excludes other processes, so that a free lock means that the owner has died.
    """
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "since": time.time(),
        "epoch": epoch,
        "lock": _identity(file) if effective else None,
    }


def _identity(file: IO[str]) -> int:
    """A number (inode) that distinguishes a lock file from one that replaced it."""
    return os.fstat(file.fileno()).st_ino
