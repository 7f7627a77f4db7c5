"""The journal: written events are read back, a torn tail is removed, and damage is an error that names the line."""

import hashlib
import json
import math
import os
import re
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_core.errors import TakenOverError
from study.record import events as ev
from study.record.events import Event
from study.record.journal import Journal, JournalError, JournalPosition, TornLineError, compressed, decode, encode, read
from study.record.tail import Tail

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KINDS = (
    ev.StudyOpened,
    ev.SessionStarted,
    ev.SessionEnded,
    ev.Proposed,
    ev.Started,
    ev.Validated,
    ev.Checkpointed,
    ev.MicroBatchReduced,
    ev.Paused,
    ev.Resumed,
    ev.WorkerLost,
    ev.Finished,
    ev.Pruned,
    ev.Failed,
    ev.Warned,
    ev.Concluded,
)
BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "format": st.just(ev.FORMAT),
    "scores": st.dictionaries(st.text(), FINITE, max_size=3),
    "seconds": st.dictionaries(st.text(), FINITE, max_size=3),
    "trial": st.integers(0, 10**6),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Everything that a field of an event may hold, from its annotation."""
    if annotation in (int, str):
        return st.integers() if annotation is int else st.text()
    if annotation is float:
        return FINITE
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        row = get_args(annotation)[0]
        parts = get_args(row)
        return st.lists(st.tuples(*map(values_of, parts)) if parts else values_of(row), max_size=3).map(tuple)
    return st.dictionaries(st.text(), PLAIN, max_size=3)


def events_of(kind: type[Event]) -> st.SearchStrategy[Event]:
    return st.builds(kind, **{f.name: BY_NAME.get(f.name, values_of(f.type)) for f in fields(kind)})


def progress(patches: int, psnr: float = 30.0) -> ev.Validated:
    return ev.Validated(
        time=patches / 100, trial=3, patches=patches, scores={"val/psnr": psnr}, loss=0.1, learning_rate=1e-3
    )


def checkpointed(patches: int) -> ev.Checkpointed:
    return ev.Checkpointed(time=patches / 100, trial=3, patches=patches)


STORY: tuple[Event, ...] = (progress(480), checkpointed(480), progress(960, 31.5), checkpointed(960))


def write(path: Path, *events: Event) -> None:
    journal = Journal(path)
    for event in events:
        journal.append(event)
    journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


# Round trips


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_comes_back_as_it_was(kind: type[Event]) -> None:
    @settings(deadline=None)  # a busy machine is no fault
    @given(events_of(kind), st.integers(0, 10**9))
    def comes_back(event: Event, seq: int) -> None:
        line = encode(seq, event)
        assert decode(line) == (seq, event)
        assert line.count(b"\n") == 1
        assert encode(*decode(line)) == line

    comes_back()


def test_every_kind_that_is_recorded_is_among_those_tried() -> None:
    declared = {kind for kind in vars(ev).values() if isinstance(kind, type) and issubclass(kind, Event)}
    # Ticks are for display and never journaled; the other two are only bases.
    assert declared - {Event, ev.TrialEvent, ev.Ticked} == set(KINDS)


@pytest.mark.parametrize("text", ['"}\n', ',"sum":"0123456789abcdef"}', "\n\r\x00", "Größe ×4", "\u2028"])
def test_text_that_looks_like_the_end_of_a_line_comes_back(path: Path, text: str) -> None:
    event = ev.Warned(time=1.0, message=text)
    write(path, event, event)
    assert list(read(path)) == [event, event]


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.one_of([events_of(kind) for kind in KINDS]), max_size=4))
def test_a_journal_is_the_list_of_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, story: list[Event]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    half = len(story) // 2
    write(path, *story[:half])
    write(path, *story[half:])
    assert list(read(path)) == story


def test_a_line_is_plain_json_with_its_number_first_and_its_checksum_last(path: Path) -> None:
    write(path, *STORY)
    for number, line in enumerate(path.read_bytes().splitlines()):
        content = json.loads(line)
        assert list(content)[:3] == ["seq", "event", "time"]
        assert list(content)[-1] == "sum"
        assert content["seq"] == number
        body = line[: line.rindex(b',"sum":"')]
        assert content["sum"] == hashlib.blake2b(body, digest_size=8).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_refused_and_leaves_the_record_whole(path: Path, value: float) -> None:
    journal = Journal(path)
    journal.append(STORY[0])
    with pytest.raises(ValueError, match="JSON"):
        journal.append(progress(960, value))
    journal.append(STORY[1])
    journal.close()
    assert list(read(path)) == [STORY[0], STORY[1]]


def test_what_is_no_recorded_event_is_refused() -> None:
    with pytest.raises(ValueError, match="not an event of format"):
        decode(encode(0, ev.Ticked(time=1.0, trial=0, patches=8, loss=0.1)))


@pytest.mark.parametrize(
    "body", [b"5", b'"x"', b"null", b"[1]", b'{"seq":0,"event":"Warned","time":1.0,"message":"m"},{']
)
def test_what_is_not_one_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        decode(body + b',"sum":"' + hashlib.blake2b(body, digest_size=8).hexdigest().encode() + b'"}\n')
    assert not isinstance(caught.value, TornLineError)


def test_whoever_has_read_it_all_opens_it_without_reading_it_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, *STORY[:-1])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":')  # torn
    place = JournalPosition()
    assert list(read(path, place)) == list(STORY[:-1])
    assert (place.count, place.end) == (len(STORY) - 1, len(whole))
    with monkeypatch.context() as patch:
        patch.setattr("study.record.journal.decode", None)
        journal = Journal(path, read_to=place)
        journal.append(STORY[-1])
        journal.close()
    assert list(read(path)) == list(STORY)


# Torn tails


def test_a_tail_torn_at_any_byte_is_dropped_and_comes_again(path: Path) -> None:
    write(path, *STORY)
    content = path.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(content)):
        path.write_bytes(content[:end])
        assert list(read(path)) == list(STORY[:-1])
        assert path.read_bytes() == content[:end], "a reader changes nothing"
        write(path, STORY[-1])
        assert path.read_bytes() == content


def test_a_first_line_torn_at_any_byte_leaves_an_empty_record(path: Path) -> None:
    write(path, STORY[0])
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert list(read(path)) == []
        write(path, STORY[0])
        assert path.read_bytes() == content


def test_a_tail_of_zeros_or_noise_is_dropped(path: Path) -> None:
    write(path, *STORY)
    whole = path.read_bytes()
    for tail in (b"\0" * 100, b"{}", b"\xff\xfe", b'{"seq":4,"event":"Checkpointed"'):
        path.write_bytes(whole + tail)
        assert list(read(path)) == list(STORY)
        write(path)
        assert path.read_bytes() == whole


# Damage


def test_damage_to_any_byte_before_the_last_line_is_an_error_that_names_the_line(path: Path) -> None:
    write(path, *STORY)
    content = path.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for at in range(last - 1):  # without the newline before the last line, both would look like one torn line
        damaged = bytearray(content)
        damaged[at] ^= 0x01
        path.write_bytes(damaged)
        # A newline that is damaged joins two lines: the first of them is named.
        number = content.count(b"\n", 0, at) + 1
        for attempt in (lambda: list(read(path)), lambda: Journal(path)):
            with pytest.raises(JournalError, match=rf"journal\.jsonl: line {number} .*; restore the file from a copy"):
                attempt()
        assert path.read_bytes() == damaged, "an error changes nothing"


@pytest.mark.parametrize("lines", [(0, 2, 3), (1, 2, 3), (0, 2, 1, 3), (0, 0, 1), (0, 1, 1), (0, 1, 3), (1,)], ids=str)
def test_a_line_out_of_sequence_is_an_error_even_at_the_end(path: Path, lines: tuple[int, ...]) -> None:
    write(path, *STORY)
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[i] for i in lines))
    wrong = next(i for i, line in enumerate(lines) if i != line)
    message = rf"line {wrong + 1} has sequence number {lines[wrong]}, expected {wrong}"
    with pytest.raises(JournalError, match=message):
        list(read(path))
    with pytest.raises(JournalError, match=message):
        Journal(path)


def opened(**changes: Any) -> dict[str, Any]:
    event = ev.StudyOpened(
        time=0.0,
        format=ev.FORMAT,
        study="s",
        experiment="e",
        seed=1,
        question={},
        digest="",
        text="",
        runtime={},
        data={},
    )
    return ev.to_json(event) | changes


def line_of(content: dict[str, Any], seq: int = 0) -> bytes:
    body = json.dumps({"seq": seq, **content}, separators=(",", ":"))[:-1].encode()
    return body + b',"sum":"' + hashlib.blake2b(body, digest_size=8).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (opened(format=ev.FORMAT + 1), f"expected journal format {ev.FORMAT}, got {ev.FORMAT + 1}"),
        (opened(mood="good"), f"line 1 is not an event of format {ev.FORMAT}"),
        ({"event": "TrialTeleported", "time": 1.0}, f"line 1 is not an event of format {ev.FORMAT}"),
        ({"event": "Checkpointed", "time": 1.0}, f"line 1 is not an event of format {ev.FORMAT}"),
        ({"time": 1.0}, f"line 1 is not an event of format {ev.FORMAT}"),
    ],
    ids=["another format", "a new field", "a new kind", "a missing field", "no kind"],
)
def test_a_record_of_another_format_is_refused_and_kept(path: Path, content: dict[str, Any], message: str) -> None:
    path.write_bytes(line_of(content))
    for attempt in (lambda: list(read(path)), lambda: Journal(path)):
        with pytest.raises(JournalError, match=message):
            attempt()
    assert path.read_bytes() == line_of(content)


@pytest.mark.parametrize("format", range(1, ev.FORMAT + 1))
def test_a_journal_of_every_format_so_far_is_read_and_continued(path: Path, format: int) -> None:
    path.write_bytes(line_of(opened(format=format)))
    with closing(Journal(path)) as journal:
        journal.append(ev.Warned(time=1.0, message="continued"))
    first, second = read(path)
    assert isinstance(first, ev.StudyOpened) and first.format == format
    assert second == ev.Warned(time=1.0, message="continued")
    assert path.read_bytes().startswith(line_of(opened(format=format)))


@pytest.mark.parametrize("format", [ev.FORMAT + 1, 99])
def test_a_newer_journal_is_told_as_such_though_its_first_line_has_fields_that_this_version_lacks(
    path: Path, format: int
) -> None:
    path.write_bytes(line_of(opened(format=format, licence="of the images")))
    told = (
        f"{path}: expected journal format {ev.FORMAT}, got {format}: a newer version of this suite wrote it; "
        "update this suite"
    )
    for attempt in (lambda: list(read(path)), lambda: Journal(path), lambda: Tail(path).read(9)):
        with pytest.raises(JournalError, match=f"^{re.escape(told)}$"):
            attempt()


@pytest.mark.parametrize("format", [0, -1, True, 1.0, "1", None])
def test_a_format_that_no_version_wrote_is_damage(path: Path, format: object) -> None:
    path.write_bytes(line_of(opened(format=format)))
    with pytest.raises(JournalError, match=rf"expected journal format {ev.FORMAT}, got {format!r}: no version writes"):
        list(read(path))


def test_a_line_that_says_nothing_new_is_one_that_older_versions_read() -> None:
    concluded = ev.Concluded(time=1.0, best=0, counted=1, scores={}, per_image=(), files=())
    assert "missing" not in ev.to_json(concluded)
    assert ev.to_json(replace(concluded, missing=("results/curves.png",)))["missing"] == ("results/curves.png",)
    assert ev.from_json(ev.to_json(concluded)) == concluded


def test_the_hand_made_lines_of_these_tests_are_what_the_journal_writes(path: Path) -> None:
    write(path, ev.from_json(opened()))
    assert path.read_bytes() == line_of(opened())


# Writing


def test_a_record_can_be_read_while_it_is_written(path: Path) -> None:
    journal = Journal(path)
    assert list(read(path)) == []
    for count, event in enumerate(STORY, start=1):
        journal.append(event)
        assert list(read(path)) == list(STORY[:count])
    journal.close()


def test_a_reader_that_began_before_a_line_may_see_it(path: Path) -> None:
    journal = Journal(path)
    journal.append(STORY[0])
    reader = read(path)
    assert next(reader) == STORY[0]
    journal.append(STORY[1])
    journal.close()
    assert list(reader) in ([], [STORY[1]])


def test_a_line_that_is_completed_while_it_is_read_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, *STORY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])

    def completing(line: bytes) -> tuple[int, Event]:
        if not line.endswith(b"\n"):
            path.write_bytes(whole)  # the study's owner gets on with the line
        return decode(line)

    monkeypatch.setattr("study.record.journal.decode", completing)
    assert list(read(path)) == list(STORY[:-1])


def test_every_line_is_on_the_disk_before_anyone_acts_on_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    synced: list[bytes] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(path.read_bytes().splitlines(keepends=True)[-1])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    for event in STORY:
        journal.append(event)
    journal.close()
    assert [decode(line)[1] for line in synced] == list(STORY), "the line was there when it was synced"


def test_a_line_that_would_land_after_another_process_s_is_refused_and_overwrites_nothing(path: Path) -> None:
    journal = Journal(path)
    journal.append(STORY[0])
    with path.open("ab") as other:
        other.write(encode(1, STORY[1]))
    before = path.read_bytes()
    with pytest.raises(TakenOverError, match=r"journal\.jsonl: expected \d+ bytes, found \d+: another pro"):
        journal.append(STORY[1])
    journal.close()
    assert path.read_bytes() == before
    assert list(read(path)) == list(STORY[:2])


def test_a_line_goes_to_the_end_of_the_file_whatever_happens(path: Path) -> None:
    """Another process writes between the look at the end and the line: an overwritten line would be lost."""
    journal = Journal(path)
    journal.append(STORY[0])
    check = journal._check_end

    def late(expected: int) -> None:
        check(expected)
        if expected == len(encode(0, STORY[0])):
            with path.open("ab") as other:
                other.write(encode(1, STORY[1]))

    journal._check_end = late  # type: ignore[method-assign]
    with pytest.raises(TakenOverError, match="another process has written to this journal"):
        journal.append(STORY[1])
    journal.close()
    assert path.read_bytes().startswith(encode(0, STORY[0]) + encode(1, STORY[1]))


def test_a_line_that_was_written_while_its_owner_was_replaced_does_not_count(path: Path) -> None:
    answers = iter([None, None, TakenOverError("taken over by process 8 on far")])

    def guard() -> None:
        if answer := next(answers):
            raise answer

    journal = Journal(path, guard)
    with pytest.raises(TakenOverError, match="process 8 on far"):
        journal.append(STORY[0])
    journal.close()


def test_a_line_that_came_since_the_record_was_read_is_not_cut_off_as_a_torn_tail(path: Path) -> None:
    write(path, *STORY[:2])
    place = JournalPosition()
    assert len(list(read(path, place))) == 2
    write(path, STORY[2])
    whole = path.read_bytes()
    with pytest.raises(TakenOverError, match="another process has written to this journal"):
        Journal(path, read_to=place)
    assert path.read_bytes() == whole


def test_a_missing_record_cannot_be_read(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(path))
    assert not path.exists()


# Published


def test_a_compressed_journal_reads_as_the_one_it_was_made_of_and_is_the_same_every_time(tmp_path: Path) -> None:
    path, packed = tmp_path / "journal.jsonl", tmp_path / "journal.jsonl.gz"
    path.write_bytes(b"".join(encode(n, ev.Warned(time=n, message=f"no {n}")) for n in range(20)) + b'{"seq":20,"ev')
    packed.write_bytes(compressed(path))
    assert list(read(packed)) == list(read(path))
    assert len(list(read(packed))) == 20
    assert compressed(path) == compressed(packed) == packed.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip file"])
def test_a_compressed_journal_that_is_damaged_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path, packed = tmp_path / "journal.jsonl", tmp_path / "journal.jsonl.gz"
    path.write_bytes(b"".join(encode(n, ev.Warned(time=n, message=f"no {n}")) for n in range(20)))
    content = compressed(path)
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    packed.write_bytes({"cut": content[:middle], "flipped": flipped, "no gzip file": path.read_bytes()}[damage])
    with pytest.raises(JournalError, match=r"journal\.jsonl\.gz: .*restore the file from a copy"):
        list(read(packed))
