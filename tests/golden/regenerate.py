"""Write the golden files anew. A deliberate act, never part of a test run.

    python -m tests.golden.regenerate

A change of a golden artifact means that runs stored by an earlier version would now be rendered
with other bytes (`RENDER_DRIFT`). Before version 1 is published that may be meant; afterwards it
needs a new `schema_version`.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.core.runs.verdict import JudgedRun, judge_run_record
from pipeline.legacy.record import judge_legacy_record
from schemas.legacy_run import LEGACY_RUN_VERSION
from tests.builders import (
    attachment,
    attachment_ref,
    encode,
    incomplete_request,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.golden.large_gcode import LARGE_GCODE_MARK, large_gcode
from tests.legacy_rows import bare_row, found, mapped, original_v2_row, unknown_row, v1_row

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


def requests() -> dict[str, bytes]:
    """The exact bytes of every golden request; the large G-code stands as its mark."""
    request_bytes = {
        "green-saw": encode(run_request()),
        "green-rosette-history-of-nulls": encode(
            rosette_request(
                **dict.fromkeys(["outputs", "errors", "notes", "drift_detected", "meta"]),
                decision={"risk_level": None, "score": None, "details": None},
                attachments=None,
                hashes={"gcode_sha256": None},
            )
        ),
        "yellow-large-gcode": encode(
            router_request(
                outputs={"gcode_text": LARGE_GCODE_MARK, "gcode_path": "/jobs/17.nc"},
                run_id="run_yellow_large_gcode",
            )
        ),
        "red-nested-in-safety": encode(
            run_request(
                run_id="run_red_nested",
                feasibility={
                    "risk_level": "GREEN",
                    "score": 95,
                    "decision": {"risk_bucket": "yellow"},
                    "safety": {
                        "risk_level": " red ",
                        "blocking_reasons": ["rim speed", "kerf below 1 mm"],
                        "warnings": ["blade 160 is rated for 4,500 rpm"],
                    },
                },
                attachments=[
                    attachment(b"G1 X3\n", kind="gcode", filename="job.nc", mime="text/plain"),
                    attachment(b"0\nSECTION\n"),
                ],
            )
        ),
        "unknown-risk": encode(
            run_request(
                run_id="run_unknown",
                feasibility={
                    "mode": "unknown",
                    "safety": {
                        "block_reason": "Unsupported mode for feasibility: unknown",
                        "details": {"context": "helical_gcode"},
                        "warnings": ["No feasibility engine registered for mode: unknown"],
                    },
                },
            )
        ),
        "error-by-producer": encode(
            run_request(
                run_id="run_error",
                status="ERROR",
                error={"type": "PostError", "message": "no post-processor\nfor fanuc"},
                errors=["first", ""],
            )
        ),
        "incomplete": encode(
            incomplete_request(
                run_id="run_incomplete",
                mode="",
                decision={"score": 101, "risk_bucket": "GREEN"},
                unknown=None,
            )
        ),
        "inline-attachment": encode(
            run_request(
                run_id="run_inline",
                attachments=[
                    attachment(
                        bytes(range(256)), mime="application/octet-stream", kind="dxf_input"
                    ),
                    attachment_ref(
                        b"uploaded", kind="geometry", created_at_utc="2025-12-18T15:03:22.5+01:00"
                    ),
                ],
            )
        ),
        "claimed-hashes": encode(
            run_request(
                run_id="run_claims",
                outputs={"gcode_path": "/jobs/17.nc", "toolpaths": 1e-05},
                hashes={
                    "toolpaths_sha256": sha256(b"1e-05"),
                    "gcode_sha256": sha256("elsewhere"),
                    "opplan_sha256": sha256("elsewhere too"),
                },
            )
        ),
        "wide-request": encode(
            red_request(
                run_id="run_wide",
                request={
                    "moves": [[x, x / 8] for x in range(201)],
                    "safety": {"risk_level": "GREEN"},
                    "auth": {"api_key": "hunter2", "user": "ana"},
                    **{f"k{number:02}": number for number in reversed(range(90))},
                },
            )
        ),
        "non-ascii": encode(
            run_request(
                run_id="run_non_ascii",
                tool_id="säge:furnier_160 \U0001fa9a",
                meta={"\U00010000": "astral", "\uffff": "bmp", "é": "e\u0301", "\u2028": "\x7f/"},
                outputs={"gcode_text": "(Größe \U0001fa9a)\r\nG0 X1\r\n"},
            )
        ),
    }
    numbers = encode(run_request(run_id="run_numbers")).removesuffix(b"}")
    request_bytes["numbers"] = (
        numbers + b' , "drift_summary" : [1e-05, 0.0001, 1E2, -0, -0.0, 5e-324, 1e16, 1e22,\n'
        b"0.1e1, 9007199254740993, 18446744073709551616, 1.7976931348623157e308, 100.0, "
        b"1e-400, -123456789012345678901234567890],"
        b'"notes":"\\u0041\\/\\ud83e\\ude9a"}\n'
    )
    return request_bytes | legacy_messages()


def legacy_messages() -> dict[str, bytes]:
    """The exact bytes of messages that carry rows of older stores."""
    gcode = b"G90\nG1 X3\n"
    ref = {
        "sha256": sha256(gcode),
        "kind": "gcode",
        "mime": "text/plain",
        "filename": "ring.nc",
        "size_bytes": len(gcode),
        "created_at_utc": "2025-11-03T09:15:42+00:00",
    }
    advisory = {"advisory_id": "adv_1", "kind": "opinion", "created_at_utc": "", "score": 1e-05}
    rows = {
        "legacy-green": v1_row(
            attachments=[ref],
            advisory_inputs=[advisory],
            fork_reason="other post",
            meta={"operator": "ana"},
        ),
        "legacy-unknown": unknown_row(),
        "legacy-ok-without-verdict": bare_row(
            run_id="run_bare", attachments=[ref], gcode_text="G0 X1", notes="x\u00e9\n"
        ),
        "legacy-decision": v1_row(
            run_id="run_decided",
            created_at_utc="2025-11-03T23:30:00.5-05:00",
            status="error",
            decision={"risk_bucket": " yellow", "score": 40, "details": {"rule": 7}},
            errors=["post failed"],
            format="mine",
        ),
    }
    messages = {name: mapped(row, found(gcode, ".nc")).body for name, row in rows.items()}
    messages["legacy-original-v2"] = mapped(original_v2_row(), origin="original_v2").body
    return messages


def judge(stored_request: bytes) -> JudgedRun:
    """Return the run of a golden request as it is stored."""
    value = stored_request.replace(LARGE_GCODE_MARK.encode(), _escaped(large_gcode()))
    request = json.loads(value)
    is_legacy = request.get("schema_version") == LEGACY_RUN_VERSION
    rule = judge_legacy_record if is_legacy else judge_run_record
    run = rule(request["run_id"].encode(), value)
    assert isinstance(run, JudgedRun), run
    return run


def _escaped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def manifest_entry(run: JudgedRun) -> dict[str, Any]:
    """What the manifest says of one run."""
    quarantined = run.built.quarantined
    return {
        "path": run.path,
        "sha256": run.artifact_sha256,
        "request_sha256": run.request_sha256,
        "status": run.built.document["status"],
        "risk_level": run.built.document["decision"]["risk_level"],
        "blobs": [blob.sha256 for blob in run.built.blobs],
        "quarantined": quarantined.sha256 if quarantined else None,
    }


def main() -> None:
    """Write every request, every artifact and the manifest."""
    manifest = {}
    for name, request in requests().items():
        run = judge(request)
        (FOLDER / f"{name}.request.json").write_bytes(request)
        (FOLDER / f"{name}.artifact.json").write_bytes(run.built.content)
        manifest[name] = manifest_entry(run)
    MANIFEST.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
