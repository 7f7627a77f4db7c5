"""A journal of a later version: every command says so in one line and changes nothing."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError
from study import results
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import Journal
from study.report.__main__ import main as report
from study.reproduce import main as reproduce
from study.run import main as run
from study.simulate import main as simulate
from study.status import main as status
from study.sync import main as sync
from study.train import main as train

NEWER = ev.FORMAT + 1
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "status": (status, []),
    "report": (report, []),
    "reproduce": (reproduce, ["best"]),
    "export": (reproduce, ["best", "--export", "winner"]),
    "sync": (sync, []),
    "publish": (sync, ["--publish", "records"]),
    "simulate": (simulate, []),
    "train": (train, ["best", "--patches", "960", "--tracking-uri", "none"]),
    "run": (run, ["--experiment", "quickstart", "--trials", "1", "--tracking-uri", "none", "--storage", "none"]),
}


@pytest.fixture
def newer(tmp_path: Path, story: Any, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """A study whose first line a later version wrote: another format, with a field that is not known here."""
    told = story()
    told.open()
    told.session(1)
    told.finish(told.propose(), 30.0)
    told.close()
    folder: StudyFolder = told.folder
    first, *rest = folder.journal.read_bytes().splitlines(keepends=True)
    content = json.loads(first)
    del content["sum"]
    body = json.dumps({**content, "format": NEWER, "licence": "of the images"}, separators=(",", ":"))[:-1].encode()
    checksum = hashlib.blake2b(body, digest_size=8).hexdigest().encode()
    folder.journal.write_bytes(b"".join([body, b',"sum":"', checksum, b'"}\n', *rest]))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_the_newer_format_in_one_line_and_changes_nothing(
    name: str, newer: StudyFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, argv = COMMANDS[name]
    before = {path: path.read_bytes() for path in newer.root.rglob("*") if path.is_file()}
    assert command([*argv, "--root", str(newer.root), "--study-name", newer.study]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    what = f"expected journal format {ev.FORMAT}, got {NEWER}: a newer version of this suite wrote it"
    assert err == f"error: {newer.journal}: {what}; update this suite\n"
    left = {path: path.read_bytes() for path in newer.root.rglob("*") if path.is_file()}
    assert {path: left.get(path) for path in before} == before
    assert not (tmp_path / "winner").exists() and not (tmp_path / "records").exists()


def test_notebooks_and_writers_are_told_too(newer: StudyFolder) -> None:
    for attempt in (lambda: results.trials(newer.study, newer.root), lambda: Journal(newer.journal)):
        with pytest.raises(SuiteError, match=f"expected journal format {ev.FORMAT}, got {NEWER}: a newer version"):
            attempt()
