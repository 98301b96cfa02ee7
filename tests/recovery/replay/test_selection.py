"""What an operator may ask for, and what is refused before anything is read."""

from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.recovery.replay.selection import OffsetSelection, Selection, parse_selection

TOPIC = "rmos.runs.requests"


def test_nothing_asked_for_is_everything() -> None:
    assert parse_selection() == Selection()
    assert parse_selection().is_everything


@pytest.mark.parametrize(
    "options",
    [
        {"since": "2026-01-15T08:00:00Z"},
        {"until": "2026-01-15T08:00:00Z"},
        {"offsets": (f"{TOPIC}/0",)},
        {"run_id": "run_a"},
    ],
)
def test_any_limit_makes_it_a_part(options: dict[str, object]) -> None:
    assert not parse_selection(**options).is_everything  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", None),
        ("2026-01-15T08:00:00Z", 1_768_464_000_000),
        ("2026-01-15T09:00:00.001+01:00", 1_768_464_000_001),
        # Brokers know no part of a millisecond: the first one that is not before it.
        ("2026-01-15T08:00:00.0001Z", 1_768_464_000_001),
        ("2026-01-15", None),
        ("yesterday", None),
    ],
)
def test_times_are_those_of_the_messages(text: str, milliseconds: int | None) -> None:
    if milliseconds is None:
        with pytest.raises(InputError, match="Expected a time such as"):
            parse_selection(since=text)
    else:
        assert parse_selection(since=text, until=text) == Selection(milliseconds, milliseconds)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        (f"{TOPIC}/3", OffsetSelection(TOPIC, 3, None, None)),
        (f"{TOPIC}/0:10-20", OffsetSelection(TOPIC, 0, 10, 20)),
        (f"{TOPIC}/11:10-", OffsetSelection(TOPIC, 11, 10, None)),
        (f"{TOPIC}/11:-20", OffsetSelection(TOPIC, 11, None, 20)),
        (f"{TOPIC}/11:0-0", OffsetSelection(TOPIC, 11, 0, 0)),
    ],
)
def test_offsets_are_named_by_topic_partition_and_range(
    text: str, selected: OffsetSelection
) -> None:
    assert parse_selection(offsets=(text,)).offsets == (selected,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOPIC,
        f"{TOPIC}/",
        f"{TOPIC}/03",
        f"{TOPIC}/3:",
        f"{TOPIC}/3:5",
        f"{TOPIC}/3:a-b",
        "a b/1",
    ],
)
def test_what_names_no_range_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="Expected a range such as"):
        parse_selection(offsets=(text,))


def test_two_ranges_of_one_partition_are_refused() -> None:
    with pytest.raises(InputError, match="at most one range"):
        parse_selection(offsets=(f"{TOPIC}/3:1-2", f"{TOPIC}/3:5-6"))


@pytest.mark.parametrize(
    "options",
    [
        {"offsets": (f"{TOPIC}/3:9-2",)},
        {"since": "2026-01-15T08:00:00.002Z", "until": "2026-01-15T08:00:00.001Z"},
    ],
)
def test_what_ends_before_it_begins_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="that do not end before they begin"):
        parse_selection(**options)


def test_what_can_be_no_run_is_refused() -> None:
    with pytest.raises(InputError, match="run_id"):
        parse_selection(run_id="../etc")
