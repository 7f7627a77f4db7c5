"""The newest claim owns a study while its lease is renewed. A lock allows a quick restart on the same machine."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError, TakenOverError
from sr_core.process import locks
from study.record import claims, ownership
from study.record.events import Failed, Warned
from study.record.folder import StudyFolder
from study.record.journal import Journal, read
from study.record.ownership import has_begun
from study.session.coordinator import Coordinator
from study.tracking.follow import Keeper

Tell = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path, "small")
    made.create()
    return made


def left_by(folder: StudyFolder, machine: str, *, seconds_ago: float) -> None:
    """A lock file as another owner left it. No process on this machine holds it."""
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
        with pytest.raises(SuiteError, match="another process took over the study, and writes this view now"):
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
    assert not has_begun(lock, here, os.getpid(), time.time()), "the study has no owner"


def test_a_lock_that_another_process_only_looks_at_is_not_taken_over(folder: StudyFolder) -> None:
    with (folder.path / "lock").open("a+") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        with pytest.raises(
            SuiteError, match="is being run by another process; wait until it ends, or take the study over"
        ):
            folder.lock().__enter__()


# Claims


def claim(folder: StudyFolder, epoch: int, *, machine: str = "another boot", silent: float = 0.0, **more: Any) -> Path:
    """The claim that another owner left, and how long ago it was renewed."""
    folder.owners.mkdir(exist_ok=True)
    path = folder.owners / str(epoch)
    content = {"host": "far", "machine": machine, "pid": 7, "since": 1_700_000_000.0, "epoch": epoch, "lock": 1}
    path.write_text(json.dumps({**content, **more}))
    moment = time.time() - silent
    os.utime(path, (moment, moment))
    return path


def record(folder: StudyFolder, held: ownership.Ownership) -> None:
    """Write a line."""
    journal = Journal(folder.journal, held.check)
    journal.append(Warned(time=1.0, message="a line"))
    journal.close()


def test_each_owner_makes_a_claim_of_the_next_epoch_that_says_who_it_is(folder: StudyFolder) -> None:
    for epoch in (1, 2, 3):
        with folder.owned() as held:
            assert held.epoch == epoch
            record(folder, held)
            said = json.loads((folder.owners / str(epoch)).read_text())
            assert (said["host"], said["pid"]) == (socket.gethostname(), os.getpid())
    assert sorted(path.name for path in folder.owners.iterdir()) == ["1", "2", "3"]


def test_an_owner_that_recorded_nothing_leaves_no_claim_unless_it_keeps_a_former_one_out(folder: StudyFolder) -> None:
    with folder.owned() as held:
        record(folder, held)
    with folder.owned() as held:
        assert held.epoch == 2
        assert (folder.owners / "2").exists()
    assert [path.name for path in folder.owners.iterdir()] == ["1"]
    with folder.owned() as former:
        with folder.owned(take_over=True) as held:
            assert held.epoch == 3
        assert not former.lasts, "it may wake at any time"
    assert (folder.owners / "3").exists()


def test_epochs_go_on_from_those_in_a_record_that_came_without_claims(story: Tell) -> None:
    told = story()
    told.open()
    told.session(trials=4, epoch=6)
    told.close()
    with told.folder.owned() as held:
        assert held.epoch == 7
        record(told.folder, held)
    with told.folder.owned() as held:
        assert held.epoch == 8


def test_a_live_claim_from_another_machine_is_respected_whatever_the_lock_file_says(folder: StudyFolder) -> None:
    claim(folder, 3, silent=20)
    expected = r"process 7 on far since .*, whose last sign of life was 2\d s ago; wait until it ends.*--take-over"
    with pytest.raises(SuiteError, match=expected), folder.owned():
        pass
    assert str(folder.owner()).startswith("process 7 on far")
    with folder.owned(take_over=True) as held:
        assert held.epoch == 4


def test_a_claim_that_was_not_renewed_for_a_minute_is_over(folder: StudyFolder) -> None:
    claim(folder, 3, silent=61)
    assert folder.owner() is None
    with folder.owned() as held:
        assert held.epoch == 4


def test_a_claim_whose_content_is_not_there_yet_is_live(folder: StudyFolder) -> None:
    claim(folder, 1).write_text("")
    with pytest.raises(SuiteError, match="is being run by another process, whose last sign of life was 0 s ago"):
        folder.lock().__enter__()


def test_a_lease_is_measured_by_the_clock_of_the_file_system(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "lock").touch()
    claim(folder, 1, silent=5)
    fast = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: fast)
    assert str(folder.owner()).startswith("process 7 on far"), "this machine's clock is an hour fast"
    with pytest.raises(SuiteError, match=r"whose last sign of life was [5-9] s ago"):
        folder.lock().__enter__()
    left = [path.name for path in (*folder.path.iterdir(), *folder.owners.iterdir())]
    assert sorted(left) == ["1", "lock", "owners"], "the file that told the time is gone"


def test_a_lease_of_version_0_1_is_measured_by_the_clock_of_the_file_system(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by(folder, "another boot", seconds_ago=5)
    fast = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: fast)
    assert str(folder.owner()).startswith("process 7 on far")


def test_version_0_1_sees_the_lock_of_a_present_owner(folder: StudyFolder) -> None:
    lock = folder.path / "lock"
    folder.journal.touch()
    with folder.owned(), lock.open("r+") as theirs:
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said = json.loads(theirs.read())
        assert (said["machine"], said["host"], said["pid"]) == (ownership.machine(), socket.gethostname(), os.getpid())
    assert lock.read_text() == ""


def test_an_owner_of_version_0_1_that_takes_over_is_noticed(folder: StudyFolder) -> None:
    lock = folder.path / "lock"
    with folder.owned() as held:
        held.check()
        aside = lock.with_name(".lock-8")
        aside.write_text(json.dumps({"host": "far", "machine": "another boot", "pid": 8, "since": 1_700_000_000.0}))
        aside.replace(lock)
        with pytest.raises(TakenOverError, match="taken over by process 8 on far"):
            held.check()


def test_two_processes_with_one_number_on_two_hosts_write_under_different_names(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    names = set()
    for host in ("pod-a", "pod-b", "pod-b"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        names.add(locks.unique_name(folder.journal).name)
    assert len(names) == 3
    assert sum("pod-b-7" in name for name in names) == 2


# File systems without locks


def without_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def without_effect(*_: object) -> None:
    """Some mounts say yes to everybody."""


@pytest.mark.parametrize("flock", [without_locks, without_effect], ids=["refused", "pretended"])
def test_without_locks_claim_and_lease_decide(
    flock: Callable[..., None], folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.owned() as held:
        record(folder, held)
        assert f"process {os.getpid()} on" in str(folder.owner())
        with pytest.raises(SuiteError, match=rf"is being run by process {os.getpid()} on .* sign of life was 0 s ago"):
            folder.lock().__enter__()
        held.check()
    with folder.owned() as held:  # it left by itself, so the next one need not wait
        assert held.epoch == 2
        with folder.owned(take_over=True):
            assert not held.lasts


@pytest.mark.parametrize("flock", [without_locks, without_effect], ids=["refused", "pretended"])
def test_without_locks_a_killed_owner_s_study_is_free_after_a_minute(
    flock: Callable[..., None], folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    killed = claim(folder, 1, machine=ownership.machine(), lock=None, silent=30)
    with pytest.raises(SuiteError, match=r"whose last sign of life was 3[0-9] s ago; wait until it ends or"):
        folder.lock().__enter__()
    os.utime(killed, (0, 0))
    with folder.owned() as held:
        assert held.epoch == 2


def test_without_hard_links_a_claim_is_made_all_the_same(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    with folder.owned() as held:
        assert json.loads((folder.owners / "1").read_text())["pid"] == os.getpid()
        with pytest.raises(SuiteError, match="is being run by process"):
            folder.lock().__enter__()
        held.check()


def test_a_link_whose_answer_was_lost_is_a_claim(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(one: Path, other: Path) -> None:
        link(one, other)
        link(one, other)  # as an NFS client does

    monkeypatch.setattr(os, "link", twice)
    with folder.owned() as held:
        assert held.epoch == 1


def test_a_file_system_that_can_neither_lock_nor_create_exclusively_is_refused_with_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_EXCL and "owners" in str(path):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(fcntl, "flock", without_locks)
    monkeypatch.setattr(os, "open", opened)
    folder = StudyFolder(tmp_path / "root", "small")
    with pytest.raises(SuiteError, match=r"small/owners: .*neither lock a file nor create one exclusively.*local disk"):
        folder.owned().__enter__()


def test_a_file_system_that_lets_two_create_one_file_is_refused(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(path: Path, content: bytes) -> bool:
        path.write_bytes(content.replace(b'"pid"', b'"dip"'))  # the other one was later
        return True

    monkeypatch.setattr(claims, "create_exclusively", both)
    with pytest.raises(SuiteError, match="two processes created this file"):
        folder.lock().__enter__()


# What others write


def test_a_new_owner_removes_what_kills_left_of_its_own_files_and_of_no_other_s(story: Tell) -> None:
    folder = story().whole().folder
    training = replace(folder, training="0001-960")
    training.create()
    own = [folder.path / ".epoch.1.writing", folder.trial(0) / ".config.json.1.writing"]
    others = [
        training.path / ".journal.jsonl.1.writing",
        training.trial(1) / ".checkpoint.safetensors.4242.writing",
        folder.report.parent / ".report.html.1.writing",
    ]
    for path in (*own, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with training.lock(), folder.owned():
        assert [path for path in own if path.exists()] == []
        assert [path for path in others if not path.exists()] == []
    with training.owned():
        assert not others[0].exists() and not others[1].exists(), "they are the training's own"


def test_a_checkpoint_s_half_that_gets_its_name_while_leftovers_are_removed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StudyFolder(tmp_path, "small")
    half = folder.trial(0) / ".checkpoint.safetensors.7.writing"
    half.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([half]))
    coordinator = Coordinator.__new__(Coordinator)
    coordinator._folder = folder
    coordinator._drop_checkpoint(0)
    assert not half.exists()


@pytest.mark.parametrize("written", range(4))
def test_a_disk_that_is_full_before_a_study_is_owned_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    calls: list[int] = []
    real = os.fsync

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    lock, journal = tmp_path / "lock", tmp_path / "journal.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"), ownership.owned(lock, "study x", journal):
            pass
    assert not lock.exists()
    with ownership.owned(lock, "study x", journal) as held:
        assert held.lasts


def test_a_study_s_folders_are_listed_once_when_it_is_taken_and_not_its_trainings(
    story: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = story().whole().folder
    training = replace(folder, training="0001-960")
    (training.trial(1) / "pictures").mkdir(parents=True)
    listed: list[str] = []
    real = os.scandir

    def counted(path: Any = ".") -> Any:
        listed.append(os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", counted)
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("a second walk"))
    with folder.owned():
        pass
    below = [str(Path(place).relative_to(folder.path)) for place in listed if place.startswith(str(folder.path / "t"))]
    assert sorted(below) == sorted({*below}), "each once"
    assert {"trials/0000", "trials/0004", "trials/0004/pictures"} <= {*below}
    assert not [place for place in below if place.startswith("trainings")]


def test_checkpoints_of_ended_trials_are_removed_without_a_look_at_every_trial(
    story: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = story().whole()
    left = told.folder.trial(1) / "checkpoint.safetensors"
    going_on = told.folder.trial(5) / "checkpoint.safetensors"
    told.propose(model__temperature=3.0)
    told.start(5)
    for path in (left, going_on):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with told.folder.owned() as ownership:
        assert ownership.checkpoints == {1, 5}
    coordinator = Coordinator.__new__(Coordinator)
    coordinator._folder, coordinator.state, coordinator._ended_before = told.folder, told.state, len(told.state.endings)
    coordinator.checkpoints = ownership.checkpoints
    looked: list[int] = []
    drop = Coordinator._drop_checkpoint
    monkeypatch.setattr(Coordinator, "_drop_checkpoint", lambda self, n: (looked.append(n), drop(self, n))[1])
    coordinator._drop_leftovers()
    assert looked == [1]
    assert not left.exists() and going_on.exists()
    told.tell(Failed, trial=5, cause="bug", reason="x", traceback="")
    coordinator.state = told.state
    coordinator._drop_leftovers()
    assert 5 in looked and not going_on.exists(), "a former owner may have written it meanwhile"


def test_trials_behind_a_link_are_looked_at_one_by_one(story: Tell, tmp_path: Path) -> None:
    folder = story().whole().folder
    (folder.path / "trials").rename(tmp_path / "elsewhere")
    (folder.path / "trials").symlink_to(tmp_path / "elsewhere")
    with folder.owned() as ownership:
        assert ownership.checkpoints is None
