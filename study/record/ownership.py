"""One owner per study: a claim, a lease between machines, and a lock for a quick restart on one (contract 4).

The claim is a file in `owners` that is created exclusively (`study.record.claims`): it makes the owner and is the fence
behind which a former one writes nothing more. The lease is that file's time: its owner renews it, and is gone if it no
longer does. Where the file system has locks, the owner also holds the file `lock`: the kernel gives that back when a
process dies, so that a restart on the same machine need not wait. Where it has none, claim and lease do.

Version 0.1 had the file `lock` alone. For one release its owners are respected, and a present owner fills that file in
as they expect it. A process that replaces an owner that may be alive puts a new `lock` and a copy of the journal in
the place of the old ones: what the former one may still write goes to files that no process reads.
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

RENEW_SECONDS, STALE_SECONDS = 10.0, 60.0
"""How often an owner renews its lease, and after how long without that it is taken for gone by other machines."""
_LOOK_SECONDS = 0.5
"""Far longer than another process holds the lock only to see whether there is an owner."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """What its owner holds of a study."""

    path: Path
    """Of the lock file."""
    what: str
    """What is owned, in words."""
    file: IO[str]
    epoch: int = 0
    """Counts the owners of this study from 1."""
    checkpoints: frozenset[int] | None = None
    """Trials whose folders had a checkpoint when the study was taken; None if that is not known."""

    @property
    def lasts(self) -> bool:
        """Whether no other process has taken it over; it lasts too if the whole folder is gone."""
        return self.is_newest and not self._replaced_by_an_old_version()

    @property
    def is_newest(self) -> bool:
        """Whether no other process has made a later claim."""
        return claims_of(self.path).newest() <= self.epoch

    def check(self) -> None:
        """Raises TakenOverError, which names the present owner, if that is another one by now."""
        if not self.lasts:
            raise TakenOverError(
                f"{self.what} was taken over by {self._other()}; this process has stopped, nothing is lost"
            )

    def _replaced_by_an_old_version(self) -> bool:
        """Whether version 0.1, which makes no claim, has put its own lock file in the place of ours."""
        if is_at(self.file, self.path):
            return False
        with suppress(FileNotFoundError):
            return "epoch" not in content_of(self.path)
        return False

    def _other(self) -> str:
        claims = claims_of(self.path)
        newest = claims.newest()
        other = claims.owner(newest) if newest > self.epoch else None
        return str(other) if other else owner(self.path) or "another process"


def claims_of(path: Path) -> Claims:
    """The claims on the study that has this lock file."""
    return Claims(path.with_name("owners"))


@contextmanager
def owned(path: Path, what: str, journal: Path, *, take_over: bool = False, after: int = 0) -> Iterator[Ownership]:
    """Own a study while the block runs; the kernel gives it back however this process ends.

    Args:
        path: of the lock file.
        what: names the study in messages.
        journal: is fenced from an owner who may live on.
        take_over: take it even from a live owner.
        after: the highest epoch that the study's record knows of.
    Raises:
        SuiteError: a live process owns it; names it. Or the file system cannot keep two processes apart.
    """
    claims = claims_of(path)
    with ExitStack() as stack:
        held, content, fenced = _gained(path, what, journal, stack, take_over=take_over, after=after)
        size = _size(journal)
        renewal = Renewal(RENEW_SECONDS, lambda: claims.renew(held.epoch), lambda: os.utime(held.file.fileno()))
        try:
            yield held
        except Exception:
            if path.exists():  # where a study comes to nothing its lock goes first
                held.check()  # whatever else went wrong: a new owner takes away what the former one leans on
            raise
        finally:
            renewal.end()
            with suppress(OSError):  # a lost root: then others wait until the lease is stale
                if held.lasts:  # left by itself: the next one, from any machine, need not wait
                    if fenced or _size(journal) != size:
                        claims.leave(held.epoch, content)
                    else:
                        claims.forget(held.epoch)  # it recorded nothing, and no former owner is kept out by it
                    rewrite(held.file, None)


def owner(path: Path) -> str | None:
    """The live process that owns the study with this lock file, in words; None if there is none."""
    content = _holder(path)
    return None if content is None else claim_in_words(content)


def has_begun(path: Path, host: str, pid: int, moment: float) -> bool:
    """Whether a session that such a process began at that moment [Unix s] is the one of the study's live owner."""
    content = _holder(path) or {}
    since = content.get("since")
    return (content.get("host"), content.get("pid")) == (host, pid) and isinstance(since, float) and since <= moment


def machine() -> str:
    """The same for all processes that share a kernel, and so its locks; another one after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def is_at(file: IO[str], path: Path) -> bool:
    """Whether that is the file's name: it is removed where a study comes to nothing, and replaced by a take-over."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class _Last:
    """The present or last owner, as far as this process can tell."""

    content: dict[str, Any]
    """What it said of itself; empty if there is none, or it cannot be read."""
    alive: bool
    fence: bool
    """Whether it may live on although it counts as gone, and be about to write."""
    silence: float | None = None
    """Seconds since its last sign of life, if that is why it counts as alive."""

    def refusal(self, what: str, claim: Owner | None) -> SuiteError:
        """The error for a process that may not own the study because of it."""
        content = self.content or (claim.content if claim else {})  # it may not have filled in its lock file yet
        words = f"{what} is being run by {claim_in_words(content)}"
        if self.silence is None:
            return SuiteError(f"{words}; wait for it, or take it over: --take-over")
        return SuiteError(
            f"{words}, whose last sign of life was {max(0.0, self.silence):.0f} s ago; wait for it, or until it has "
            f"given none for {STALE_SECONDS:.0f} s, or take it over: --take-over"
        )


def _gained(
    path: Path, what: str, journal: Path, stack: ExitStack, *, take_over: bool, after: int
) -> tuple[Ownership, dict[str, Any], bool]:
    """The study as ours, what other processes read of this one, and whether a former owner may still be alive.

    Raises:
        SuiteError: another process owns it.
    """
    existed = path.exists()
    lock_file: IO[str] = stack.enter_context(path.open("a+"))
    try:
        return _claimed(path, what, journal, stack, lock_file, existed, take_over=take_over, after=after)
    except OSError:  # a full disk: the next process shall not take a lock file without a claim for an owner's
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
    """As `_gained`, with the lock file open.

    Args:
        existed: whether the lock file was there before.
    """
    claims = claims_of(path)
    locked = _gain(lock_file, path)
    newest = claims.newest()
    epoch = max(after, newest)
    aside: Path | None = None
    file = lock_file
    while True:
        claim = claims.owner(newest)
        last = _last(claim, lock_file, path if existed else None, locked)
        if last.alive and not take_over:
            raise last.refusal(what, claim)
        if last.fence and aside is None:
            aside = unique_name(path)
            file = stack.enter_context(_new_lock_file(aside))
        epoch += 1
        content = _myself(epoch, file, effective=has_effect(aside) if aside else locked == "ours")
        if claims.claim(epoch, content):
            break
        newest = epoch  # another process was faster, or this host saw an old listing
    held = Ownership(path, what, file, epoch)
    try:
        rewrite(file, content)
        if aside is None:
            _remove_copies(held, journal)
        else:
            _fence(held, aside, journal)
        sync_folder(path.parent)
    except Exception:
        if not held.is_newest:
            held.check()  # another process has taken it over by now
        if aside is None:  # a full disk: the next process need not wait for an owner that never began
            with suppress(OSError):
                claims.forget(epoch)
        raise
    held.check()
    return held, content, aside is not None


def _last(claim: Owner | None, file: IO[str], existed: Path | None, locked: Lock) -> _Last:
    """The owner that made the claim, or that the lock file tells of.

    Args:
        file: the lock file.
        existed: its path, if it was there before this process opened it.
        locked: whose its lock is.
    """
    old = read_content(file)
    if locked == "theirs":
        return _Last(old, alive=True, fence=True)
    if old and existed and (claim is None or "epoch" not in old):  # of version 0.1, or the claims were not carried over
        if old.get("machine") in (None, machine()):
            return _Last(old, alive=False, fence=claim is not None)
        silence = age(existed)
        return _Last(old, alive=silence < STALE_SECONDS, fence=True, silence=silence)
    if claim is None:
        # Version 0.1 fills in its lock file without waiting for the disk: a host may see it empty for some time.
        return _Last({}, alive=False, fence=existed is not None and age(existed) < STALE_SECONDS)
    if claim.left:
        return _Last(claim.content, alive=False, fence=False)
    theirs = (claim.content.get("machine"), claim.content.get("lock"))
    if locked == "ours" and theirs == (machine(), _identity(file)):
        return _Last(claim.content, alive=False, fence=False)  # it held this lock, which the kernel gave back
    return _by_lease(claim)


def _by_lease(claim: Owner) -> _Last:
    """The owner that made the claim, as its last sign of life tells."""
    silence = claim.silence()
    return _Last(claim.content, alive=silence < STALE_SECONDS, fence=True, silence=silence)


def _holder(path: Path) -> dict[str, Any] | None:
    """What the live owner said of itself; None if there is none."""
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
    """Whose the lock is, after a moment's patience with those who only look."""
    until = time.monotonic() + _LOOK_SECONDS
    while True:
        gained = lock(file)
        if gained == "unsupported":
            return gained
        if gained == "ours" and is_at(file, path):
            return gained if has_effect(path) else "unsupported"
        if time.monotonic() > until:
            return "theirs"
        time.sleep(_LOOK_SECONDS / 20)


@contextmanager
def _new_lock_file(aside: Path) -> Iterator[IO[str]]:
    """A lock file of our own, for the place of one that another process may hold."""
    with aside.open("a+") as file:
        lock(file)
        try:
            yield file
        finally:
            aside.unlink(missing_ok=True)


def _fence(held: Ownership, aside: Path, journal: Path) -> None:
    """Put our lock file and a copy of the journal in their places: what a former owner may write is read by no process.

    Only after the claim: what that owner wrote before it is in the copy, and what it writes later it sees refused. A
    former owner may be doing the same at this moment. Its copy must not take the place of ours: it asks whether it is
    still the owner once its copy is there under another name, and we remove that before we make ours.
    """
    if not held.is_newest:
        return
    aside.replace(held.path)
    for view in held.path.parent.glob(".*.lock"):
        view.unlink(missing_ok=True)
    _remove_copies(held, journal)
    if not journal.exists():
        return
    copy = _copy(journal, held.epoch)
    try:
        write_new(copy, journal.read_bytes())
        if held.is_newest:
            copy.replace(journal)
    finally:
        with suppress(OSError):
            copy.unlink()


def _remove_copies(held: Ownership, journal: Path) -> None:
    """Remove what former owners have not put in the journal's place."""
    os.utime(journal.parent)  # then this host sees the names that others made
    for epoch in range(1, held.epoch):
        _copy(journal, epoch).unlink(missing_ok=True)


def _size(journal: Path) -> int | None:
    """The journal's bytes; None without one."""
    return journal.stat().st_size if journal.exists() else None


def _copy(journal: Path, epoch: int) -> Path:
    """The name of an owner's copy of the journal before it takes the journal's place."""
    return journal.with_name(f".{journal.name}.copy-{epoch}")


def _myself(epoch: int, file: IO[str], *, effective: bool) -> dict[str, Any]:
    """What other processes read of this one.

    Args:
        effective: whether its lock keeps others out, so that the lock tells when it has died.
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
    """Tells a lock file from one that took its place."""
    return os.fstat(file.fileno()).st_ino
