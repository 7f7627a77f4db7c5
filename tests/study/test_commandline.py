"""The flags that all study commands share."""

from argparse import Namespace
from pathlib import Path

import pytest

from sr_core.errors import SuiteError
from study.commandline import folder_from, typed
from study.tracking.databases import create_once


def test_an_empty_study_name_is_refused_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="study name ''"):
        folder_from(Namespace(root=tmp_path, study_name=""), default="quickstart")


def test_without_a_name_the_only_study_under_the_root_is_meant(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "journal.jsonl").touch()
    assert folder_from(Namespace(root=tmp_path, study_name=None)).study == "mine"


def test_what_a_killed_creation_left_goes_with_the_next_one(tmp_path: Path) -> None:
    for left in (".store.db-77", ".store.db-77-journal"):
        (tmp_path / left).write_bytes(b"half")
    assert create_once(tmp_path / "store.db", lambda uri: None)
    assert not list(tmp_path.glob(".store.db-*"))


def test_a_password_in_an_url_is_never_typed_again() -> None:
    given = ["--tracking-uri=http://ann:secret@tracker.example", "--data", "a folder/b=1"]
    assert typed(given) == " '--tracking-uri=http://***@tracker.example' --data 'a folder/b=1'"
