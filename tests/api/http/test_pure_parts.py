"""Ranges, dispositions, entity tags: pure functions of headers."""

import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.answers import error_answer
from pipeline.api.http.headers import (
    ByteRange,
    UnsatisfiableRangeError,
    combined_tag,
    content_disposition,
    disposition_of,
    entity_tag,
    is_known,
    parse_range,
)
from pipeline.api.publishing import Submission, accepted
from pipeline.core.visible_text import without_unseen


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 10),
        ("bytes=3-5", 3, 6),
        ("bytes=9-", 9, 10),
        ("bytes=5-100", 5, 10),
        ("bytes=-1", 9, 10),
        ("bytes=-100", 0, 10),
        (" bytes=1-2 ", 1, 3),
    ],
)
def test_a_range_is_read(header: str, first: int, end: int) -> None:
    assert parse_range(header, 10) == ByteRange(first, end, 10)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes=+1-2",
        "bytes=\u0661-",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_header_that_is_no_single_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=11-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, size)


@given(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda p: f"bytes={p[0]}-{p[1]}")
    | st.integers(0, 30).map(lambda n: f"bytes=-{n}")
    | st.integers(0, 30).map(lambda n: f"bytes={n}-"),
    st.integers(0, 20),
)
def test_a_range_lies_within_the_whole(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableRangeError:
        return
    if found is not None:
        assert 0 <= found.first < found.end <= size


@given(st.text(max_size=60))
def test_a_filename_stays_one_quoted_name(filename: str) -> None:
    header = content_disposition("attachment", filename)
    header.encode("ascii")
    assert re.fullmatch(
        r"""attachment; filename="[^"\\\x00-\x1f\x7f]*\""""
        r"""(; filename\*=UTF-8''[A-Za-z0-9!#$&+.^_`|~%-]*)?""",
        header,
    )
    exact = header.partition("filename*=UTF-8''")[2]
    if exact:
        assert unquote(exact) == without_unseen(filename, "_")


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200b", "\x1b", "\u2028", "\ud800"])
def test_a_name_that_would_be_read_another_way_around_is_not_sent(mark: str) -> None:
    header = content_disposition("attachment", f"part{mark}gpj.exe")
    assert header == 'attachment; filename="part_gpj.exe"'


def test_a_plain_filename_is_written_once() -> None:
    assert content_disposition("inline", "part 1.dxf") == 'inline; filename="part 1.dxf"'


@pytest.mark.parametrize(
    "mime", ["text/html", "text/html; charset=utf-8", "image/svg+xml", "application/xhtml+xml"]
)
def test_what_a_browser_would_run_is_saved(mime: str) -> None:
    assert disposition_of(mime) == "attachment"


def test_text_and_pictures_are_shown() -> None:
    assert disposition_of("text/plain; charset=utf-8") == "inline"
    assert disposition_of("image/png") == "inline"


def test_a_combined_tag_depends_on_order_and_number() -> None:
    tags = {combined_tag(hashes) for hashes in (["a"], ["a", "b"], ["b", "a"], ["ab"])}
    assert len(tags) == 4


@pytest.mark.parametrize("sent", ['"x"', 'W/"x"', '"a", "x"', "*", ' "x" '])
def test_a_tag_that_a_client_sends_back_is_known(sent: str) -> None:
    assert is_known(entity_tag("x"), sent)


@pytest.mark.parametrize("sent", [None, "", '"y"', "x", '"xx"'])
def test_another_tag_is_not_known(sent: str | None) -> None:
    assert not is_known(entity_tag("x"), sent)


def test_who_is_to_ask_again_is_told_what_the_route_takes() -> None:
    time = "2025-12-18T14:03:22Z"
    of_run = accepted(Submission("run_1", time, b"{}"))
    of_advisory = accepted(Submission("run_1", time, b"{}", "adv_1"))
    answer = json.loads(error_answer(of_run).body)
    assert "send the same body with this run_id and created_at_utc again" in answer["message"]
    assert answer == {
        "status": "ACCEPTED",
        "message": of_run.message,
        "run_id": "run_1",
        "created_at_utc": time,
    }
    # A run_id in the body of an advisory would be refused.
    assert "send the same body to the same path again" in of_advisory.message
