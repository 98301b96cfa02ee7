"""A run as it is shown: the bytes of its file with members added are those of the whole value."""

from typing import Any

from hypothesis import given

from pipeline.core.json.canonical import canonical_json
from pipeline.core.run_view import joined, members_of
from tests.json_values import json_objects


@given(json_objects(), json_objects())
def test_members_joined_are_the_canonical_bytes_of_the_whole(
    document: dict[str, Any], added: dict[str, Any]
) -> None:
    members = members_of(canonical_json(document))
    assert joined(members, added) == canonical_json(document | added)
