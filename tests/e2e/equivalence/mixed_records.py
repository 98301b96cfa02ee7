"""Records of every kind that a worker meets, the same ones for ever: keys, values, headers, times.

What becomes of a record depends on those before it in its partition alone, so no outcome here
depends on how partitions or batches were cut: a run and all that repeats it or names its blob
are in one partition, and a blob that is named and not yet there never comes.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.requests import run_request as bench_request
from tests.builders import (
    ABSENT,
    advisory_request,
    attachment,
    attachment_ref,
    encode,
    incomplete_request,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.e2e.kafka_reading import Headers, Sending

PARTITIONS = 12
FIRST_MS = 1_767_225_600_000
"""Broker time of the first record: 2026-01-01T00:00:00Z."""
STEP_MS = 37
ADVISORIES_EACH = 20
"""One advisory for so many run requests."""

Body = dict[str, Any]

_NUMBERS = (
    *("-0.0", "1E5", "1e-7", "0.00001", "0.000001", "1.0", "-0", "1e22", "5e-324", "1.5E+300"),
    *("123456789012345678901234567890", "-9223372036854775809", "9007199254740993", "100.50"),
)
_TEXTS = (
    'a "quoted" word',
    'back\\slash, tab\t, del \x7f, nul "\x00"',
    "Ahornfurnier 0,6 mm, Übergröße",
    "木目 🪵 \U0001f6e0",
    "line\u2028separator </script>",
    "e-0.0000 \\u0022",
)
_KEYS = ("api_key", "Password", "tokens", "secret", "\U0001f600", "\uffff", "é", "feasibility")
_NOT_JSON = (
    *(b"", b"no json", b"[]", b'"text"', b"\xff\xfe{}", b'\xef\xbb\xbf{"run_id":"a"}'),
    *(b'{"run_id":"a","run_id":"b"}', b'{"n":NaN}', b'{"n":1e400}', b'{"t":"\\ud800"}'),
    *(b'{"open":', b"{} {}", b'{"a":' * 70 + b"1" + b"}" * 70),
)


def mixed_records(count: int) -> Iterator[Sending]:
    """Yield `count` run requests in the order in which they are sent."""
    mix = _Mix()
    for number in range(count):
        yield mix.following(number)


def mixed_advisories(count: int) -> Iterator[Sending]:
    """Yield advisories about the runs of `mixed_records(count)`, once those are stored."""
    mix = _Mix()
    for number in range(count):
        mix.following(number)
        if number % ADVISORIES_EACH == 0:
            yield mix.advisory(number)


class _Mix:
    """What has been sent so far, so that a record can repeat, contradict or name it."""

    def __init__(self) -> None:
        self._chance = random.Random("mixed records")
        # The bodies and blobs of each partition.
        self._sent: list[list[Body]] = [[] for _ in range(PARTITIONS)]
        self._blobs: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self._kinds: list[Callable[[int, int], tuple[bytes | None, bytes | None]]] = []
        for weight, kind in (
            *((60, self._new), (10, self._again), (3, self._rewritten), (5, self._conflict)),
            *((4, self._incomplete), (4, self._not_json), (2, self._tombstone)),
            *((3, self._wrong_key), (3, self._wrong_identity), (1, self._other_version)),
            *((4, self._with_blobs), (1, self._large)),
        ):
            self._kinds += [kind] * weight

    def following(self, number: int) -> Sending:
        # Of its own: what one record draws changes no other.
        self._chance = random.Random(f"mixed/{number}")
        partition = self._chance.randrange(PARTITIONS)
        kind = self._too_large if number % 4000 == 1999 else self._chance.choice(self._kinds)
        key, value = kind(number, partition)
        return Sending(key, value, self._headers(), partition, FIRST_MS + number * STEP_MS)

    def advisory(self, number: int) -> Sending:
        chance = self._chance = random.Random(f"advisory/{number}")
        partition = chance.choice([n for n, sent in enumerate(self._sent) if sent])
        run_id = chance.choice(self._sent[partition])["run_id"]
        changes: Body = chance.choice(
            (
                {},
                {"advisory_id": f"adv_{number}", "content_text": f"Text {number} 木"},
                {"advisory_id": f"adv_{number}", "content_text": ABSENT, "content_json": {"b": 1}},
                {"content_text": "another text"},
                {"title": "another title"},
                {"content_text": ABSENT, "content_sha256": sha256(f"never {number}")},
                {"advisory_id": "not an id"},
                {"kind": "verdict"},
            )
        )
        key, value = record(advisory_request(run_id=run_id, **changes))
        if chance.random() < 0.05:
            value = chance.choice(_NOT_JSON)
        return Sending(key, value, self._headers(), partition, FIRST_MS + number * STEP_MS)

    def _new(self, number: int, partition: int) -> tuple[bytes, bytes]:
        chance = self._chance
        make = chance.choice(
            (run_request, run_request, router_request, rosette_request, red_request, _bench)
        )
        request = make(**self._identity(number), **self._extras(number))
        self._sent[partition].append(request)
        return request["run_id"].encode(), self._encoded(request)

    def _identity(self, number: int) -> Body:
        day, second = self._chance.randrange(1, 6), self._chance.randrange(86_400)
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        ending = self._chance.choice(("Z", ".5Z", ".123456789Z", "+02:00", ".000000-05:30"))
        return {
            "run_id": f"run_{sha256(str(number))[:32]}",
            "created_at_utc": f"2026-01-{day:02d}T{clock}{ending}",
        }

    def _extras(self, number: int) -> Body:
        """Return changes that a request may have, so that each is among many."""
        chance, text = self._chance, self._chance.choice(_TEXTS)
        return chance.choice(
            (
                {},
                {},
                {"meta": {"n": _Number(chance.choice(_NUMBERS)), "text": text, "number": number}},
                {"meta": {chance.choice(_KEYS): text, "nested": [{chance.choice(_KEYS): number}]}},
                {"request": {"spec": {chance.choice(_KEYS): {"safety": text}}, "list": [1] * 300}},
                {"request": {"n": [_Number(each) for each in _NUMBERS], "text": text}},
                {"feasibility": {"risk_level": chance.choice(("green", " Red ", "?", "ERROR"))}},
                {"feasibility": {"score": _Number(chance.choice(_NUMBERS)), "bbox": None}},
                {"status": "ERROR", "error": {"type": "ToolError", "message": text[:9].strip()}},
                {"status": "OK", "decision": {"risk_level": "RED", "block_reason": "no room"}},
                {"hashes": {"gcode_sha256": sha256("claimed")}, "outputs": {"gcode_path": "/a.nc"}},
                {"hashes": {"toolpaths_sha256": sha256("wrong")}},
                {"outputs": {"gcode_text": f"G1 X{number}\n" * chance.randrange(1, 200)}},
                {"outputs": None, "errors": [text.replace("\x00", "")], "notes": None},
                {"parent_run_id": f"run_{number - 1}", "drift_summary": {"d": [text]}},
                {"schema_version": ABSENT},
            )
        )

    def _again(self, number: int, partition: int) -> tuple[bytes, bytes]:
        request = self._earlier(partition)
        return (record(_plain(request))) if request else self._new(number, partition)

    def _rewritten(self, number: int, partition: int) -> tuple[bytes, bytes]:
        """Send the same request in other bytes."""
        request = self._earlier(partition)
        if request is None:
            return self._new(number, partition)
        turned = dict(reversed(request.items()))
        return request["run_id"].encode(), json.dumps(_plain(turned), indent=1).encode()

    def _conflict(self, number: int, partition: int) -> tuple[bytes, bytes]:
        request = self._earlier(partition)
        if request is None:
            return self._new(number, partition)
        return record(_plain(request) | {"notes": f"changed {number}"})

    def _incomplete(self, number: int, partition: int) -> tuple[bytes, bytes]:
        changes: Body = self._chance.choice(
            (
                {},
                {"mode": 7},
                {"feasibility": {}},
                {"unknown_field": _Number(self._chance.choice(_NUMBERS))},
                {"attachments": [attachment(b"other", sha256=sha256("else"))]},
                {"attachments": [attachment(content_base64="no base64")]},
                {"outputs": {"gcode_text": 1}, "meta": []},
            )
        )
        request = incomplete_request(**self._identity(number), **changes)
        self._sent[partition].append(request)
        return request["run_id"].encode(), self._encoded(request)

    def _not_json(self, number: int, _partition: int) -> tuple[bytes, bytes]:
        return f"bad_{number}".encode(), self._chance.choice(_NOT_JSON)

    def _tombstone(self, number: int, _partition: int) -> tuple[bytes | None, None]:
        return (None if number % 2 else f"run_{number}".encode()), None

    def _wrong_key(self, number: int, _partition: int) -> tuple[bytes | None, bytes]:
        key = self._chance.choice((None, b"", b"another", b"\xff\x00", b"k" * 300))
        return key, encode(run_request(**self._identity(number)))

    def _wrong_identity(self, number: int, _partition: int) -> tuple[bytes, bytes]:
        changes: Body = self._chance.choice(
            (
                {"run_id": "../etc"},
                {"run_id": 7},
                {"run_id": f"run_{number}_advisory"},
                {"created_at_utc": "2026-02-30T00:00:00Z"},
                {"created_at_utc": ABSENT},
            )
        )
        return record_key(number), encode(run_request(**(self._identity(number) | changes)))

    def _other_version(self, number: int, _partition: int) -> tuple[bytes, bytes]:
        return record(run_request(**self._identity(number), schema_version="rmos.run_request/9"))

    def _with_blobs(self, number: int, partition: int) -> tuple[bytes, bytes]:
        chance, blobs = self._chance, self._blobs[partition]
        content = f"0\nSECTION {number % 50}\n".encode() * chance.randrange(1, 400)
        listed = [attachment(content, kind=chance.choice(("dxf_input", "gcode", "debug")))]
        if blobs:
            listed.append(attachment_ref(chance.choice(blobs), filename="earlier.dxf"))
        if number % 3 == 0:
            listed.append(attachment_ref(f"never {number % 200}".encode(), kind="manifest"))
        blobs.append(content)
        make = chance.choice((run_request, red_request, rosette_request))
        request = make(**self._identity(number), attachments=listed)
        self._sent[partition].append(request)
        return request["run_id"].encode(), self._encoded(request)

    def _large(self, number: int, partition: int) -> tuple[bytes, bytes]:
        lines = [f"G1 X{n % 97}.{number % 1000:03d} Y{n % 47} F1200" for n in range(30_000)]
        size = self._chance.choice((3_000, 8_000, 30_000))
        request = router_request(
            **self._identity(number), outputs={"gcode_text": "\n".join(lines[:size])}
        )
        self._sent[partition].append(request)
        return record(request)

    def _too_large(self, number: int, _partition: int) -> tuple[bytes, bytes]:
        size = (4_194_304, 4_300_000, 7_000_000)[number // 4000 % 3]
        return record_key(number), b'{"notes":"' + b"x" * size + b'"}'

    def _earlier(self, partition: int) -> Body | None:
        sent = self._sent[partition]
        return self._chance.choice(sent) if sent else None

    def _encoded(self, request: Body) -> bytes:
        """Return a request as one of several writers writes it."""
        options = self._chance.choice(
            (
                {"ensure_ascii": False, "separators": (",", ":")},
                {"ensure_ascii": False, "separators": (",", ":")},
                {"ensure_ascii": True},
                {"indent": 2, "ensure_ascii": False},
                {"sort_keys": True, "ensure_ascii": False},
            )
        )
        return _written(request, options)

    def _headers(self) -> Headers:
        trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        return self._chance.choice(
            (
                *((), (), (), (), (trace,), (trace, ("k", None), ("k", b"\xff"))),
                (("rmos-attempt", b"3"), ("ce_id", b"theirs"), ("large", b"h" * 20_000)),
            )
        )


class _Number(str):
    """A number as it is written, which no float of ours keeps."""


def _written(request: Body, options: Body) -> bytes:
    numbers: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, _Number):
            numbers.append(value)
            return f"number {len(numbers) - 1} of the mix"
        if isinstance(value, dict):
            return {name: marked(item) for name, item in value.items()}
        return [marked(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(marked(request), **options)
    for index, number in enumerate(numbers):
        text = text.replace(f'"number {index} of the mix"', number)
    return text.encode()


def _plain(request: Body) -> Body:
    """Return what a reader makes of the numbers, which a duplicate may write in its own way."""
    read: Body = json.loads(_written(request, {}))
    return read


def _bench(**changes: Any) -> Body:
    digits = changes["run_id"].removeprefix("run_")
    return bench_request(int(digits, 16) % 1000, "mixed") | {
        name: value for name, value in changes.items() if value is not ABSENT
    }


def record_key(number: int) -> bytes:
    return f"run_{sha256(str(number))[:32]}".encode()
