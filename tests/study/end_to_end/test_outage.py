"""A tracker that is down while a study runs: the study does not notice, and afterwards nothing is missing."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from study.record.folder import StudyFolder
from study.record.journal import read
from study.tracking.databases import default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow.sink import MlflowSink

IMPATIENT = """
from study.tracking import follower
follower.MAX_BACKOFF_SECONDS = 2.0
"""
"""A study whose follower tries again at least every two seconds."""


@pytest.mark.slow
def test_a_tracker_that_is_down_for_the_middle_third_costs_nothing_and_lacks_nothing_afterwards(
    tiny: Any,
    commands: Any,
    tmp_path: Path,
    make_tracker: Any,
    shown_in_mlflow: Any,
    wait_until: Any,
    state_of: Any,
    unhurried: str,
) -> None:
    root, tracker = tmp_path / "root", make_tracker()
    folder = StudyFolder(root, "tiny")
    whole = 70  # lines of the journal, about

    def lines() -> int:
        return folder.journal.read_bytes().count(b"\n") if folder.journal.exists() else 0

    argv = tiny.argv(root, "--tracking-uri", tracker.uri, "--storage", "none", views=True)
    process = commands.start("study.run", *argv, first=unhurried + IMPATIENT)
    wait_until(lambda: lines() >= whole / 3)
    tracker.kill()
    wait_until(lambda: lines() >= whole * 2 / 3)
    assert process.poll() is None
    assert "mlflow: cannot write" in process.err
    process.kill(signal.SIGSTOP)  # or on a busy machine it is over before the tracker is back
    stopped = time.monotonic()
    tracker.start()
    stopped = time.monotonic() - stopped
    process.kill(signal.SIGCONT)
    ended = process.wait()
    assert ended.status == 0 and "not up to date" not in ended.out
    assert "mlflow: writing again" in ended.err

    state = state_of(root)
    assert state.complete and lines() == state.count
    standing = json.loads((folder.path / ".mlflow.json").read_text())
    assert (standing["events"], standing["error"]) == (state.count, "")
    wall = state.last_time - state.session.time - stopped
    assert 0 < standing["waited_seconds"] <= 0.005 * wall
    sync(folder.journal, MlflowSink(default_tracking_uri(root), folder))  # what it is without an outage
    assert shown_in_mlflow(tracker.uri, "tiny") == shown_in_mlflow(default_tracking_uri(root), "tiny")


@pytest.mark.slow
def test_no_password_of_a_view_is_in_any_file_or_on_the_screen(
    tiny: Any, commands: Any, tmp_path: Path, tree_of: Any, postgres: Any
) -> None:
    """A tracker that is down and a database that refuses: both are talked about the whole time."""
    root = tmp_path / "root"
    views = ("--tracking-uri", "http://ann:s3cr3t@127.0.0.1:9", "--storage", postgres.new_database() + "gone")
    ended = commands.run("study.run", *tiny.argv(root, *views, trials=2, views=True))
    assert ended.status in (0, 3) and "not up to date" in ended.out
    for secret in ("s3cr3t", "s3cret"):
        assert secret not in ended.out + ended.err
        assert [name for name, content in tree_of(root).items() if secret.encode() in content] == []
    asked = commands.run("study.status", "--root", root, "--json")
    assert "***@127.0.0.1" in asked.out and "s3cr" not in asked.out
    assert list(read(StudyFolder(root, "tiny").journal))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["during", "after"])
def test_a_folder_recorded_without_a_tracker_fills_one_later_from_another_place(
    moment: str, finished: Any, tiny: Any, commands: Any, tmp_path: Path, shown_in_mlflow: Any
) -> None:
    """As on a node without a network: the folder is carried to a machine that has one."""
    root = tmp_path / "node"
    argv = tiny.argv(root, trials=3)
    if moment == "during":
        argv += ["--timeout", "1s"]
    commands.run("study.run", *argv)
    assert {path.name for path in root.iterdir()} <= {"stores", "tiny", "compiled"}
    carried = root.rename(tmp_path / "desk")
    ended = commands.run("study.sync", "--root", carried)
    assert (ended.status, ended.err) == (0, "")
    shown = shown_in_mlflow(default_tracking_uri(carried), "tiny")
    assert len(shown) >= 2
    if moment == "after":
        assert "weights.safetensors" in shown["reference: authors"]["files"]
