"""Which views a study has, and what a session does for them before, during and after the search."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sr_core.process.stopping import StopSignal, Terminated
from study.record.events import Event, StudyOpened
from study.record.folder import StudyFolder
from study.record.state import StudyState
from study.tracking import views
from study.tracking.databases import default_storage, default_tracking_uri
from study.tracking.views import followed, sinks_of, wait_prepared

Tell = Callable[..., Any]


class Page:
    """A sink whose store, connection or writing takes as long as a test needs."""

    name = where = "page"

    def __init__(self) -> None:
        self.store, self.door = threading.Event(), threading.Event()
        self.store.set()
        self.door.set()
        self.broken: Exception | None = None
        self.prepared = 0
        self.seen = 0

    def prepare(self) -> None:
        assert self.store.wait(30)
        if self.broken:
            raise self.broken
        self.prepared += 1

    def open(self, opened: StudyOpened) -> int:
        assert self.door.wait(30)
        return self.seen

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        self.seen = upto

    def close(self) -> None: ...


def test_without_flags_both_views_are_in_the_roots_own_stores(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "small")
    mlflow, optuna = sinks_of(folder, None, None)
    assert (mlflow.name, mlflow.where) == ("mlflow", default_tracking_uri(tmp_path))
    assert (optuna.name, optuna.where) == ("optuna", default_storage(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_none_is_no_view_and_another_store_is_named_without_its_password(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "small")
    assert sinks_of(folder, "none", "none") == []
    (mlflow,) = sinks_of(folder, "http://ann:secret@tracker.example", "none")
    (optuna,) = sinks_of(folder, "none", "postgresql+psycopg://ann:secret@db.example/optuna")
    assert mlflow.where == "http://***@tracker.example"
    assert optuna.where == "postgresql+psycopg://***@db.example/optuna"


def test_stores_are_made_before_the_journal_has_a_line_and_waited_for(story: Tell) -> None:
    told, page = story(), Page()
    page.store.clear()
    threading.Timer(0.2, page.store.set).start()
    with followed(told.folder, [page], StopSignal(), pytest.fail) as followers:
        wait_prepared(followers)
        assert (page.prepared, page.seen) == (1, 0)
        told.whole()
    assert page.seen > 0


@pytest.mark.parametrize("fault", [None, OSError("disk full")], ids=["hangs", "fails"])
def test_a_store_that_cannot_be_made_does_not_keep_the_study_from_starting(
    story: Tell, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    monkeypatch.setattr(views, "_PREPARE_SECONDS", 0.2)
    page, begun = Page(), time.monotonic()
    page.broken = fault
    if fault is None:
        page.store.clear()
        threading.Timer(1.0, page.store.set).start()
    with followed(StudyFolder(story().folder.root, "other"), [page], StopSignal(), pytest.fail) as followers:
        wait_prepared(followers)
        assert time.monotonic() - begun < 0.9


@pytest.mark.parametrize("raised", [KeyboardInterrupt, Terminated])
def test_nobody_waits_for_a_view_amid_the_preparation(story: Tell, raised: type[BaseException]) -> None:
    page, begun = Page(), time.monotonic()
    page.door.clear()
    threading.Timer(1.0, page.door.set).start()
    with pytest.raises(raised), followed(story().whole().folder, [page], StopSignal(), pytest.fail):
        raise raised
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("reason", ["interrupted", "terminated"])
def test_a_signal_shortens_the_wait_for_a_view_that_is_slow(
    story: Tell, reason: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_HURRIED_SECONDS", 0.0)
    page, stop, late = Page(), StopSignal(), list[str]()
    page.door.clear()
    begun = time.monotonic()
    threading.Timer(0.2, setattr, (stop, "reason", reason)).start()
    threading.Timer(2.0, page.door.set).start()
    with followed(story().whole().folder, [page], stop, late.append):
        pass
    assert late == ["page"]
    assert time.monotonic() - begun < 5


def test_views_that_are_amid_something_are_waited_for_together(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_END_SECONDS", 1.0)
    pages, begun = [Page() for _ in range(4)], time.monotonic()
    for page in pages:
        page.store.clear()
        threading.Timer(4.0, page.store.set).start()
    with pytest.raises(KeyboardInterrupt), followed(story().whole().folder, pages, StopSignal(), pytest.fail):
        raise KeyboardInterrupt
    assert 1.0 <= time.monotonic() - begun < 3.0, "one after the other it were four seconds"
