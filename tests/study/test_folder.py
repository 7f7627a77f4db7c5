"""The layout of a study's files, and which process may write them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sr_core.errors import SuiteError
from study.record.folder import StudyFolder, default_root


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made = StudyFolder(tmp_path / "root", "small")
    made.create()
    return made


# Names and paths


@pytest.mark.parametrize("name", ["quickstart", "x2.v3", "A-b_c", "0", "a" * 100, "-", "_"])
def test_a_plain_name_names_a_study(tmp_path: Path, name: str) -> None:
    folder = StudyFolder(tmp_path, name)
    folder.create()
    assert folder.path == tmp_path / name
    assert folder.path.is_dir()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "dot.", "a/b", "a\\b", "a b", "a\n", "größe", "a:b", "a" * 101, "stores", "Artifacts"],
)
def test_a_name_that_could_leave_its_folder_or_take_another_s_place_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SuiteError, match="expected 1 to 100 letters, digits") as caught:
        StudyFolder(tmp_path, name)
    assert repr(name) in str(caught.value)


def test_everything_of_a_study_lies_in_its_folder(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "small")
    for path in (folder.journal, folder.results, folder.trial(0), folder.trial(12_345)):
        assert path.is_relative_to(tmp_path / "small")
    assert len({folder.trial(number) for number in range(20_000)}) == 20_000
    assert sorted(str(folder.trial(n)) for n in range(1_000)) == [str(folder.trial(n)) for n in range(1_000)]


def test_of_the_files_that_a_record_names_those_outside_of_the_study_are_left_out(folder: StudyFolder) -> None:
    secret = folder.root / "secret.csv"
    (folder.path / "results").mkdir()
    for path in (secret, folder.path / "results" / "ranking.csv", folder.path / "journal.csv"):
        path.write_text("1")
    (folder.path / "results" / "link.csv").symlink_to(secret)
    names = ["results/ranking.csv", "../secret.csv", str(secret), "results/link.csv", "results/../journal.csv", "gone"]
    assert folder.written(names) == {"results/ranking.csv": folder.path / "results" / "ranking.csv"}


def test_a_checkout_s_commands_share_one_root_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_root() == Path(__file__).resolve().parents[2] / "mlruns"


# Finding a study


def test_a_study_that_is_there_is_found(folder: StudyFolder) -> None:
    folder.journal.touch()
    assert folder.require() is folder


def test_a_missing_study_is_refused_with_the_names_of_those_that_are_there(folder: StudyFolder) -> None:
    for name in ("one", "two"):
        other = StudyFolder(folder.root, name)
        other.create()
        other.journal.touch()
    with pytest.raises(
        SuiteError, match=r"no study 'small' under .*root; there: one, two; choose one with --study-name$"
    ):
        folder.require()


def test_a_missing_root_holds_no_study(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no study 'small' under .*nowhere; start one with study.run$"):
        StudyFolder(tmp_path / "nowhere", "small").require()


# Writing


def test_creating_a_study_s_folder_twice_leaves_nothing_in_it(folder: StudyFolder) -> None:
    folder.create()
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("blocked", [".", "root", "root/small"])
def test_a_root_that_cannot_be_written_is_refused_by_its_flag(tmp_path: Path, blocked: str) -> None:
    (tmp_path / "base").mkdir()
    path = tmp_path / "base" / blocked
    path.parent.mkdir(exist_ok=True)
    if blocked == ".":
        path.rmdir()
    path.write_text("a file where a folder should be")
    with pytest.raises(SuiteError, match=r"--root .*: cannot be written \(.+\); choose another folder"):
        StudyFolder(tmp_path / "base" / "root", "small").create()


def test_a_read_only_root_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)  # root can write everywhere
    with pytest.raises(SuiteError, match=r"cannot be written \(Permission denied\)"):
        StudyFolder(tmp_path, "small").create()


# Owning

HOLD = """
import sys, time
from pathlib import Path
from study.record.folder import StudyFolder
with StudyFolder(Path(sys.argv[1]), "small").lock():
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_owner(folder: StudyFolder) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_owner_is_refused_and_told_who_the_first_is(folder: StudyFolder) -> None:
    with other_owner(folder) as process:
        with pytest.raises(SuiteError, match=rf"study 'small' is being run by process {process.pid} on .* since 20"):
            folder.lock().__enter__()
        assert folder.owner() is not None
        assert f"process {process.pid} on " in str(folder.owner())


def test_a_killed_owner_s_study_is_free_at_once(folder: StudyFolder) -> None:
    with other_owner(folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert folder.owner() is None
        with folder.lock():
            assert f"process {os.getpid()} on " in str(folder.owner())


def test_an_owner_who_leaves_gives_the_study_back(folder: StudyFolder) -> None:
    for _ in range(2):
        with folder.lock():
            stored = json.loads((folder.path / "lock").read_text())
            assert stored["pid"] == os.getpid()
        assert folder.owner() is None


def test_an_owner_who_fails_gives_the_study_back(folder: StudyFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.lock():
        raise ZeroDivisionError
    assert folder.owner() is None


def test_two_studies_under_one_root_have_owners_of_their_own(folder: StudyFolder) -> None:
    other = StudyFolder(folder.root, "other")
    other.create()
    with folder.lock(), other.lock():
        assert folder.owner() is not None
        assert other.owner() is not None


def test_asking_for_the_owner_takes_nothing_and_writes_nothing(folder: StudyFolder) -> None:
    assert folder.owner() is None
    assert list(folder.path.iterdir()) == []


def test_someone_who_only_looks_for_an_owner_keeps_no_one_from_starting(folder: StudyFolder) -> None:
    (folder.path / "lock").touch()
    with (folder.path / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # what `study.status` does for an instant
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        begun = time.monotonic()
        with folder.lock():
            assert time.monotonic() - begun >= 0.09


def test_the_lock_of_a_study_that_came_to_nothing_makes_no_second_owner(folder: StudyFolder) -> None:
    def give_up() -> None:
        (folder.path / "lock").unlink()
        (folder.path / "lock").touch()  # by a third one, who owns the study from now on
        fcntl.flock(first, fcntl.LOCK_UN)

    with (folder.path / "lock").open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        threading.Timer(0.1, give_up).start()
        with pytest.raises(SuiteError, match="is being run by another process; wait until it ends"):
            folder.lock().__enter__()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}', '{"pid": 1, "host": "h", "since": "x"}'])
def test_an_owner_whose_name_cannot_be_read_is_another_process(folder: StudyFolder, content: str) -> None:
    with folder.lock():
        (folder.path / "lock").write_text(content)
        assert folder.owner() == "another process"


def test_what_stops_a_study_before_its_first_line_is_told_as_it_is(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "root", "small")
    with pytest.raises(SuiteError, match=r"^no such thing$"), folder.owned():
        raise SuiteError("no such thing")
    assert not (tmp_path / "root").exists()
