"""Runs as rows for a v1 store: the fields of v1, old values back, and our mark."""

from pipeline.legacy.rollback import exported_row
from pipeline.legacy.v1.row import RowMark, mark_of
from tests.builders import document, red_request, run_request
from tests.legacy_rows import V1_NAMES, artifact, original_v2_row, v1_row

SHA = "a" * 64
TIME = "2025-12-19T08:00:00Z"


def test_a_run_becomes_a_row_with_the_fields_of_v1_and_our_mark() -> None:
    for request in (run_request(), red_request()):
        run = document(request)
        row = exported_row(run, [], SHA)
        assert set(row) == set(V1_NAMES)
        assert row["status"] == run["status"]
        assert row["advisory_inputs"] is None
        assert mark_of(row) == RowMark(run["provenance"]["request_sha256"], SHA)


def test_advisories_keep_the_fields_that_v1_knows() -> None:
    shown = [
        {
            "advisory_id": "a",
            "kind": "note",
            "created_at_utc": TIME,
            "title": "x",
        },
        {"advisory_id": "b"},
    ]
    first, second = exported_row(document(run_request()), shown, SHA)["advisory_inputs"]
    assert first == {
        "advisory_id": "a",
        "kind": "note",
        "created_at_utc": TIME,
        "request_id": None,
        "engine_id": None,
        "engine_version": None,
    }
    assert (second["kind"], second["created_at_utc"]) == ("unknown", "")


def test_a_migrated_run_gets_its_old_values_back() -> None:
    row = v1_row(
        created_at_utc="2025-11-03T23:30:00-05:00",
        fork_reason="post",
        override_note="ok by ana",
        explanation_status="READY",
        notes=7,
        decision={"risk_bucket": "green"},
        meta={"operator": "ana"},
        shop={"line": 4},
    )
    back = exported_row(artifact(row), [], SHA)
    assert set(back) == set(V1_NAMES)
    for name in (
        *("request_hash", "toolpaths_hash", "fork_reason", "override_note", "notes", "status"),
        *("explanation_status", "created_at_utc", "decision", "feasibility"),
    ):
        assert back[name] == row[name], name
    assert back["meta"]["operator"] == "ana"
    assert back["meta"]["v1"] == {"shop": {"line": 4}}


def test_what_v1_has_no_field_for_stays_in_meta() -> None:
    back = exported_row(artifact(original_v2_row(), origin="original_v2"), [], SHA)
    assert set(back) == set(V1_NAMES)
    assert back["meta"]["v1"] == {"hashes": original_v2_row()["hashes"]}


def test_a_meta_of_a_producer_that_looks_like_ours_stays_as_it_is() -> None:
    run = document(run_request(meta={"v1": {"request_hash": "x"}}))
    back = exported_row(run, [], SHA)
    assert back["meta"]["v1"] == {"request_hash": "x"}
    assert back["request_hash"] == run["hashes"]["feasibility_sha256"]
