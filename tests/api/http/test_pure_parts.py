"""Ranges, dispositions, entity tags: pure functions of headers."""

import json
import re
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.answers import error_answer
from pipeline.api.http.headers import (
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


def read(header: str | None, size: int = 10) -> tuple[int, int] | str | None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableRangeError:
        return "none"
    return None if found is None else (found.start, found.stop)


def test_one_range_is_read_and_what_is_none_is_ignored() -> None:
    wanted = {
        "bytes=0-0": (0, 1),
        "bytes=0-": (0, 10),
        "bytes=3-5": (3, 6),
        "bytes=9-": (9, 10),
        "bytes=5-100": (5, 10),
        "bytes=-1": (9, 10),
        "bytes=-100": (0, 10),
        " bytes=1-2 ": (1, 3),
        "bytes=10-": "none",
        "bytes=11-20": "none",
        "bytes=-0": "none",
    }
    ignored = [
        *(
            None,
            "",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "lines=0-1",
        ),
        *("bytes=+1-2", "bytes=\u0661-", "bytes=" + "9" * 5000 + "-"),
    ]
    expected = wanted | dict.fromkeys(ignored)
    assert {header: read(header) for header in expected} == expected
    assert [read(header, 0) for header in ("bytes=0-", "bytes=-5")] == ["none", "none"]


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
        assert 0 <= found.start < found.stop <= size


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


def test_a_name_that_would_be_read_another_way_around_is_not_sent() -> None:
    marks = ["\u202e", "\u2066", "\u200b", "\x1b", "\u2028", "\ud800"]
    headers = {content_disposition("attachment", f"part{mark}gpj.exe") for mark in marks}
    assert headers == {'attachment; filename="part_gpj.exe"'}


def test_a_plain_filename_is_written_once() -> None:
    assert content_disposition("inline", "part 1.dxf") == 'inline; filename="part 1.dxf"'


def test_what_a_browser_would_run_is_saved_and_text_and_pictures_are_shown() -> None:
    run = ["text/html", "text/html; charset=utf-8", "image/svg+xml", "application/xhtml+xml"]
    assert {disposition_of(mime) for mime in run} == {"attachment"}
    shown = ["text/plain; charset=utf-8", "image/png"]
    assert {disposition_of(mime) for mime in shown} == {"inline"}


def test_a_combined_tag_depends_on_order_and_number() -> None:
    tags = {combined_tag(hashes) for hashes in (["a"], ["a", "b"], ["b", "a"], ["ab"])}
    assert len(tags) == 4


def test_a_tag_that_a_client_sends_back_is_known_and_no_other() -> None:
    known = ['"x"', 'W/"x"', '"a", "x"', "*", ' "x" ']
    others = [None, "", '"y"', "x", '"xx"']
    assert [sent for sent in [*known, *others] if is_known(entity_tag("x"), sent)] == known


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
