"""Following a journal: nothing is lost or skipped, and the writer never waits."""

import functools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sr_core.process.redaction import redact, redact_with
from study.record import tail as tail_module
from study.record.events import Event, StudyOpened, Warned
from study.record.journal import JournalError, compressed, decode, encode, opened, read, study_id
from study.record.state import StudyState, fold
from study.record.tail import BATCH, Reading, Tail
from study.tracking import follow
from study.tracking import follower as follower_module
from study.tracking.databases import ViewError
from study.tracking.follow import keeping, sync
from study.tracking.follower import Follower

Tell = Callable[..., object]


class Notebook:
    """A sink that records what it receives, and fails on request."""

    name = where = "notebook"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.held = 0
        self.opened: list[StudyOpened] = []
        self.fail: Callable[[], None] = lambda: None
        self.closed = 0

    def prepare(self) -> None:
        self.fail()

    def open(self, opened: StudyOpened) -> int:
        self.fail()
        self.opened.append(opened)
        return self.held

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        self.fail()
        self.events += events
        self.batches.append(len(events))
        self.held = upto
        self.state = state

    def close(self) -> None:
        self.closed += 1


def down() -> None:
    raise ConnectionError("cannot reach http://ann:secret@tracker.example")


@pytest.fixture
def in_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes rests so long that events can only arrive by a drain."""
    monkeypatch.setattr(follower_module, "MIN_REST_SECONDS", 60.0)
    monkeypatch.setattr(follower_module, "MAX_REST_SECONDS", 60.0)


def test_a_view_gets_every_event_once_with_the_state_they_lead_to(story: Tell) -> None:
    told, notebook = story().whole(), Notebook()
    assert sync(told.folder.journal, notebook) == len(notebook.events) == notebook.held
    assert notebook.events == list(read(told.folder.journal))
    assert notebook.state == told.state
    assert sync(told.folder.journal, notebook) == 0
    assert notebook.closed == 2


def test_a_long_journal_comes_in_bounded_batches(story: Tell) -> None:
    told, notebook, reports = story(points=700), Notebook(), []
    told.whole()
    total = sync(told.folder.journal, notebook, reports.append)
    assert max(notebook.batches) == BATCH and sum(notebook.batches) == total
    assert reports == [sum(notebook.batches[: i + 1]) for i in range(len(notebook.batches))]
    assert notebook.state == fold(notebook.events)


def test_a_view_goes_on_from_what_it_holds(story: Tell) -> None:
    told, notebook = story().whole(), Notebook()
    notebook.held = 10
    sync(told.folder.journal, notebook)
    assert notebook.events == list(read(told.folder.journal))[10:]
    assert notebook.state == told.state


def test_a_view_that_holds_more_than_the_journal_is_shown_everything_anew(story: Tell) -> None:
    told, notebook = story().whole(), Notebook()
    notebook.held = 10_000
    sync(told.folder.journal, notebook)
    assert notebook.events == list(read(told.folder.journal))


def test_a_torn_line_is_handed_over_when_it_is_whole(story: Tell) -> None:
    told, notebook = story(), Notebook()
    told.open()
    line = encode(1, Warned(time=1.0, message="careful"))
    with told.folder.journal.open("ab") as file:
        file.write(line[:-7])
        file.flush()
        assert sync(told.folder.journal, notebook) == 1
        file.write(line[-7:])
    assert sync(told.folder.journal, notebook) == 1
    assert notebook.events[-1] == Warned(time=1.0, message="careful")


def test_a_line_that_is_completed_while_it_is_read_is_no_damage(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    told, notebook = story(), Notebook()
    told.open()
    line = encode(1, Warned(time=1.0, message="careful"))
    with told.folder.journal.open("ab", buffering=0) as file:
        file.write(line[:-7])

        def completing(seen: bytes) -> tuple[int, Event]:
            if not seen.endswith(b"\n"):
                file.write(line[-7:])  # the study's owner gets on with the line
            return decode(seen)

        monkeypatch.setattr("study.record.tail.decode", completing)
        assert sync(told.folder.journal, notebook) == 1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda lines: [*lines[:3], lines[3].replace(b"trial", b"trail"), *lines[4:]], "line 4 does not match its che"),
        (lambda lines: [*lines[:3], *lines[4:]], "sequence number 4, expected 3"),
        (lambda lines: [lines[0].replace(b"x", b"y"), *lines[1:]], "line 1 does not match"),
    ],
)
def test_a_damaged_journal_is_not_interpreted(
    story: Tell, spoil: Callable[[list[bytes]], list[bytes]], complaint: str
) -> None:
    journal = story().whole().folder.journal
    journal.write_bytes(b"".join(spoil(journal.read_bytes().splitlines(keepends=True))))
    with pytest.raises(JournalError, match=complaint):
        sync(journal, Notebook())


# Several views of one journal


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(1, 40)), max_size=30),
    kept=st.integers(1, 60),
)
def test_views_that_read_in_any_batches_see_the_same_events_and_states(
    story: Tell, steps: list[tuple[int, int, int]], kept: int
) -> None:
    lines = _lines(story)
    events = [decode(line)[1] for line in lines]
    with tempfile.TemporaryDirectory() as folder, patch.object(tail_module, "KEPT", kept):
        journal = Path(folder) / "journal.jsonl"
        reading, written = Reading(journal), 0
        tails = [Tail(journal, reading) for _ in range(3)]
        seen: list[list[Event]] = [[], [], []]
        at_last = [(len(lines), view, len(lines)) for view in range(3)]
        for more, view, most in (*steps, *at_last):
            with journal.open("ab") as file:
                file.write(b"".join(lines[written : written + more]))
            written = min(written + more, len(lines))
            tail, before = tails[view], tails[view].count
            seen[view] += tail.read(most)
            assert tail.count == len(seen[view]) == min(before + most, written), "all that exist, up to the limit"
            assert tail.state == fold(events[: tail.count])
            assert tail.offset == sum(map(len, lines[: tail.count]))
        assert seen == [events] * 3
        assert tails[0].state is tails[1].state is tails[2].state


@functools.cache
def _lines(story: Tell) -> list[bytes]:
    journal = story().whole().folder.journal
    return journal.read_bytes().splitlines(keepends=True)


def test_two_views_decode_and_fold_each_event_once(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, decoded = story(points=100).whole().folder.journal, list[int]()
    monkeypatch.setattr(tail_module, "decode", lambda line: decoded.append(1) or decode(line))
    reading, one, other = Reading(journal), Notebook(), Notebook()
    with keeping(journal, one, reading) as first:
        other.name = "other"
        with keeping(journal, other, reading) as second:
            while first.advance() + second.advance():
                pass
            assert one.state is other.state, "held in memory once"
    assert len(decoded) == len(one.events) == len(other.events)
    assert one.events == other.events


def test_a_view_far_behind_shares_the_state_again_once_it_has_caught_up(
    story: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "KEPT", 20)
    journal = story(points=30).whole().folder.journal
    reading = Reading(journal)
    quick, slow = Tail(journal, reading), Tail(journal, reading)
    while quick.read(7):
        pass
    seen = list[Event]()
    while found := slow.read(10):
        seen += found
    assert slow.state is quick.state
    assert seen == list(read(journal))


def test_a_view_that_holds_nearly_all_starts_from_what_another_one_has_read(
    story: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = story(points=100).whole().folder.journal
    count = len(list(read(journal)))
    reading = Reading(journal)
    one = Tail(journal, reading)
    one.read(count)
    decoded = list[int]()
    monkeypatch.setattr(tail_module, "decode", lambda line: decoded.append(1) or decode(line))
    other = Tail(journal, reading)
    other.skip_to(count)
    assert (other.count, len(decoded)) == (count, 0) and other.state is one.state


def test_a_published_journal_is_unpacked_once_however_many_batches_it_has(
    story: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.jsonl.gz"
    journal.write_bytes(compressed(story(points=100).whole().folder.journal))
    unpacked = list[int]()
    monkeypatch.setattr(tail_module, "opened", lambda path: unpacked.append(1) or opened(path))
    notebook = Notebook()
    sync(journal, notebook)
    assert len(notebook.batches) > 1 and len(unpacked) == 1
    assert notebook.events == list(read(journal))


def test_an_event_is_folded_in_one_batch_with_those_read_with_it(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, folds = story(points=100).whole().folder.journal, list[int]()
    monkeypatch.setattr(tail_module, "fold", lambda events, state: folds.append(len(events)) or fold(events, state))
    monkeypatch.delattr(StudyState, "apply")
    notebook = Notebook()
    total = sync(journal, notebook)
    assert sum(folds) == total and len(folds) <= total // BATCH + 2


def test_a_follower_hands_over_what_was_told_before_and_after_its_start(story: Tell) -> None:
    told, notebook = story(), Notebook()
    told.open()
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    assert follower.drain(5)
    told.session(trials=1)
    follower.poke()
    told.finish(told.propose(), 30.0)
    assert follower.drain(5)
    assert notebook.events == list(read(told.folder.journal))
    assert follower.lag() == 0 and follower.standing.busy_seconds > 0
    follower.stop()
    assert not follower.is_alive() and notebook.closed == 1


def test_a_follower_may_start_before_the_first_line(story: Tell) -> None:
    told, notebook = story(), Notebook()
    told.folder.journal.unlink()
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    assert follower.drain(5) and follower.lag() == 0 and not notebook.opened
    follower.stop()


def test_news_is_handed_over_without_a_drain(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "MIN_REST_SECONDS", 0.05)
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 60.0)
    told, notebook = story(), Notebook()
    told.open()
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    _until(lambda: len(notebook.events) == 1)
    time.sleep(0.2)  # it has read to the end and waits for news
    told.session(trials=1)
    follower.poke()
    _until(lambda: len(notebook.events) == 2)
    follower.stop()


@pytest.mark.usefixtures("in_no_hurry")
def test_events_gather_between_two_hand_overs(story: Tell) -> None:
    told, notebook = story(), Notebook()
    told.open()
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    _until(lambda: len(notebook.events) == 1)
    for _ in range(50):
        told.tell(Warned, message="news")
        follower.poke()
    assert follower.drain(5)
    assert notebook.batches == [1, 50]
    follower.stop()


def test_a_tracker_that_is_down_delays_nobody_and_catches_up(
    story: Tell, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "DRAIN_BACKOFF_SECONDS", 0.05)
    told, notebook = story(), Notebook()
    notebook.fail = down
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    began = time.perf_counter()
    told.whole()
    for _ in range(1000):
        follower.poke()
    assert time.perf_counter() - began < 5
    assert not follower.drain(0.5)
    assert follower.lag() == len(list(read(told.folder.journal)))
    notebook.fail = lambda: None
    assert follower.drain(5)
    assert notebook.events == list(read(told.folder.journal))
    assert follower.lag() == 0
    follower.stop()
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "http://***@tracker.example" in said[0] and "secret" not in caplog.text
    assert "writing again" in said[1]


def test_what_failed_half_way_comes_again(story: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "DRAIN_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(follow, "BATCH", 7)
    told, notebook = story().whole(), Notebook()
    calls = iter(range(1000))

    def sometimes() -> None:
        if next(calls) % 3 == 2:
            raise ViewError("the tracker said no")

    notebook.fail = sometimes
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    assert follower.drain(10)
    follower.stop()
    assert notebook.events == list(read(told.folder.journal))
    assert len(notebook.opened) > 1


def test_a_tracker_that_hangs_does_not_keep_the_study_from_ending(story: Tell) -> None:
    told, notebook, release = story().whole(), Notebook(), threading.Event()

    def hang() -> None:
        release.wait(30)

    notebook.fail = hang
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    began = time.perf_counter()
    assert not follower.drain(0.2)
    follower.stop(timeout=0.2)
    assert time.perf_counter() - began < 2
    assert follower.daemon
    release.set()
    follower.join(5)


def test_a_mistake_of_ours_in_a_sink_shows_where_it_is(story: Tell, caplog: pytest.LogCaptureFixture) -> None:
    told, notebook = story().whole(), Notebook()

    def mistake() -> None:
        raise KeyError("no such thing")

    notebook.fail = mistake
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    assert not follower.drain(0.3)
    follower.stop()
    assert f"KeyError: 'no such thing', {__file__}:" in caplog.text


def test_a_view_has_one_keeper_at_a_time(story: Tell) -> None:
    told, notebook = story().whole(), Notebook()
    follower = Follower(told.folder.journal, notebook)
    follower.start()
    assert follower.drain(5)
    with pytest.raises(ViewError, match="another process keeps this view"):
        sync(told.folder.journal, Notebook())
    follower.stop()
    assert sync(told.folder.journal, notebook) == 0


def test_two_studies_of_one_name_are_told_apart(story: Tell) -> None:
    one, other = story("one"), story("other")
    one.open()
    other.open()
    first = [next(read(told.folder.journal)) for told in (one, other)]
    assert isinstance(first[0], StudyOpened) and isinstance(first[1], StudyOpened)
    assert study_id(first[0]) != study_id(first[1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:pw@host:1/x", "http://***@host:1/x"),
        ("at postgresql+psycopg://ann:p@w@db/x failed", "at postgresql+psycopg://***@db/x failed"),
        ("postgresql+psycopg://ann:p/w@db/x", "postgresql+psycopg://***@db/x"),
        ("https://token@host", "https://***@host"),
        ("postgresql://db/x?user=ann&password=pw&sslmode=require", "postgresql://db/x?user=ann&password=***&sslmode=require"),
        ("http://host?api_key=k", "http://host?api_key=***"),
        ("sqlite:////home/ann/mlflow.db", "sqlite:////home/ann/mlflow.db"),
        ("postgresql://study:pa ss@db/x", "postgresql://***@db/x"),
        ("at postgresql://study:pa ss@db/x: failed", "at postgresql://***@db/x: failed"),
        ("http://u:12 34@host/", "http://***@host/"),
        ("postgresql://u:p?a@db/x", "postgresql://***@db/x"),
        ("postgresql://u:a://b@db/x", "postgresql://***@db/x"),
        ("https://ann:p%40ss@host/", "https://***@host/"),
        ("http://host/?access_token=abc&y=1", "http://host/?access_token=***&y=1"),
        ("postgresql://db/x?p%61ssword=abc", "postgresql://db/x?p%61ssword=***"),
        ("postgresql://db/x?password=a b&y=1", "postgresql://db/x?password=***&y=1"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3Dp%2Bw", "mssql+pyodbc:///?odbc_connect=UID%3Dsa%3BPWD%3D***"),
        ("connect failed: password=abc host=db", "connect failed: password=*** host=db"),
    ],
)  # fmt: skip
def test_no_password_is_ever_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/a@b/mlflow.db",
        "sqlite:////data/key=5/token=x:y@z/mlflow.db",
        "sqlite:////data/a%3Fb/mlflow.db",
        "mlflow ui --backend-store-uri 'sqlite:////my root@home/mlflow.db' --artifacts-destination file:///my%20root@home/a",
        "http://host:5000/path@x?page=2",
        "http://[::1]:5000/x@y",
        "postgresql+psycopg://study@db:5432/x?sslmode=require",
        "at postgresql://db:5432/x: failed for ann@host",
    ],
)  # fmt: skip
def test_an_address_without_a_password_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_password_is_not_shown_either_where_a_message_quotes_it_in_another_form() -> None:
    uri = "postgresql://ann:s3cret%2F%40word@127.0.0.1/x"
    assert redact_with(uri, 'no user "ann" with "s3cret/@word"') == 'no user "ann" with "***"'


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
