"""Lines of checksums for sha256sum, and the one root over them."""

import random
from hashlib import sha256

import pytest

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.merkle import EMPTY_ROOT
from pipeline.storage.checksums import (
    attachment_line,
    attachments_of_artifact,
    attachments_of_link,
    root_of_lines,
    sum_line,
)
from tests.builders import attachment_ref, judged, run_request
from tests.ledger.tlog.trees import root_by_definition

LINES = sorted(
    sum_line(sha256(b"%d" % number).hexdigest(), f"runs/2025-12-18/run_{number}.json")
    for number in range(70)
)


def test_a_line_is_what_sha256sum_prints() -> None:
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sum_line(digest, "runs/a") == f"{digest}  runs/a"
    assert attachment_line(digest) == f"{digest}  attachments/e3/b0/{digest}"


def test_the_root_is_that_of_the_definition_over_the_lines_without_newline() -> None:
    for count in (0, 1, 2, 3, 69, 70):
        leaves = [line.encode() for line in LINES[:count]]
        assert root_of_lines(LINES[:count]) == root_by_definition(leaves)
    assert root_of_lines([]) == EMPTY_ROOT


def test_lines_in_another_order_or_twice_are_refused() -> None:
    shuffled = LINES.copy()
    random.Random(1).shuffle(shuffled)
    for wrong in (shuffled, [LINES[0], LINES[0]]):
        with pytest.raises(EvidenceError, match="expected distinct lines in order"):
            root_of_lines(wrong)


def test_the_attachments_are_those_that_artifact_and_link_name() -> None:
    refs = [attachment_ref(b"a"), attachment_ref(b"b")]
    content = judged(run_request(attachments=refs)).built.content
    assert attachments_of_artifact(content) == [ref["sha256"] for ref in refs]
    digest = refs[0]["sha256"].encode()
    assert attachments_of_link(b'{"content_sha256":"%s","run_id":"r"}' % digest) == [
        refs[0]["sha256"]
    ]
    assert attachments_of_link(b'{"run_id":"r"}') == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"attachments":[{}]}', b"\xff"])
def test_what_is_no_artifact_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError, match="expected an artifact"):
        attachments_of_artifact(content)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"content_sha256":1}'])
def test_what_is_no_link_is_refused(content: bytes) -> None:
    with pytest.raises(EvidenceError, match="expected a link"):
        attachments_of_link(content)
