"""What a file tells about itself: its form, its hashes, its place, its blobs."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audit.rules.content import (
    ContentCheck,
    check_artifact,
    check_artifact_by_rule,
    check_link,
    clean_artifact,
)
from pipeline.core.advisories.verdict import judge_advisory_record
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import ArtifactPath, attachment_path, quarantine_path
from tests.builders import (
    ABSENT,
    RUN_ID,
    advisory_request,
    attachment,
    document,
    incomplete_request,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.legacy_rows import artifact, bare_row, v1_row

PATH = f"runs/2025-12-18/{RUN_ID}.json"
PLACE = ArtifactPath("2025-12-18", RUN_ID)
LARGE = run_request(outputs={"gcode_text": "G1 X1.0000\n" * 30_000})


def checked(content: bytes | dict[str, Any], path: str = PATH) -> ContentCheck:
    written = content if isinstance(content, bytes) else canonical_json(content)
    return check_artifact(path, written)


def told(check: ContentCheck) -> list[tuple[str, str, str]]:
    return [(each.code, each.expected, each.found) for each in check.findings]


@pytest.mark.parametrize(
    "request_",
    [
        run_request(),
        red_request(),
        incomplete_request(),
        router_request(run_id=RUN_ID, created_at_utc="2025-12-18T00:00:00Z"),
        rosette_request(run_id=RUN_ID, created_at_utc="2025-12-18T23:59:59+00:00"),
        LARGE,
        # A path of the producer's own, and no G-code: nothing to hash.
        run_request(outputs={"gcode_path": "nc/part.nc", "toolpaths": [1e-07, 2**70]}),
    ],
)
def test_every_artifact_that_we_write_has_no_finding(request_: dict[str, Any]) -> None:
    check = checked(document(request_))
    assert check.findings == []
    assert check.document == document(request_)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected JSON"),
        (b"\xff{}", "expected UTF-8"),
        (b"[]", "expected an object"),
        (b"{}", "Field required"),
        (b'{"a":1,"a":1}', "duplicate keys"),
        (json.dumps(document(run_request())).encode(), "written otherwise"),
        (canonical_json(document(run_request())) + b"\n", "written otherwise"),
        (canonical_json(document(run_request()) | {"status": "FINE"}), "status"),
        (canonical_json(document(run_request()) | {"extra": 1}), "extra"),
    ],
)
def test_what_is_no_artifact_in_canonical_json_is_unreadable(content: bytes, reason: str) -> None:
    (finding,) = checked(content).findings
    assert (finding.code, finding.path) == ("FILE_UNREADABLE", PATH)
    assert reason in finding.found


def test_a_number_that_another_program_wrote_is_not_canonical() -> None:
    """orjson writes 1e-05 as 0.00001: the same value, and other bytes than were hashed."""
    content = canonical_json(document(rosette_request())).replace(b"1e-05", b"0.00001")
    (finding,) = check_artifact("it.json", content).findings
    assert (finding.code, finding.found) == ("FILE_UNREADABLE", "JSON that is written otherwise")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("feasibility_sha256", lambda d: d["feasibility"].update(score=1)),
        ("toolpaths_sha256", lambda d: d["outputs"]["toolpaths"].update(units="inch")),
        ("gcode_sha256", lambda d: d["outputs"].update(gcode_text="M3 S99999")),
        ("opplan_sha256", lambda d: d["outputs"].update(opplan_json=[])),
        ("toolpaths_sha256", lambda d: d["outputs"].pop("toolpaths")),
        ("gcode_sha256", lambda d: d["hashes"].pop("gcode_sha256")),
    ],
    ids=["feasibility", "toolpaths", "gcode", "opplan without a hash", "hash alone", "no hash"],
)
def test_a_payload_and_its_hash_that_do_not_go_together_are_found(name: str, change: Any) -> None:
    changed = document(run_request())
    change(changed)
    (finding,) = checked(changed).findings
    assert finding.code == "HASH_DIFFERS"
    assert finding.expected.startswith(name)


@pytest.mark.parametrize(("part", "name"), [("outputs", "gcode_text"), ("hashes", "gcode_sha256")])
def test_a_null_in_place_of_a_payload_or_its_hash_is_found(part: str, name: str) -> None:
    changed = document(run_request())
    changed[part][name] = None
    (finding,) = checked(changed).findings
    assert finding.code == "HASH_DIFFERS"
    assert "gcode_sha256" in finding.document("audit_1")["expected"]


def test_gcode_in_an_attachment_has_the_hash_of_its_name() -> None:
    changed = document(LARGE)
    assert checked(changed).findings == []
    changed["outputs"]["gcode_path"] = attachment_path("0" * 64)
    gcode = sha256("G1 X1.0000\n" * 30_000)
    assert told(checked(changed)) == [
        ("HASH_DIFFERS", "gcode_sha256 left out, as there is nothing to hash", gcode)
    ]


def test_a_producer_may_name_its_own_attachment_by_its_path() -> None:
    cut = attachment(b"G1 X1", kind="gcode")
    outputs = {"gcode_path": attachment_path(cut["sha256"])}
    named = document(run_request(outputs=outputs, attachments=[cut]))
    assert "gcode_sha256" not in named["hashes"]
    assert checked(named).findings == []


@pytest.mark.parametrize(
    "place", [ArtifactPath("2025-12-19", RUN_ID), ArtifactPath("2025-12-18", "run_1")]
)
def test_an_artifact_at_the_place_of_another_is_found(place: ArtifactPath) -> None:
    check = checked(document(run_request()), str(place))
    assert told(check) == [("PATH_DIFFERS", f"the artifact of {place}", f"that of {PLACE}")]
    assert checked(document(run_request()), "it.json").findings == []


def test_an_artifact_names_its_attachments_once_and_what_it_hides() -> None:
    drawing = attachment(b"drawing")
    shown = checked(document(run_request(attachments=[drawing, drawing])))
    assert shown.blobs == (attachment_path(sha256(b"drawing")),)
    hidden = document(red_request(attachments=[drawing]))
    request_sha256 = hidden["provenance"]["request_sha256"]
    assert checked(hidden).blobs == (shown.blobs[0], quarantine_path(request_sha256))


def test_a_run_that_an_older_store_called_ok_names_its_request_where_it_withholds() -> None:
    safe, unsafe = artifact(v1_row()), artifact(bare_row(gcode_text="G1 X1"))
    assert (safe["status"], unsafe["status"]) == ("OK", "OK")
    request_sha256 = unsafe["provenance"]["request_sha256"]
    assert checked(safe, path="it.json").blobs == ()
    assert checked(unsafe, path="it.json").blobs == (quarantine_path(request_sha256),)


def link(**changes: Any) -> bytes:
    judged = judge_advisory_record(*record(advisory_request(**changes)))
    return judged.content  # type: ignore[union-attr]


LINK_PATH = f"runs/2025-12-18/{RUN_ID}_advisory_adv_1.json"


def test_every_link_that_we_write_has_no_finding_and_names_its_content() -> None:
    check = check_link(LINK_PATH, link())
    assert check.findings == []
    text = "The rim speed stays **below** the blade's limit."
    assert check.blobs == (attachment_path(sha256(text)),)
    assert check_link(LINK_PATH, link(content_text=ABSENT)).blobs == ()


def test_a_link_at_the_place_of_another_is_found() -> None:
    (finding,) = check_link(LINK_PATH, link(advisory_id="adv_2")).findings
    assert (finding.code, finding.found) == (
        "PATH_DIFFERS",
        f"that of {LINK_PATH.replace('adv_1', 'adv_2')}",
    )


def test_an_artifact_is_no_link() -> None:
    content = canonical_json(document(run_request()))
    (finding,) = check_link(LINK_PATH, content).findings
    assert finding.code == "FILE_UNREADABLE"


PLAIN = document(
    run_request(
        **dict.fromkeys(("machine_id", "material_id", "notes", "request_id"), "x"),
        outputs={
            "gcode_text": "G1",
            "toolpaths": [1.5],
            "opplan_json": {},
            "preview_svg": "<svg/>",
        },
        decision={"risk_level": "GREEN", "score": 7.5, "warnings": ["w"], "details": {"a": 1}},
    )
)
BLOCKED = document(red_request())
VALUES: list[Any] = [
    *(None, True, 0, -1, 100, 101, 100.5, 1e-05, 1e-07, 2**53, 2**70),
    *("", "x", "a\nb", "\x9f", "x" * 201, "x" * 20_001, "é" * 200, "GREEN", "diff", "0" * 64),
    *("2025-12-18T14:03:22Z", "2025-02-30T00:00:00Z", "2025-12-18T15:03:22+01:00"),
    *([], [None], ["x"], [[]], {}, {"a": 1e-05}, {"a": {"b": [2**70]}}, {"a": "e-0.00001"}),
]


def _changed(whole: dict[str, Any], parts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield copies in which one member at `parts` is another, is gone, or is new."""
    holder: Any = whole
    for part in parts:
        holder = holder[part]
    for name in [*holder, "extra"]:
        for value in [*VALUES, ...]:
            other = deepcopy(whole)
            place: Any = other
            for part in parts:
                place = place[part]
            place[name] = value
            if value is ...:
                del place[name]
            yield other
            if name == "feasibility":
                # A wrong value with its right hash.
                other["hashes"]["feasibility_sha256"] = sha256(canonical_json(place.get(name)))
                yield other


@pytest.mark.parametrize(
    "parts", [(), ("decision",), ("outputs",), ("hashes",), ("provenance",)], ids=str
)
@pytest.mark.parametrize("whole", [PLAIN, BLOCKED], ids=["plain", "blocked"])
def test_an_artifact_with_any_value_is_checked_as_by_the_rule(
    whole: dict[str, Any], parts: tuple[str, ...]
) -> None:
    for changed in _changed(whole, parts):
        for content in (canonical_json(changed), _as_orjson_writes(changed)):
            assert check_artifact(PATH, content) == check_artifact_by_rule(PATH, content), content


def _as_orjson_writes(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return b""


@given(start=st.integers(0, 3_000), removed=st.integers(0, 2), put=st.binary(max_size=2))
def test_an_artifact_with_a_byte_changed_is_checked_as_by_the_rule(
    start: int, removed: int, put: bytes
) -> None:
    whole = canonical_json(PLAIN)
    content = whole[:start] + put + whole[start + removed :]
    assert check_artifact(PATH, content) == check_artifact_by_rule(PATH, content)


def test_most_artifacts_need_no_rule() -> None:
    assert clean_artifact(canonical_json(PLAIN)) == PLAIN
    assert clean_artifact(canonical_json(BLOCKED)) == BLOCKED
