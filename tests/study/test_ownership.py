"""Who owns a study: the kernel's lock on one machine, a lease between machines, and a fence behind a take-over."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError, TakenOverError
from study import ownership
from study.events import Warned
from study.folder import StudyFolder
from study.journal import Journal, read
from study.ownership import has_begun
from study.tracking.follow import Keeper

Tell = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path, "small")
    made.create()
    return made


def left_by(folder: StudyFolder, machine: str, *, seconds_ago: float) -> None:
    """A lock file as another owner left it; nobody on this machine holds it."""
    lock = folder.path / "lock"
    lock.write_text(json.dumps({"host": "far", "machine": machine, "pid": 7, "since": 1_700_000_000.0}))
    os.utime(lock, (time.time() - seconds_ago,) * 2)


def test_an_owner_on_another_machine_who_renews_its_lease_is_named_and_left_alone(folder: StudyFolder) -> None:
    left_by(folder, "another boot", seconds_ago=25)
    expected = r"study 'small' is being run by process 7 on far since .*, whose last sign of life was 2[5-9] s ago;"
    with pytest.raises(SuiteError, match=expected + ".*--take-over"), folder.owned():
        pass
    assert str(folder.owner()).startswith("process 7 on far since ")


def test_an_owner_on_another_machine_whose_lease_is_stale_is_gone(folder: StudyFolder) -> None:
    left_by(folder, "another boot", seconds_ago=61)
    assert folder.owner() is None
    with folder.owned():
        assert f"process {os.getpid()} on" in str(folder.owner())


def test_a_lease_is_nothing_to_a_restart_on_the_same_machine(folder: StudyFolder) -> None:
    left_by(folder, ownership.machine(), seconds_ago=0)
    assert folder.owner() is None
    with folder.owned():
        pass


def test_an_owner_who_left_by_itself_keeps_nobody_on_another_machine_waiting(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.journal.touch()
    with folder.owned():
        pass
    monkeypatch.setattr(ownership, "machine", lambda: "another boot")
    assert folder.owner() is None
    with folder.owned():
        pass


def test_an_owner_renews_its_lease(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "RENEW_SECONDS", 0.05)
    lock = folder.path / "lock"
    with folder.owned():
        os.utime(lock, (0, 0))
        until = time.monotonic() + 10
        while lock.stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert abs(lock.stat().st_mtime - time.time()) < 5


def test_what_the_former_owner_writes_after_a_take_over_is_refused_or_read_by_nobody(story: Tell) -> None:
    told = story().whole()
    told.close()
    folder = told.folder
    (folder.path / ".mlflow.lock").touch()
    with folder.owned() as first:
        journal = Journal(folder.journal, first.check)
        written = folder.journal.read_bytes()
        with folder.owned(take_over=True) as second:
            assert second.lasts and not first.lasts
            assert not (folder.path / ".mlflow.lock").exists()
            event = Warned(time=1.0, message="too late")
            with pytest.raises(TakenOverError, match=rf"'small' was taken over by process {os.getpid()} on .*nothing"):
                journal.append(event)
            journal._guard = lambda: None  # stopped between the question and the writing
            journal.append(event)
            with pytest.raises(TakenOverError):
                Journal(folder.journal, first.check)
            assert folder.journal.read_bytes() == written
            again = Journal(folder.journal, second.check)
            again.append(event)
            again.close()
        journal.close()
    assert list(read(folder.journal))[-1] == event
    assert len(list(read(folder.journal))) == told.state.count + 1


def test_a_stale_lease_is_fenced_too_for_its_owner_may_only_sleep(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = story().whole().folder
    monkeypatch.setattr(ownership, "machine", lambda: "another boot")
    with (folder.path / "lock").open("a") as theirs, folder.journal.open("ab") as writing:
        theirs.write(json.dumps({"host": "far", "machine": "a third boot", "pid": 7, "since": 0.0}))
        theirs.flush()
        os.utime(folder.path / "lock", (0, 0))
        before = folder.journal.read_bytes()
        with folder.owned():
            assert not ownership.Ownership(folder.path / "lock", "small", theirs).lasts
            writing.write(b"stray\n")
            writing.flush()
            assert folder.journal.read_bytes() == before


def test_one_who_was_replaced_amid_the_preparation_takes_nothing_away(folder: StudyFolder) -> None:
    with folder.owned():
        second = folder.owned(take_over=True)
        second.__enter__()
    assert (folder.path / "lock").exists(), "the first came to nothing, and removed what is the second's"
    assert folder.owner() is not None
    second.__exit__(None, None, None)
    assert not folder.path.exists() or not (folder.path / "lock").exists()


def test_the_former_keeper_of_a_view_leaves_it_to_the_new_owner(story: Tell) -> None:
    class Nothing:
        name = where = "nothing"

        def prepare(self) -> None: ...
        def open(self, opened: object) -> int:
            return 0

        def take(self, *events: object) -> None: ...
        def close(self) -> None: ...

    folder = story().whole().folder
    keeper = Keeper(folder.journal, Nothing())
    assert keeper.advance() > 0
    with folder.owned(), folder.owned(take_over=True):
        other = Keeper(folder.journal, Nothing())
        assert other.advance() > 0
        with pytest.raises(SuiteError, match="leave the view to its new owner"):
            keeper.advance()
        with pytest.raises(SuiteError, match="another process keeps this view"):
            keeper.advance()
        assert other.advance() == 0
        other.close()


def test_a_session_is_the_owner_s_only_if_that_process_began_it_since_it_has_the_lock(folder: StudyFolder) -> None:
    lock, here = folder.path / "lock", socket.gethostname()
    before = time.time() - 1
    assert not has_begun(lock, here, os.getpid(), before)
    with folder.owned():
        assert has_begun(lock, here, os.getpid(), time.time())
        assert not has_begun(lock, here, os.getpid(), before), "an earlier session of a process with that number"
        assert not has_begun(lock, here, os.getpid() + 1, time.time())
        assert not has_begun(lock, "elsewhere", os.getpid(), time.time())
    assert not has_begun(lock, here, os.getpid(), time.time()), "nobody owns it"


def test_a_lock_that_another_process_only_looks_at_is_not_taken_over(folder: StudyFolder) -> None:
    with (folder.path / "lock").open("a+") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        with pytest.raises(SuiteError, match="is being run by another process; wait for it, or take it over"):
            folder.lock().__enter__()
