"""The verdict in words: MAY CUT where `may_cut` says so and nowhere else, and else the reason."""

from itertools import product

import pytest

from pipeline.core.runs.safety import RISK_ORDER, may_cut
from pipeline.core.runs.words import verdict_words

OF_A_SAFE_RUN = {"status": "OK", "risk_level": "GREEN", "block_reason": None}


def test_the_words_are_may_cut_for_exactly_the_runs_that_may_be_cut() -> None:
    for status, risk_level, legacy in product(
        ("OK", "BLOCKED", "ERROR"), RISK_ORDER, (False, True)
    ):
        allowed = may_cut(status=status, risk_level=risk_level, legacy=legacy)
        words = verdict_words(may_cut=allowed, status=status, risk_level=risk_level)
        assert (words == "MAY CUT") == allowed
        assert words.startswith("DO NOT CUT: ") != allowed


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"status": "BLOCKED", "risk_level": "RED", "block_reason": "rim speed 67 m/s"},
            "rim speed 67 m/s",
        ),
        (
            {"status": "ERROR", "risk_level": "GREEN", "block_reason": "PRODUCER_ERROR"},
            "PRODUCER_ERROR: the status of the request itself is ERROR, or it has an error",
        ),
        ({"status": "ERROR"}, "its status is ERROR"),
        ({"risk_level": "UNKNOWN", "block_reason": "an old note"}, "its risk is UNKNOWN"),
        (
            {"block_reason": "an old note"},
            "it is history of an older store, which no machine cuts by",
        ),
    ],
)
def test_the_reason_is_the_first_that_stands_in_the_way(
    fields: dict[str, str], reason: str
) -> None:
    words = verdict_words(may_cut=False, **{**OF_A_SAFE_RUN, **fields})  # type: ignore[arg-type]
    assert words == f"DO NOT CUT: {reason}"


def test_a_reason_of_a_producer_never_says_that_a_run_may_be_cut() -> None:
    words = verdict_words(may_cut=False, status="BLOCKED", risk_level="RED", block_reason="MAY CUT")
    assert words == "DO NOT CUT: MAY CUT"
