"""Hashes are those that anybody computes with SHA-256 and the canonical rule."""

import hashlib
import json
from typing import Any

from hypothesis import given, settings

from pipeline.core.hashing import sha256_of_bytes, sha256_of_json, sha256_of_text
from pipeline.core.json.strict import parse_object
from tests.json_values import json_objects, json_values


def test_hashes_are_those_of_the_standard() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of_bytes(b"") == sha256_of_text("") == empty
    # The value that the v1 contract gives for an empty object.
    empty_object = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert sha256_of_json({}) == empty_object == sha256_of_bytes(b"{}")


def test_a_text_is_hashed_as_utf_8() -> None:
    assert sha256_of_text("Säge \U0001fa9a") == sha256_of_bytes("Säge \U0001fa9a".encode())


@settings(max_examples=200)
@given(json_values())
def test_a_value_is_hashed_by_the_rule(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sha256_of_json(value) == hashlib.sha256(text.encode()).hexdigest()


@settings(max_examples=200)
@given(json_objects())
def test_parsing_what_was_written_gives_the_same_hash(value: Any) -> None:
    parsed, canonical = parse_object(json.dumps(value, indent=1).encode())
    assert sha256_of_json(parsed) == sha256_of_json(value) == sha256_of_bytes(canonical)
