"""What fits each published schema and what does not, and one of each thing that we write."""

import json
from typing import Any, Final

from pipeline.audit.rules.finding import Finding
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.dead_letters.letter import DeadLetter, dead_letter, read_dead_letter
from pipeline.core.dead_letters.redrive import redrive_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.diff import diff_runs
from tests.builders import (
    ABSENT,
    advisory_request,
    attachment,
    attachment_ref,
    document,
    incomplete_request,
    record,
    red_request,
    rosette_request,
    router_request,
    run_request,
)
from tests.legacy_rows import bare_row, legacy_request, mapped, original_v2_row, unknown_row, v1_row

SOURCE: Final = RecordSource(1, RecordId("rmos.runs.requests", 3, 41))

GOOD_REQUESTS: dict[str, Any] = {
    "saw": run_request(),
    "router": router_request(),
    "rosette": rosette_request(),
    "red": red_request(),
    "attachments": run_request(attachments=[attachment(), attachment_ref(b"x", kind="debug")]),
    "nulls in typed fields": run_request(decision=None, errors=None, notes=None, outputs=None),
    "nulls inside typed parts": run_request(decision={"risk_level": None, "score": None}),
    "risk in another spelling": run_request(decision={"risk_level": " green\n"}),
    "no schema_version": run_request(schema_version=ABSENT),
    "empty notes": run_request(notes="", errors=["", "x" * 20_000]),
    "label of 200 characters, some outside the BMP": run_request(tool_id="\U0001fa9a" * 200),
}

BAD_REQUESTS: dict[str, Any] = {
    "no tool": incomplete_request(),
    "null tool": run_request(tool_id=None),
    "empty feasibility": run_request(feasibility={}),
    "feasibility as a list": run_request(feasibility=[]),
    "unknown field": run_request(risk="GREEN"),
    "unknown field in a typed part": run_request(decision={"risk_bucket": "GREEN"}),
    "text for a number": run_request(decision={"score": "50"}),
    "true for a number": run_request(decision={"score": True}),
    "one for true": run_request(drift_detected=1),
    "score above 100": run_request(decision={"score": 100.5}),
    "risk as a number": run_request(decision={"risk_level": 1}),
    "status in lower case": run_request(status="ok"),
    "label with a newline at its end": run_request(tool_id="saw\n"),
    "label of 201 characters": run_request(tool_id="x" * 201),
    "notes above 20,000 characters": run_request(notes="x" * 20_001),
    "run_id with a newline at its end": run_request(run_id="run_1\n"),
    "reserved run_id": run_request(run_id="diff"),
    "run_id like a link": run_request(run_id="a_advisory_b"),
    "run_id that ends like a link": run_request(run_id="a_advisory"),
    "time without an offset": run_request(created_at_utc="2025-12-18T14:03:22"),
    "hash in upper case": run_request(hashes={"gcode_sha256": "A" * 64}),
    "file name with a folder": run_request(attachments=[attachment(filename="a/b")]),
    "mime without a subtype": run_request(attachments=[attachment(mime="text")]),
    "size below zero": run_request(attachments=[attachment(size_bytes=-1)]),
    "size above 2^53-1": run_request(attachments=[attachment(size_bytes=2**53)]),
    "attachment without a kind": run_request(attachments=[attachment(kind=ABSENT)]),
    "another version": run_request(schema_version="rmos.run_request/2"),
}

GOOD_ADVISORIES: dict[str, Any] = {
    "text": advisory_request(),
    "json": advisory_request(content_text=ABSENT, content_json=[{"a": 1}]),
    "false": advisory_request(content_text=ABSENT, content_json=False),
    "hash": advisory_request(content_text=ABSENT, content_sha256="a" * 64),
    "no content": advisory_request(content_text=ABSENT, kind="note"),
    "null contents": advisory_request(content_json=None, content_sha256=None),
    "only what it needs": advisory_request(
        engine_id=ABSENT, engine_version=ABSENT, title=ABSENT, schema_version=ABSENT
    ),
    "empty title": advisory_request(title=""),
}

BAD_ADVISORIES: dict[str, Any] = {
    "two contents": advisory_request(content_json={}),
    "two other contents": advisory_request(content_sha256="a" * 64),
    "no id": advisory_request(advisory_id=ABSENT),
    "id with a newline at its end": advisory_request(advisory_id="a\n"),
    "id of 101 characters": advisory_request(advisory_id="a" * 101),
    "no kind": advisory_request(kind=ABSENT),
    "null kind": advisory_request(kind=None),
    "another kind": advisory_request(kind="opinion"),
    "unknown field": advisory_request(mime="text/plain"),
    "hash in upper case": advisory_request(content_text=ABSENT, content_sha256="A" * 64),
    "empty engine": advisory_request(engine_id=""),
    "title above 20,000 characters": advisory_request(title="x" * 20_001),
    "a run's version": advisory_request(schema_version="rmos.run_request/1"),
}

GOOD_ROWS: dict[str, Any] = {
    "green": v1_row(),
    "unknown": unknown_row(),
    "without a verdict": bare_row(),
    "original v2": original_v2_row(advisory_inputs=[{"advisory_id": "a", "kind": None}]),
    "values that fit no field": v1_row(notes=7, errors="x", meta={"v1": 1}, format=1),
}

BAD_ROWS: dict[str, Any] = {
    "no version": legacy_request(schema_version=ABSENT),
    "a run's version": legacy_request(schema_version="rmos.run_request/1"),
    "no decision": legacy_request(decision=ABSENT),
    "a decision without a risk": legacy_request(decision={"score": 1}),
    "a risk in another spelling": legacy_request(decision={"risk_level": "green"}),
    "no status": legacy_request(status=ABSENT),
    "no v1": legacy_request(meta={}),
    "no hash of the row": legacy_request(meta={"v1": {"format": "v1"}}),
    "unknown field": legacy_request(tool="x"),
    "claims": legacy_request(hashes={"gcode_sha256": "1" * 64}),
}

AUDIT: dict[str, Any] = {
    "schema_version": "rmos.audit_request/1",
    "audit_id": "daily-2026-02-01",
    "scope": {"all": True},
    "mode": "full",
}

GOOD_AUDITS: dict[str, Any] = {
    "all": AUDIT,
    "no schema_version": {name: AUDIT[name] for name in ("audit_id", "scope", "mode")},
    "quick": AUDIT | {"mode": "quick"},
    "dates": AUDIT | {"scope": {"dates": ["2025-12-18", "2024-02-29"]}, "mode": "sampled"},
    "run ids": AUDIT | {"scope": {"run_ids": ["run_1"]}},
    "null scopes": AUDIT | {"scope": {"all": None, "dates": None, "run_ids": ["run_1"]}},
}

BAD_AUDITS: dict[str, Any] = {
    "no id": {name: AUDIT[name] for name in ("scope", "mode")},
    "id with a newline at its end": AUDIT | {"audit_id": "a\n"},
    "no scope": {name: AUDIT[name] for name in ("audit_id", "mode")},
    "empty scope": AUDIT | {"scope": {}},
    "two scopes": AUDIT | {"scope": {"all": True, "dates": ["2025-12-18"]}},
    "not all": AUDIT | {"scope": {"all": False}},
    "one for true": AUDIT | {"scope": {"all": 1}},
    "no dates": AUDIT | {"scope": {"dates": []}},
    "a time for a date": AUDIT | {"scope": {"dates": ["2025-12-18T00:00:00Z"]}},
    "date with a newline at its end": AUDIT | {"scope": {"dates": ["2025-12-18\n"]}},
    "no run ids": AUDIT | {"scope": {"run_ids": []}},
    "a run id that is none": AUDIT | {"scope": {"run_ids": ["diff"]}},
    "too many run ids": AUDIT | {"scope": {"run_ids": ["run_1"] * 5_001}},
    "no mode": {name: AUDIT[name] for name in ("audit_id", "scope")},
    "null mode": AUDIT | {"mode": None},
    "another mode": AUDIT | {"mode": "deep"},
    "unknown field": AUDIT | {"repair": True},
    "another version": AUDIT | {"schema_version": "rmos.audit_request/2"},
}


AUDIT_REPORT: dict[str, Any] = {
    "schema_version": "rmos.audit_report/1",
    "audit_id": "daily-2026-02-01",
    "scope": {"run_ids": ["run_1"]},
    "mode": "sampled",
    "sample_share": 0.05,
    "started_at_utc": "2026-02-01T02:00:00.500000Z",
    "finished_at_utc": "2026-02-01T02:00:01Z",
    "verdicts": {
        "integrity": {"result": "failed", "reason": "1 finding."},
        "completeness": {"result": "unknown", "reason": "No broker was asked."},
        "anchored": {"result": "unknown", "reason": ""},
        "late": {"result": "ok", "reason": "No record is late."},
    },
    "counts": {
        **{"days": 1, "artifacts": 1, "links": 0, "attachments": 2, "quarantined": 0, "logs": 1},
        **{"leaves": 7, "anchored_leaves": 0, "files_read": 3, "bytes_read": 2**53 - 1},
        "findings": 1,
    },
    "codes": {"BYTES_DIFFER": 1},
    "logs": [
        {
            "origin": "rmos/0123456789abcdef0123456789abcdef/1/rmos.runs.requests/3",
            "size": 7,
            "root_sha256": "a" * 64,
            "anchored_size": 0,
        }
    ],
    "store_root": "b" * 64,
}


def finding() -> dict[str, Any]:
    return Finding("BYTES_DIFFER", "runs/2025-12-18/run_1.json", "a" * 64, "b" * 64).document("a1")


def links() -> dict[str, dict[str, Any]]:
    """Return the link of each good advisory."""
    made = {}
    for name, request in GOOD_ADVISORIES.items():
        advisory = judge_advisory_record(*record(request))
        assert isinstance(advisory, JudgedAdvisory)
        made[name] = json.loads(advisory.content)
    return made


def letter(*, large: bool = False) -> DeadLetter:
    """Return a dead letter; a large one leaves out the key and a header."""
    key, header = (b"f" * (8 * 1024 * 1024), b"f" * (8 * 1024 * 1024)) if large else (b"k", b"00-1")
    return dead_letter(
        (key, b"{", [("traceparent", header)]),
        SOURCE,
        0,
        code="INVALID_JSON",
        message="Expected an object.",
        group="rmos.persist",
    )


def letter_headers(*, large: bool = False) -> dict[str, str]:
    ours = letter(large=large).headers
    return {
        name: text.decode() for name, text in ours if text is not None and name.startswith("rmos-")
    }


def redrive() -> dict[str, Any]:
    kept = letter()
    place = RecordId("rmos.runs.dead-letters", 0, 7)
    found = read_dead_letter(place, 0, kept.key, kept.value, kept.headers)
    _, value = redrive_record(found, RecordId("rmos.runs.requests", 3, 99))
    remembered: dict[str, Any] = json.loads(value)
    return remembered


def good_and_bad() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return, by the name of a frozen schema, what fits it and what does not.

    Events are apart: they are golden files.
    """
    artifacts = {name: document(request) for name, request in GOOD_REQUESTS.items()}
    artifacts |= {name: document(BAD_REQUESTS[name]) for name in ("no tool", "unknown field")}
    rows = {name: mapped(row) for name, row in GOOD_ROWS.items()}
    artifacts |= {f"v1: {name}": json.loads(row.judged.built.content) for name, row in rows.items()}
    saw, router = artifacts["saw"], artifacts["router"]
    return {
        "rmos.run_request-1": (GOOD_REQUESTS, BAD_REQUESTS),
        "rmos.run_artifact-2": (artifacts, broken(saw)),
        "rmos.run_diff-1": (
            {"equal": diff_runs(saw, saw), "other": diff_runs(saw, router)},
            broken(diff_runs(saw, router)),
        ),
        "rmos.advisory_request-1": (GOOD_ADVISORIES, BAD_ADVISORIES),
        "rmos.advisory_link-1": (links(), broken(links()["text"])),
        "rmos.legacy_run-1": (
            {name: json.loads(row.body) for name, row in rows.items()},
            BAD_ROWS,
        ),
        "rmos.audit_request-1": (GOOD_AUDITS, BAD_AUDITS),
        "rmos.audit_finding-1": ({"one": finding()}, broken(finding())),
        "rmos.audit_report-1": ({"one": AUDIT_REPORT}, broken(AUDIT_REPORT)),
        "rmos.dead_letter_headers-1": ({"one": letter_headers()}, broken(letter_headers())),
        "rmos.dead_letter_headers-2": (
            {"one": letter_headers(), "cut": letter_headers(large=True)},
            broken(letter_headers(large=True)),
        ),
        "rmos.redrive-1": ({"one": redrive()}, broken(redrive())),
    }


def broken(whole: dict[str, Any]) -> dict[str, Any]:
    """Return `whole` with one fault each: every field of another type."""
    return {f"{name} of another type": whole | {name: [[0]]} for name in whole}
