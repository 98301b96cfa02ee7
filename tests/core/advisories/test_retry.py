"""Headers of a retried request: ours come off again, and what is not ours is known as such."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.advisories.retry import Headers, read_retry_headers, retry_headers
from pipeline.core.dead_letters.carried_record import keep_headers
from pipeline.core.record import RecordId, RecordSource

TOPIC = "rmos.advisories.requests"
SOURCE = RecordSource(2, RecordId(TOPIC, 3, 41))
HEADERS = st.lists(
    st.tuples(st.sampled_from(["a", "rmos-source-offset"]), st.none() | st.binary(max_size=4))
)


@given(HEADERS, st.integers(-1, 2**53))
def test_the_producers_headers_come_back_whatever_they_are(
    headers: Headers, timestamp_ms: int
) -> None:
    found = read_retry_headers(retry_headers(SOURCE, timestamp_ms, headers), request_topic=TOPIC)
    assert found is not None
    assert (found.source, found.timestamp_ms) == (SOURCE, timestamp_ms)
    assert list(found.headers) == headers


@given(HEADERS)
def test_what_is_said_of_all_headers_comes_back_with_those_that_are_carried(
    headers: Headers,
) -> None:
    said = keep_headers([*headers, ("large", bytes(10))])[1]
    ours = retry_headers(SOURCE, 7, headers, said)
    found = read_retry_headers(ours, request_topic=TOPIC)
    assert found is not None
    assert (list(found.headers), found.all_headers) == (headers, said)


def test_headers_may_be_a_tuple_as_a_consumer_gives_them() -> None:
    ours = tuple(retry_headers(SOURCE, 7, [("a", None)]))
    found = read_retry_headers(ours, request_topic=TOPIC)
    assert found is not None
    assert list(found.headers) == [("a", None)]


@pytest.mark.parametrize(
    "change",
    [
        lambda ours: [],
        lambda ours: ours[1:],
        lambda ours: ours[:-1],
        lambda ours: [*ours, ("a", b"")],
        lambda ours: [ours[1], ours[0], *ours[2:]],
        lambda ours: [*ours[:3], ("rmos-source-offset", None), ours[4]],
        lambda ours: [*ours[:3], ("rmos-source-offset", b"1.0"), ours[4]],
        lambda ours: [*ours[:3], ("rmos-source-offset", b" 1"), ours[4]],
        lambda ours: [*ours[:3], ("rmos-source-offset", "٣".encode()), ours[4]],
        lambda ours: [ours[0], ("rmos-source-topic", b"other"), *ours[2:]],
    ],
    ids=range(10),
)
def test_headers_that_are_not_ours_name_no_request(change) -> None:
    ours = retry_headers(SOURCE, 7, [])
    assert read_retry_headers(ours, request_topic=TOPIC) is not None
    assert read_retry_headers(change(ours), request_topic=TOPIC) is None
