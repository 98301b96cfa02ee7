"""What these commands refuse before they ask any broker, and how they show what others wrote."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.admin.groups import GroupPosition
from pipeline.broker.reading.dead_letters import DeadLetterContent
from pipeline.cli import offsets
from pipeline.cli.dead_letters import value_file_name
from pipeline.cli.options import moment_ms, moment_text
from pipeline.cli.views.dead_letters import (
    HEXDUMP_LIMIT_BYTES,
    TEXT_LIMIT_CHARACTERS,
    content_document,
    dead_letter_lines,
)
from pipeline.cli.views.offsets import move_row, warnings
from pipeline.core.dead_letters.carried_record import Header
from pipeline.core.dead_letters.letter import read_dead_letter
from pipeline.core.record import RecordId
from pipeline.errors import InputError, RefusedError
from pipeline.recovery.group_moves import OffsetMove
from pipeline.topics import TopicNames
from tests.cli.command_line import CommandLine

TOPICS = TopicNames()
PERSIST = TOPICS.persist_group
PLACE = RecordId("rmos.runs.dead-letters", 0, 7)
ACTS_ON_A_TERMINAL = re.compile("[\x00-\x1f\x7f-\x9f\u202e\u2066]")

names = st.binary(max_size=10).map(lambda name: name.decode(errors="surrogateescape"))
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=10)), max_size=4)


def content_of(value: bytes | None, found: list[Header] | None = None) -> DeadLetterContent:
    letter = read_dead_letter(PLACE, 5, b"k", value, found or [])
    return DeadLetterContent(letter, b"k", value, found or [])


REFUSED_AT_ONCE = [
    "dead-letters redrive",
    "dead-letters redrive --again",
    "dead-letters redrive rmos.runs.requests",
    "dead-letters show rmos.runs.requests/3",
    "dead-letters list --since 2025-12-18",
    "dead-letters list --until 2025-13-18T00:00:00Z",
    "offsets show nobody",
    "offsets undo nobody",
    "offsets reset persist",
    "offsets reset persist --latest --earliest",
    "offsets reset persist --to-time yesterday",
    "offsets reset nobody --latest",
]
ASK_THE_BROKER = [
    "dead-letters list",
    "dead-letters redrive --all",
    "dead-letters export rmos.runs.requests/3/17",
    "offsets show",
    "offsets reset rmos.persist --shift-by -5 --yes",
    "offsets reset persist --to-offset 3:17 --to-offset 4:0 --yes",
    "offsets undo persist --yes",
]


def test_what_cannot_be_meant_is_refused_at_once(rmos: CommandLine) -> None:
    done = {command: rmos(*command.split()) for command in REFUSED_AT_ONCE}
    assert {command: each for command, each in done.items() if each.status != 2} == {}
    assert all(each.sentence for each in done.values())


def test_without_a_broker_each_is_one_sentence(rmos: CommandLine) -> None:
    done = {command: rmos(*command.split()) for command in ASK_THE_BROKER}
    assert {command: each for command, each in done.items() if each.status != 6} == {}
    sentences = {each.sentence for each in done.values()}
    assert all(each.startswith("No Kafka broker answers at") for each in sentences)


@given(st.none() | st.binary(max_size=300), headers)
def test_nothing_in_a_dead_letter_acts_on_a_terminal(
    value: bytes | None, found: list[Header]
) -> None:
    content = content_of(value, found)
    for line in dead_letter_lines(content, None):
        assert not ACTS_ON_A_TERMINAL.search(line)
        # What a terminal is sent; a lone surrogate could not be.
        assert line.encode().decode() == line
    assert content_document(content)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"b":1,"a":[1.0,100000000000000000000]}', '  {\n    "b": 1,'),
        (b'{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ("ä\u202e\n".encode(), "ä\\u202e\n"),
        (b"a\x00b", "00000000  61 00 62"),
        (b"", "body, 0 bytes\n"),
    ],
)
def test_a_body_is_shown_as_what_it_is(value: bytes, shown: str) -> None:
    assert shown in "\n".join(dead_letter_lines(content_of(value), None))


@pytest.mark.parametrize(
    ("value", "limit"),
    [(b"\xff" * (HEXDUMP_LIMIT_BYTES + 1), 64), (b"x" * (TEXT_LIMIT_CHARACTERS + 1), 1)],
)
def test_a_large_body_is_cut_and_says_so(value: bytes, limit: int) -> None:
    *lines, last = dead_letter_lines(content_of(value), None)
    assert last == "... cut; rmos dead-letters export writes all of it"
    assert sum(len(line) > 60 for line in lines) <= limit + 3
    *_, last = dead_letter_lines(content_of(value[:-1]), None)
    assert "cut" not in last


def test_many_and_large_headers_are_cut_and_ours_are_shown() -> None:
    found: list[Header] = [("n" * 5000, b"v" * 5000)]
    found += [(f"theirs-{number}", None) for number in range(300_000)]
    found += [("rmos-error-code", b"INVALID_JSON"), ("rmos-group", b"rmos.persist")]
    lines = list(dead_letter_lines(content_of(b"{", found), None))
    assert len(lines) < 150
    assert max(map(len, lines)) < 2100
    assert "  theirs-48 (no value)" in lines
    assert "  ... 299,903 more; rmos dead-letters export writes all of them" in lines
    assert "  rmos-group: rmos.persist" in lines


def test_no_topic_that_a_dead_letter_names_makes_the_name_of_a_file_too_long() -> None:
    named = replace(content_of(b"{}").letter, source=RecordId("rmos.runs.requests", 3, 41))
    assert value_file_name(named) == "rmos.runs.requests-3-41.value"
    hostile = replace(named, source=RecordId("t" * 249, 3, 41))
    assert value_file_name(hostile) == "rmos.runs.dead-letters-0-7.value"


def test_moments_are_read_and_shown_in_utc() -> None:
    assert moment_ms("--since", "2025-12-18T15:03:22.5+01:00") == 1_766_066_602_500
    assert moment_ms("--since", None) is None
    assert moment_text(1_766_066_602_500) == "2025-12-18T14:03:22.500000Z"
    assert moment_text(2**62) == str(2**62)


def test_a_move_reports_what_becomes_of_the_records_between() -> None:
    position = GroupPosition("t", 3, 10, 50, 30)
    forward, back = OffsetMove(position, 99, 50), OffsetMove(position, 10, 10)
    assert move_row(forward) == ["t", 3, 30, 50, "+20", "asked for 99, the log has 10 to 50"]
    assert move_row(OffsetMove(position, None, None)) == ["t", 3, 30, "-", "-20", ""]
    for guarded in (PERSIST, TOPICS.advise_group, TOPICS.migrate_group):
        (skips,) = warnings([forward], guarded, TOPICS)
        assert skips.startswith("20 offsets are skipped.")
        assert "--accept-loss" in skips
    assert "--accept-loss" not in next(warnings([forward], "rmos.audit", TOPICS))
    (again,) = warnings([back], PERSIST, TOPICS)
    assert again.startswith("20 offsets are consumed again")
    assert list(warnings([], PERSIST, TOPICS)) == []


def test_a_move_of_the_v1_group_says_where_its_worker_begins_all_the_same() -> None:
    back = OffsetMove(GroupPosition("t", 3, 10, 50, 30), 10, 10)
    *_, told = warnings([back], TOPICS.persist_v1_group, TOPICS)
    assert told == (
        "A worker in v1 mode begins in each partition where rmos.persist stands, if that is later."
    )
    assert list(warnings([], TOPICS.persist_v1_group, TOPICS)) == []


def test_a_person_is_asked_and_may_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(offsets.sys, "stdin", terminal)
    for answer in (True, False):
        monkeypatch.setattr(
            offsets.typer,
            "confirm",
            lambda text, *, answer=answer, **_: asked.append(text) or answer,
        )
        if answer:
            offsets._ask("rmos.persist", 3)
        else:
            with pytest.raises(RefusedError, match="Nothing was moved"):
                offsets._ask("rmos.persist", 3)
    assert asked == ["Move rmos.persist in 3 partitions?"] * 2
    monkeypatch.setattr(offsets.sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(InputError, match="--yes"):
        offsets._ask("rmos.persist", 3)
