"""The pages of dead letters: what was refused and why, and never what a verdict withholds."""

import base64
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.event_reader import EventTail
from pipeline.broker.reading.dead_letters import DeadLetterContent, NewestDeadLetters
from pipeline.broker.reading.looks import BrokerLooks
from pipeline.core.dead_letters.carried_record import Header
from pipeline.core.dead_letters.letter import DEAD_LETTER_CODES, dead_letter, read_dead_letter
from pipeline.core.dead_letters.shown import SHOWN_CODES
from pipeline.core.record import RecordId, RecordSource
from pipeline.errors import BrokerError
from pipeline.settings import read_settings
from tests.builders import GCODE, encode, red_request, run_request, sha256
from tests.page.conftest import Element, site_over

LETTERS = "rmos.runs.dead-letters"
SOURCE = RecordId("rmos.runs.requests", 3, 17)
PLACE = RecordId(LETTERS, 0, 5)
AT_MS = 1_766_066_602_123
HOSTILE = "</td><script>alert(1)</script>\u202egnp\u200b\"'&{{7*7}}"
SEEN = "</td><script>alert(1)</script>‹U+202E›gnp‹U+200B›\"'&{{7*7}}"


class Looks(BrokerLooks):
    """A broker with these dead letters; with none it is away."""

    def __init__(self, *letters: DeadLetterContent, unread: int = 0) -> None:
        super().__init__(read_settings(bootstrap_servers="127.0.0.1:1"), EventTail())
        self.contents = letters
        self.unread = unread
        self.asked: list[RecordId] = []

    async def newest_dead_letters(self) -> NewestDeadLetters:
        if not self.contents:
            raise BrokerError("Nobody answers at nowhere.")
        found = NewestDeadLetters(there=len(self.contents) + self.unread)
        found.looked_at = len(self.contents)
        for content in self.contents:
            found.letters.add(content.letter)
        return found

    async def dead_letter(self, place: RecordId) -> DeadLetterContent | None:
        self.asked.append(place)
        if not self.contents:
            raise BrokerError("Nobody answers at nowhere.")
        return next((each for each in self.contents if each.letter.place == place), None)


def letter(
    value: bytes | None,
    code: str = "KEY_MISMATCH",
    *,
    key: bytes | None = b"run_x",
    headers: list[Header] | None = None,
    source: RecordId = SOURCE,
    place: RecordId = PLACE,
    message: str = "Expected something else.",
    at_ms: int = AT_MS,
    **more: Any,
) -> DeadLetterContent:
    made = dead_letter(
        (key, value, headers or []), RecordSource(1, source), AT_MS,
        code=code, message=message, group="rmos.persist",
    )  # fmt: skip
    listed = read_dead_letter(place, at_ms, made.key, made.value, made.headers)
    return DeadLetterContent(listed, made.key, made.value, made.headers, **more)


async def page_of(root: Path, content: DeadLetterContent, *runs: dict[str, Any]) -> Element:
    async with site_over(root / "store", broker=Looks(content)) as site:
        if runs:
            site.api.add_runs(*runs)
        return await site.page(f"/dead-letters/{content.letter.place}")


async def test_the_newest_is_first_and_leads_to_its_page(tmp_path: Path) -> None:
    letters = [
        letter(b"{", "INVALID_JSON", place=RecordId(LETTERS, 0, 5), at_ms=AT_MS),
        letter(
            b"{}", "INVALID_IDENTITY", place=RecordId(LETTERS, 2, 0), at_ms=AT_MS + 1000,
            source=RecordId("rmos.runs.requests", 2, 9),
        ),
        letter(
            b"{}", "INVALID_IDENTITY", place=RecordId(LETTERS, 1, 0), at_ms=AT_MS - 1000,
            source=RecordId("rmos.runs.requests", 1, 1),
        ),
    ]  # fmt: skip
    async with site_over(tmp_path / "store", broker=Looks(*letters, unread=7)) as site:
        page = await site.page("/dead-letters")
        only = await site.page("/dead-letters?code=INVALID_JSON")
        of_record = await site.page("/dead-letters?source=rmos.runs.requests/1/1")
    codes, listed = page.all("tbody")
    assert [row.words.split()[:2] for row in codes.all("tr")] == [
        ["2", "INVALID_IDENTITY"],
        ["1", "INVALID_JSON"],
    ]
    assert [link.attributes["href"] for link in listed.all("a")] == [
        f"/dead-letters/{LETTERS}/2/0",
        f"/dead-letters/{LETTERS}/0/5",
        f"/dead-letters/{LETTERS}/1/0",
    ]
    assert "7 older ones were not read" in page.one("main").words
    assert len(list(list(only.all("tbody"))[1].all("tr"))) == 1
    assert "All that the broker keeps was read" not in page.one("main").words
    renewed = only.one("section", id="letters").attributes
    assert renewed["hx-get"] == "/dead-letters?code=INVALID_JSON"
    (link,) = list(of_record.all("tbody"))[1].all("a")
    assert link.attributes["href"] == f"/dead-letters/{LETTERS}/1/0"


async def test_a_letter_says_why_and_how_to_bring_it_back(tmp_path: Path) -> None:
    page = await page_of(tmp_path, letter(b'{"a":1}', headers=[("trace", b"1")]))
    text = page.one("main").words
    assert "The record's key is not the run_id of its value." in text
    assert sha256(b'{"a":1}') in text
    assert "trace" in text
    assert "rmos dead-letters redrive rmos.runs.requests/3/17" in text
    assert "no machine may cut by anything in it" in text
    assert page.one("pre", class_="bytes").text == '{\n  "a": 1\n}'
    assert list(page.one("main").all("button")) == []
    assert list(page.one("main").all("form")) == []


async def test_the_command_is_one_for_any_name_of_a_topic(tmp_path: Path) -> None:
    content = letter(b"{}", source=RecordId("rmos.runs.requests", 0, 1))
    page = await page_of(tmp_path, content)
    commands = [each.text for each in page.all("pre") if "redrive" in each.text]
    assert [shlex.split(each) for each in commands] == [
        ["rmos", "dead-letters", "redrive", "rmos.runs.requests/0/1"]
    ]


async def test_what_cannot_go_back_has_no_command(tmp_path: Path) -> None:
    foreign = letter(b"{}", source=RecordId("somebody.else", 0, 1))
    changed = letter(b"{}", unsendable="changed", fault="Its value has another SHA-256.")
    for number, content in enumerate((foreign, changed)):
        page = await page_of(tmp_path / str(number), content)
        assert "It cannot be brought back" in page.one("main").words
        assert "rmos dead-letters redrive" not in page.one("main").text


@pytest.mark.parametrize("code", sorted({*DEAD_LETTER_CODES, "NEWER_CODE"} - SHOWN_CODES))
async def test_a_code_that_may_be_of_a_blocked_run_shows_no_byte(tmp_path: Path, code: str) -> None:
    page = await page_of(tmp_path, letter(encode(run_request(run_id="run_x")), code))
    assert "Withheld" in page.one("main").words
    assert "G1 X3.0000" not in page.text
    assert sha256(encode(run_request(run_id="run_x"))) in page.text


BODIES = {
    "the same run_id in the value": encode(run_request(run_id="run_red", notes="x")),
    "the same run_id in broken JSON": b'{"run_id": "run_red", "gcode": "G1 X1 Y2 Z3", }',
    "the same program under another run_id": encode(run_request(run_id="run_other")),
    "the same program in broken JSON": encode(run_request(run_id="run_other"))[:-1] + b",}",
    "the program itself": GCODE.encode() if isinstance(GCODE, str) else GCODE,
    "the program as base64": json.dumps({"x": base64.b64encode(
        GCODE.encode() if isinstance(GCODE, str) else GCODE
    ).decode()}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_what_a_verdict_withholds_is_not_read_off_a_dead_letter(
    tmp_path: Path, body: bytes
) -> None:
    page = await page_of(tmp_path, letter(body), red_request(run_id="run_red"))
    assert "Withheld" in page.one("main").words
    assert not list(page.all("pre", class_="bytes"))
    for cut in ("G1 X", base64.b64encode(b"G90\n").decode()[:4]):
        assert cut not in page.one("main").text


async def test_the_run_of_the_key_counts_too(tmp_path: Path) -> None:
    content = letter(b"\x00\x01 no JSON", "INVALID_JSON", key=b"run_red")
    page = await page_of(tmp_path, content, red_request(run_id="run_red"))
    assert "It names the run run_red, whose status is BLOCKED." in page.one("main").words


async def test_a_run_that_is_damaged_withholds_too(tmp_path: Path) -> None:
    content = letter(b'{"run_id":"run_1"}')
    async with site_over(tmp_path / "store", broker=Looks(content)) as site:
        site.api.add_runs(run_request(run_id="run_1"))
        (file,) = (site.api.root / "runs").glob("*/*.json")
        file.chmod(0o600)
        file.write_bytes(file.read_bytes().replace(b"maple", b"walnu"))
        page = await site.page(f"/dead-letters/{PLACE}")
    assert "whose record is damaged" in page.one("main").words


async def test_a_run_that_is_ok_withholds_nothing(tmp_path: Path) -> None:
    content = letter(b'{"run_id":"run_1"}')
    page = await page_of(tmp_path, content, run_request(run_id="run_1"))
    assert page.one("pre", class_="bytes").text == '{\n  "run_id": "run_1"\n}'


async def test_too_many_parts_to_look_up_are_not_shown(tmp_path: Path) -> None:
    body = json.dumps([f"part number {n}" for n in range(3000)]).encode()
    page = await page_of(tmp_path, letter(b'{"a":' + body + b"}"))
    assert "too many parts" in page.one("main").words


async def test_texts_of_others_are_texts(tmp_path: Path) -> None:
    raw = HOSTILE.encode()
    content = letter(
        raw, "INVALID_JSON", key=raw, headers=[(HOSTILE, raw), ("none", None)], message=HOSTILE
    )
    async with site_over(tmp_path / "store", broker=Looks(content)) as site:
        page = await site.page(f"/dead-letters/{PLACE}")
        listed = await site.page("/dead-letters")
    for each in (page, listed):
        assert not [script for script in each.all("script") if "src" not in script.attributes]
    assert page.one("pre", class_="bytes").text == SEEN
    assert page.one("main").text.count(SEEN) == 4
    assert SEEN in listed.one("main").text


async def test_bytes_that_are_no_text_are_shown_in_hexadecimal_and_cut(tmp_path: Path) -> None:
    page = await page_of(tmp_path, letter(b"\x00\xff<b>" + bytes(4000), "INVALID_JSON"))
    shown = page.one("pre", class_="bytes").text
    assert shown.startswith("00000000  00 ff 3c 62 3e")
    assert "|..<b>" in shown
    assert len(shown.splitlines()) == 64
    assert "Cut here." in page.one("main").words


async def test_a_tombstone_has_no_value(tmp_path: Path) -> None:
    page = await page_of(tmp_path, letter(None, "TOMBSTONE"))
    assert "The record has none." in page.one("main").words


async def test_a_broker_that_is_away_is_said(tmp_path: Path) -> None:
    async with site_over(tmp_path / "store", broker=Looks()) as site:
        for path in ("/dead-letters", f"/dead-letters/{PLACE}"):
            page = await site.page(path, 503)
            assert "The broker does not answer." in page.one("p", class_="problem").words
            assert [link.attributes["href"] for link in page.one("main").all("a")] == [path]


@pytest.mark.parametrize(
    "place",
    [
        *(f"{LETTERS}/0/x", f"{LETTERS}/-1/5", f"{LETTERS}/0/05"),
        *("rmos.runs.requests/3/17", "__consumer_offsets/0/0", f"{LETTERS}/0/{10**18}"),
    ],
)
async def test_what_is_no_dead_letter_of_ours_is_not_looked_at(tmp_path: Path, place: str) -> None:
    looks = Looks(letter(b"{}"))
    async with site_over(tmp_path / "store", broker=looks) as site:
        await site.page(f"/dead-letters/{place}", 404)
    assert looks.asked == []


async def test_a_letter_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with site_over(tmp_path / "store", broker=Looks(letter(b"{}"))) as site:
        await site.page(f"/dead-letters/{LETTERS}/0/6", 404)
