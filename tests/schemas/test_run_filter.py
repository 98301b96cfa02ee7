"""The one filter of a listing: what every way to ask for runs takes and refuses."""

import pytest

from schemas.run_filter import RunFilter


def test_none_is_like_a_field_that_is_left_out() -> None:
    assert RunFilter.of(status=None, limit=None, mode="saw") == RunFilter(mode="saw")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("status", "ok", "Input should be 'OK', 'BLOCKED' or 'ERROR'"),
        ("date_from", "20251218", "expected a date that exists, such as 2025-12-18"),
        ("date_to", "2025-02-30", "expected a date that exists, such as 2025-12-18"),
        ("limit", "many", "Input should be a valid integer"),
        ("mode", "x" * 201, "String should have at most 200 characters"),
        ("toolid", "saw", "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_used_is_named(field: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: {reason}.*\.$"):
        RunFilter.of(**{field: value})
