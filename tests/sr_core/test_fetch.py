"""Download of a file from a real server that cuts connections, changes the file and sends wrong bytes."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sr_core.download import fetch
from sr_core.download.fetch import TRIES
from sr_core.download.fetch_record import Content, DownloadRecord
from sr_core.errors import DownloadError

DATA = np.random.default_rng(3).bytes(50_000)  # what the server has
OTHER = np.random.default_rng(4).bytes(50_000)


def test_a_file_comes_whole_and_is_recorded(download: Any, tmp_path: Path) -> None:
    assert download(published=None) == DATA
    assert DownloadRecord.of(download.path).content == download.published
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.zip", "file.zip.json"]
    assert download.shown[0] == (0, len(DATA)) and download.shown[-1] == (len(DATA), len(DATA))
    download()
    assert len(download.server.asked) == 1  # what is there is checked, not asked for


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("known", ["published", None])
def test_dropped_connections_cost_no_byte_twice(download: Any, reset: bool, known: str | None) -> None:
    download.server.plan(9, drop=5_000, reset=reset)
    assert download(published=download.published if known else None) == DATA
    if not reset:  # a reset may overtake bytes that were sent
        assert download.ranges == [None, *(f"bytes={n}-" for n in range(5_000, 50_000, 5_000))]
        assert download.server.sent == len(DATA)
    assert {asked.get("If-Range") for asked in download.server.asked[1:]} == {'"1"'}
    assert len(download.said) == 9 and all("retrying" in line for line in download.said)


def test_a_silent_connection_counts_as_lost(download: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_SECONDS", 1.0)
    download.server.plan(drop=20_000, stall=5.0)
    assert download() == DATA
    assert download.ranges == [None, "bytes=20000-"]
    assert "timed out" in download.said[0]


def test_an_interrupted_download_goes_on_in_the_next_call(download: Any) -> None:
    download.server.plan(drop=30_000)
    download.server.plan(status=404)
    download.fails("the server answers 404")
    assert download.part.read_bytes() == DATA[:30_000]
    assert download() == DATA
    assert download.ranges[-1] == "bytes=30000-"


def test_a_server_that_knows_no_ranges_begins_anew(download: Any) -> None:
    download.server.usual.ranges = False
    download.server.plan(drop=30_000, ranges=False)
    assert download() == DATA
    assert download.server.sent == len(DATA) + 30_000


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_on_the_way_is_never_mixed(download: Any, if_range: bool) -> None:
    download.server.plan(drop=30_000)
    download.server.usual.etag, download.server.usual.if_range = '"2"', if_range
    download.server.plan(drop=10_000, body=OTHER, etag='"2"', if_range=if_range)
    download.server.files["/file.zip"] = OTHER
    assert download(published=None) == OTHER
    assert DownloadRecord.of(download.path).content == Content(len(OTHER), hashlib.sha256(OTHER).hexdigest())


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_part_that_does_not_repeat_its_version_is_not_mixed_in(download: Any, etag: str | None) -> None:
    download.server.plan(drop=30_000)
    download.server.plan(drop=10_000, body=OTHER, etag=etag, if_range=False)
    assert download(published=None) == DATA
    assert download.ranges == [None, "bytes=30000-", None]


def test_a_date_names_a_version_also_where_the_part_does_not_repeat_it(download: Any) -> None:
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    download.server.plan(drop=30_000, etag=None, headers=date)
    download.server.plan(etag=None, if_range=False)
    assert download(published=None) == DATA
    assert download.ranges == [None, "bytes=30000-"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"etag": "abc123"}, {"etag": None}),  # an ETag as odd servers write it is no date
        ({"etag": 'W/"1"', "headers": {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}}, {"etag": 'W/"2"'}),
    ],
)
def test_a_version_that_is_named_oddly_is_not_mixed_either(download: Any, first: Any, then: Any) -> None:
    download.server.plan(drop=30_000, **first)
    download.server.plan(drop=10_000, body=OTHER, if_range=False, **then)
    assert download(published=None) == DATA


def test_a_part_of_a_file_of_another_length_is_not_mixed_in(download: Any) -> None:
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    download.server.plan(drop=30_000, etag=None, headers=date)
    download.server.plan(body=DATA + OTHER, etag=None, if_range=False)
    assert download(published=None) == DATA
    assert download.ranges == [None, "bytes=30000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_name_for_the_version_only_a_checksum_allows_to_go_on(download: Any, etag: str | None) -> None:
    download.server.usual.etag = etag
    download.server.plan(drop=30_000, etag=etag)
    download(published=None)
    assert download.ranges == [None, None]
    download.path.unlink()
    download.server.plan(drop=30_000, etag=etag)
    download()
    assert download.ranges[2:] == [None, "bytes=30000-"]
    assert download.path.read_bytes() == DATA


def test_a_part_that_is_too_long_is_dropped(download: Any) -> None:
    download.part.write_bytes(DATA + b"more")
    assert download() == DATA
    assert download.ranges == ["bytes=50004-", None]


def test_wrong_bytes_are_fetched_anew_once(download: Any) -> None:
    download.server.plan(body=OTHER)
    assert download() == DATA
    (line,) = download.said
    assert re.search("SHA-256 .*…, expected .*…; starting again from the beginning", line)


def test_a_bad_beginning_is_found_at_the_end(download: Any) -> None:
    download.part.write_bytes(OTHER[:30_000])
    assert download() == DATA
    assert download.ranges == ["bytes=30000-", None]


def test_a_server_that_always_serves_wrong_bytes_is_given_up(download: Any, tmp_path: Path) -> None:
    download.server.files["/file.zip"] = OTHER
    download.fails("this is not the file that was published .SHA-256 .*, expected .*name a mirror")
    assert len(download.server.asked) == 2
    assert not download.part.exists()
    assert DownloadRecord.of(download.path).sha256 is None


def test_the_first_download_is_what_every_later_one_must_equal(download: Any) -> None:
    download(published=None)
    download.path.unlink()
    download.server.files["/file.zip"] = OTHER
    download.fails("this is not the file that was downloaded first", published=None)
    download.server.files["/file.zip"] = OTHER[:-1]
    download.fails("this is a different file .49,999 bytes, expected 50,000", published=None)


def test_a_file_of_another_length_is_refused_before_it_is_fetched(download: Any) -> None:
    download.part.write_bytes(DATA[:30_000])
    download.server.files["/file.zip"] = b"<html>Please log in</html>"
    download.server.usual.ranges = False
    download.fails("this is a different file .26 bytes, expected 50,000.; check the network, or name a mirror")
    assert download.part.read_bytes() == DATA[:30_000]


def test_a_server_that_promises_more_than_it_sends_is_given_up(download: Any) -> None:
    download.server.files["/file.zip"] = DATA[:-1]
    download.server.usual.length, download.server.usual.ranges = 50_000, False
    download.fails(f"the connection ended early, {TRIES} times in a row; .* kept: run again to resume")


def test_a_length_that_nobody_knows_is_refused(download: Any) -> None:
    download.server.usual.length = "none"
    download.fails("does not say how long the file is", published=None)
    assert download() == DATA


def test_a_compressed_answer_is_refused(download: Any) -> None:
    download.server.usual.headers = {"Content-Encoding": "gzip"}
    download.fails("answers in gzip, which was not requested")


VERSIONS = {"1": DATA, "2": OTHER, "3": DATA[:40_000], "4": DATA + OTHER, "5": b""}
MISBEHAVIOUR = st.fixed_dictionaries(
    {},
    optional={
        "drop": st.integers(0, 50_000),
        "reset": st.booleans(),
        "ranges": st.booleans(),
        "if_range": st.booleans(),
        "version": st.sampled_from(list(VERSIONS)),
        "etag": st.sampled_from(['W/"1"', None]),
        "status": st.sampled_from([404, 416, 500, 503]),
        "length": st.sampled_from([1, 40_000, 60_000, "none"]),
    },
)


def as_answer(plan: dict[str, Any]) -> dict[str, Any]:
    """Another version has another name or none. Only a checksum can reveal a server that gives a wrong name."""
    version = plan.get("version", "1")
    rest = {name: value for name, value in plan.items() if name != "version"}
    return {"body": VERSIONS[version], "etag": f'"{version}"', **rest}


@example(plans=[{"drop": 1}, {"if_range": False, "drop": 1, "version": "2", "etag": 'W/"1"'}], known=False, calls=1)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(MISBEHAVIOUR, max_size=6), known=st.booleans(), calls=st.integers(1, 3))
def test_whatever_a_server_does_no_wrong_file_appears(
    download: Any, plans: list[dict[str, Any]], known: bool, calls: int
) -> None:
    for path in download.path.parent.iterdir():
        path.unlink()
    for plan in plans:
        download.server.plan(**as_answer(plan))
    wanted = download.published if known else None
    for _ in range(calls):
        try:
            download(wanted)
        except DownloadError:
            assert not download.path.exists()
    download.server.behave()
    if known:
        assert download() == DATA  # whatever came before, a good server ends it well
    elif download.path.exists():  # then it is what the server once said, and never two versions mixed
        lengths = [plan["length"] for plan in plans if isinstance(plan.get("length"), int)]
        said = [data[:length] for data in VERSIONS.values() for length in (None, *lengths)]
        assert download.path.read_bytes() in said
