"""Write `docs/test-vectors.json` anew: a deliberate act, as for the golden files.

python -m tests.vectors
"""

import json
from pathlib import Path
from typing import Any

from pipeline.core.json.canonical import canonical_json
from pipeline.core.json.strict import parse_object
from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from schemas.timestamps import normalise_timestamp
from tests.builders import sha256
from tests.golden.large_gcode import LARGE_GCODE_MARK
from tests.golden.regenerate import requests

PATH = Path(__file__).parent.parent / "docs" / "test-vectors.json"

CANONICAL = {
    "empty object": "{}",
    "order of keys, spaces": '{ "b" : 1 ,\n"a": [ ] }',
    "numbers keep their kind": '{"a":[1,1.0,-0,-0.0,100.0,1E2,0.1e1]}',
    "small numbers": '{"a":[0.0001,0.00001,1e-7,-2.5e-06,5e-324,1e-400]}',
    "large numbers": '{"a":[1e15,1e16,1e22,1.7976931348623157e308]}',
    "integers keep every digit": '{"a":[9007199254740993,18446744073709551616,-' + "7" * 40 + "]}",
    "escapes are undone": '{"\\u0061":"\\/\\u00e9\\ud83e\\ude9a"}',
    "escapes that stay": '{"a":"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\"}',
    "no other escapes": '{"a":"\x7f\u2028\u2029\ufeff<>&\'"}',
    "keys by code point, not by UTF-16": '{"\\ud800\\udc00":1,"\\uffff":2,"z":3,"é":4}',
    "no normalisation": '{"\u00e9":1,"e\u0301":2}',
    "null, true, false": '{"a":[null,true,false]}',
}
REFUSED = {
    "a list": "[]",
    "duplicate keys": '{"a":1,"a":1}',
    "duplicate keys in disguise": '{"a":1,"\\u0061":2}',
    "NaN": '{"a":NaN}',
    "Infinity": '{"a":-Infinity}',
    "beyond the largest double": '{"a":1e400}',
    "4,301 digits": '{"a":' + "1" * 4301 + "}",
    "a lone surrogate": '{"a":"\\ud800"}',
    "a byte order mark": "\ufeff{}",
    "65 levels": '{"a":' + "[" * 64 + "]" * 64 + "}",
    "a leading zero": '{"a":01}',
    "a trailing comma": '{"a":1,}',
    "something after the object": "{}{}",
}
TIMES = [
    "2025-12-18T14:03:22Z",
    "2025-12-18T14:03:22.123456789Z",
    "2025-12-18T14:03:22.0000009Z",
    "2025-12-18T14:03:22.5+01:00",
    "2026-01-01T00:30:00+01:00",
    "2000-01-01T00:00:00+00:01",
    "2025-02-29T00:00:00Z",
    "2025-12-18T24:00:00Z",
    "2025-12-18T14:03:60Z",
    "2025-12-18T14:03:22",
    "2025-12-18 14:03:22Z",
    "2100-01-01T00:00:00Z",
]


def _canonical(name: str, text: str) -> dict[str, Any]:
    _, canonical = parse_object(text.encode())
    return {
        "name": name,
        "input": text,
        "canonical": canonical.decode(),
        "canonical_hex": canonical.hex(),
        "sha256": sha256(canonical),
    }


def _request(name: str, body: bytes) -> dict[str, Any]:
    run = judge_run_record(json.loads(body)["run_id"].encode(), body)
    assert isinstance(run, JudgedRun)
    return {
        "name": name,
        "input": body.decode(),
        "request_sha256": run.request_sha256,
        "artifact_sha256": run.artifact_sha256,
        "artifact_path": run.path,
        "status": run.built.document["status"],
        "risk_level": run.built.document["decision"]["risk_level"],
        "artifact": run.built.content.decode(),
    }


def _stored_time(text: str) -> str | None:
    try:
        return normalise_timestamp(text)
    except ValueError:
        return None


def vectors() -> dict[str, Any]:
    """Return everything that the file holds."""
    return {
        "about": [
            "Check another implementation with these. Every input is the text of a value; its "
            "bytes are UTF-8.",
            "canonical_json: parse input strictly, write it by the canonical rule, compare bytes "
            "and SHA-256.",
            "refused: each input must be refused as INVALID_JSON.",
            "created_at_utc: how a time is stored; null means that it is refused.",
            "run_requests: the record's value; its key is the run_id. request_sha256 is that of "
            "the canonical body, artifact the exact content of the file.",
            "reserved_run_ids: names that match the pattern and are refused all the same.",
        ],
        "schema_versions": {"request": "rmos.run_request/1", "artifact": "rmos.run_artifact/2"},
        "canonical_json": [_canonical(name, text) for name, text in CANONICAL.items()],
        "refused": [{"name": name, "input": text} for name, text in REFUSED.items()],
        "created_at_utc": [{"input": text, "stored": _stored_time(text)} for text in TIMES],
        "run_requests": [
            _request(name, body)
            for name, body in requests().items()
            if LARGE_GCODE_MARK.encode() not in body and not name.startswith("legacy-")
        ],
        "reserved_run_ids": ["diff", "attachments", "run_advisory", "run_advisory_1"],
    }


def text() -> str:
    """Return the file's content: ASCII, so that no editor changes it."""
    content = json.dumps(vectors(), indent=2)
    assert canonical_json(json.loads(content)) == canonical_json(vectors())
    return content + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="ascii")
