"""The published JSON Schemas never change, and say what the models say.

A frozen file is a promise to everybody who validates by it. To change a shape, publish a NEW
version: give it a new number in `schemas/`, add it to `schemas/export.py`, write its file with

    python -c "from schemas.export import *; write_schemas(FROZEN_FOLDER)"

and leave every file that was there before as it is.
"""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as JsonSchemaError
from jsonschema.validators import extend
from pydantic import BaseModel, ValidationError

from pipeline.core.advisories.outcome import advisory_event, resolve_advisory, stored_advisory
from pipeline.core.advisories.verdict import JudgedAdvisory, judge_advisory_record
from pipeline.core.dead_letters.letter import dead_letter, read_dead_letter
from pipeline.core.dead_letters.redrive import redrive_record
from pipeline.core.record import RecordId, RecordSource
from pipeline.core.runs.event import run_event
from pipeline.core.runs.outcome import resolve_rejected, resolve_run, stored_run
from pipeline.core.runs.verdict import Rejected
from schemas.advisory_event import AdvisoryEvent
from schemas.advisory_link import AdvisoryLink
from schemas.advisory_request import AdvisoryRequest
from schemas.audit_finding import AuditFinding
from schemas.audit_report import AuditReport
from schemas.audit_request import AuditRequest
from schemas.dead_letter import CutDeadLetterHeaders, DeadLetterHeaders
from schemas.export import FROZEN_FOLDER, json_schemas, schema_text, write_schemas
from schemas.legacy_run import LegacyRun
from schemas.redrive import RedriveRecord
from schemas.run_artifact import RunArtifact
from schemas.run_diff import RunDiff
from schemas.run_event import RunEvent
from schemas.run_request import RunRequest
from tests.builders import (
    attachment,
    document,
    incomplete_request,
    judged,
    record,
    red_request,
    run_request,
)
from tests.schemas.examples import AUDIT, GOOD_ADVISORIES, SOURCE, good_and_bad

HOW_TO_CHANGE = (
    "{name}.json is frozen: it describes messages and files that exist. Publish a NEW version "
    "(a new number, a new file) instead; see the docstring of this test."
)
PUBLISHED = {
    "rmos.advisory_event-1",
    "rmos.advisory_link-1",
    "rmos.advisory_request-1",
    "rmos.audit_finding-1",
    "rmos.audit_report-1",
    "rmos.audit_request-1",
    "rmos.dead_letter_headers-1",
    "rmos.dead_letter_headers-2",
    "rmos.legacy_run-1",
    "rmos.redrive-1",
    "rmos.run_artifact-2",
    "rmos.run_diff-1",
    "rmos.run_event-1",
    "rmos.run_request-1",
}
SHAPES: dict[str, type[BaseModel]] = {
    "rmos.run_request-1": RunRequest,
    "rmos.run_artifact-2": RunArtifact,
    "rmos.run_diff-1": RunDiff,
    "rmos.advisory_request-1": AdvisoryRequest,
    "rmos.advisory_link-1": AdvisoryLink,
    "rmos.legacy_run-1": LegacyRun,
    "rmos.audit_request-1": AuditRequest,
    "rmos.audit_finding-1": AuditFinding,
    "rmos.audit_report-1": AuditReport,
    "rmos.dead_letter_headers-1": DeadLetterHeaders,
    "rmos.dead_letter_headers-2": CutDeadLetterHeaders,
    "rmos.redrive-1": RedriveRecord,
}


def frozen(name: str) -> dict[str, Any]:
    return json.loads((FROZEN_FOLDER / f"{name}.json").read_text())


def _pattern(_: object, pattern: str, instance: object, __: object):
    # JSON Schema means ECMA-262, where $ is the very end; Python's $ also fits before a newline.
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield JsonSchemaError(f"{instance!r} does not match {pattern!r}")


Validator = extend(Draft202012Validator, {"pattern": _pattern})


def fits_model(value: Any, shape: type[BaseModel]) -> bool:
    try:
        shape.model_validate(value)
    except ValidationError:
        return False
    return True


def fits_schema(value: Any, name: str) -> bool:
    return Validator(frozen(name)).is_valid(value)


def misjudged(
    good: dict[str, Any], bad: dict[str, Any], shape: type[BaseModel], schema: str
) -> list[str]:
    """Return the names of what model or schema refuses and should not, or takes."""
    return [
        name
        for name, value in (good | bad).items()
        if {fits_model(value, shape), fits_schema(value, schema)} != {name in good}
    ]


def test_every_published_version_is_frozen_and_nothing_else() -> None:
    assert {path.stem for path in FROZEN_FOLDER.iterdir()} == PUBLISHED == set(json_schemas())


def test_the_models_still_say_what_was_published() -> None:
    for name, schema in json_schemas().items():
        written = (FROZEN_FOLDER / f"{name}.json").read_text()
        assert schema_text(schema) == written, HOW_TO_CHANGE.format(name=name)


def test_each_is_a_schema_of_2020_12_that_names_itself() -> None:
    for name in PUBLISHED:
        schema = frozen(name)
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == "urn:" + name.replace(".", ":").replace("-", ":")
        assert schema["title"] == name.replace("-", "/")


def test_writing_gives_the_frozen_files_in_order_of_name(tmp_path: Path) -> None:
    paths = write_schemas(tmp_path)
    assert [path.stem for path in paths] == sorted(PUBLISHED)
    for path in paths:
        assert path.read_bytes() == (FROZEN_FOLDER / path.name).read_bytes()


EXAMPLES = good_and_bad()


def test_every_schema_has_examples() -> None:
    # The events are golden files of their own.
    assert EXAMPLES.keys() == PUBLISHED - {"rmos.run_event-1", "rmos.advisory_event-1"}
    for good, bad in EXAMPLES.values():
        assert good
        assert bad


@pytest.mark.parametrize("name", EXAMPLES)
def test_model_and_schema_take_what_is_good_and_nothing_bad(name: str) -> None:
    assert misjudged(*EXAMPLES[name], SHAPES[name], name) == []


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (run_request(created_at_utc="2025-02-29T00:00:00Z"), ("properties", "created_at_utc")),
        (run_request(created_at_utc="1999-12-31T23:59:59Z"), ("properties", "created_at_utc")),
        (
            run_request(attachments=[attachment(size_bytes=10.0)]),
            ("$defs", "RequestAttachment", "properties", "size_bytes"),
        ),
    ],
)
def test_what_json_schema_cannot_say_is_said_in_words(
    request_: dict[str, Any], path: tuple[str, ...]
) -> None:
    assert not fits_model(request_, RunRequest)
    assert fits_schema(request_, "rmos.run_request-1")
    described: Any = frozen("rmos.run_request-1")
    for part in path:
        described = described[part]
    assert "description" in described


def test_an_artifact_with_a_null_in_a_typed_field_fits_its_schema_no_more() -> None:
    assert not fits_schema(document(run_request()) | {"notes": None}, "rmos.run_artifact-2")


@pytest.mark.parametrize("request_", [run_request(), red_request(), incomplete_request()])
def test_every_event_that_we_write_fits_model_and_schema(request_: dict[str, Any]) -> None:
    run = judged(request_)
    stored = stored_run(run, SOURCE)
    later = RecordSource(1, RecordId("rmos.runs.requests", 3, 42))
    other = judged(request_ | {"notes": "changed"})
    outcomes = [
        resolve_run(run, stored, SOURCE, intact=True),
        resolve_run(run, stored, later, intact=True),
        resolve_run(other, stored, later, intact=True),
        resolve_run(run, stored, later, intact=False),
        resolve_rejected(Rejected("INVALID_JSON", "Expected an object.")),
    ]
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == ["persisted", "duplicate", "conflict", "rejected", "rejected"]
    for outcome in outcomes:
        event = json.loads(run_event(outcome, later))
        assert fits_model(event, RunEvent)
        assert fits_schema(event, "rmos.run_event-1")


def test_the_events_of_advisories_fit_model_and_schema() -> None:
    events = {}
    for name, request in GOOD_ADVISORIES.items():
        advisory = judge_advisory_record(*record(request))
        assert isinstance(advisory, JudgedAdvisory)
        for path, intact in product((None, "runs/2025-12-18/r_advisory_a.json"), (True, False)):
            stored = stored_advisory(advisory, SOURCE, path)
            outcome = resolve_advisory(advisory, stored, SOURCE, intact=intact)
            events[f"{name}, {path}, {intact}"] = json.loads(advisory_event(outcome, SOURCE))
    assert misjudged(events, {}, AdvisoryEvent, "rmos.advisory_event-1") == []


def test_a_date_that_does_not_exist_fits_its_schema_which_says_so_in_words() -> None:
    request = AUDIT | {"scope": {"dates": ["2025-02-29"]}}
    assert not fits_model(request, AuditRequest)
    assert fits_schema(request, "rmos.audit_request-1")


@pytest.mark.parametrize("value", [None, b"", b"{", b"x" * (5 * 1024 * 1024 + 1)])
def test_the_headers_of_every_dead_letter_fit_model_and_schema(value: bytes | None) -> None:
    letter = dead_letter(
        (None, value, [("traceparent", b"00-1")]),
        SOURCE,
        -1,
        code="INVALID_JSON",
        message="Expected \N{SNOWMAN}." * 200,
        group="rmos.persist",
    )
    headers = {name: text.decode() for name, text in letter.headers if text is not None}
    assert fits_model(headers, DeadLetterHeaders)
    assert fits_schema(headers, "rmos.dead_letter_headers-1")
    assert fits_schema(headers, "rmos.dead_letter_headers-2")


def test_the_headers_of_a_dead_letter_that_is_not_whole_fit_both_versions() -> None:
    large = b"f" * (8 * 1024 * 1024)
    letter = dead_letter(
        (large, b"{", [("document", large)]),
        SOURCE,
        0,
        code="INVALID_JSON",
        message="",
        group="rmos.persist",
    )
    headers = {name: text.decode() for name, text in letter.headers if text is not None}
    assert set(headers) > {"rmos-key-size", "rmos-headers-count"}
    for shape, name in ((DeadLetterHeaders, "1"), (CutDeadLetterHeaders, "2")):
        assert fits_model(headers, shape)
        assert fits_schema(headers, f"rmos.dead_letter_headers-{name}")


def test_what_is_remembered_of_a_redrive_fits_model_and_schema() -> None:
    letter = dead_letter(
        (b"k", b"{", []), SOURCE, 0, code="INVALID_JSON", message="", group="rmos.persist"
    )
    place = RecordId("rmos.runs.dead-letters", 0, 7)
    found = read_dead_letter(place, 0, letter.key, letter.value, letter.headers)
    key, value = redrive_record(found, RecordId("rmos.runs.requests", 3, 99))
    assert key == b"rmos.runs.requests/3/41"
    assert fits_model(json.loads(value), RedriveRecord)
    assert fits_schema(json.loads(value), "rmos.redrive-1")
