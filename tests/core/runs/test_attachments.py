"""Attachments: references as listed, inline blobs in the one padded base64 that is theirs."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.runs.attachments import read_attachments
from tests.builders import attachment, attachment_ref, document, judged, run_request, sha256


def codes(listed: list[dict[str, object]]) -> list[tuple[str, str]]:
    return [(found.field, found.code) for found in read_attachments(listed).violations]


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_inline_content_becomes_a_blob_under_its_hash(content: bytes) -> None:
    read = read_attachments([attachment(content)])
    assert not read.violations
    assert [(blob.sha256, blob.content) for blob in read.blobs.values()] == [
        (sha256(content), content)
    ]
    assert read.refs == [attachment_ref(content)]


def test_a_reference_brings_no_blob_and_needs_none() -> None:
    read = read_attachments([attachment_ref(b"elsewhere"), attachment(content_base64=None)])
    assert (read.blobs, read.violations, len(read.refs)) == ({}, [], 2)


@pytest.mark.parametrize(
    "text",
    [
        "QUI",  # unpadded
        "QUI==",  # one pad too many
        "QU=I",
        "=",
        "QUJD=",
        "QUJDR",
        "QUJD\n",  # as base64 in mail is wrapped
        "QU\nJD",
        " QUJD",
        "QUJD ",
        "-_-_",  # url-safe alphabet
        "QUJ%",
        "QUJé",
        "QR==",  # the unused bits of the last letter are not zero
        "QUJ=QUJD",  # goes on after the padding
        "QUJDQR==",
        "QUI=\x00",
        "data:;base64,QUJD",
    ],
)
def test_base64_of_any_other_form_is_a_violation(text: str) -> None:
    assert codes([attachment(b"ABC", content_base64=text)]) == [
        ("attachments.0.content_base64", "BAD_BASE64")
    ]


@settings(max_examples=200)
@given(st.text("ABCQRQgw+/-_=\n ", max_size=9))
def test_only_the_text_that_encoding_gives_is_read(text: str) -> None:
    read = read_attachments([attachment(content_base64=text)])
    bad = ("attachments.0.content_base64", "BAD_BASE64")
    if bad not in [(found.field, found.code) for found in read.violations]:
        (blob,) = read.blobs.values()
        assert base64.b64encode(blob.content).decode() == text


def test_empty_content_is_content() -> None:
    read = read_attachments([attachment(b"")])
    assert not read.violations
    assert read.blobs[sha256(b"")].content == b""


def test_hash_and_size_must_be_those_of_the_content() -> None:
    listed = [attachment(b"one"), attachment(b"two", sha256=sha256(b"one"), size_bytes=4)]
    assert codes(listed) == [
        ("attachments.1.sha256", "HASH_MISMATCH"),
        ("attachments.1.size_bytes", "SIZE_MISMATCH"),
    ]


def test_a_wrong_attachment_drops_them_all() -> None:
    request = run_request(attachments=[attachment(b"one"), attachment(b"two", size_bytes=4)])
    run = judged(request)
    assert run.is_incomplete
    assert run.built.document["attachments"] == []
    assert run.built.blobs == ()
    assert run.built.document["decision"]["block_reason"] == (
        "INCOMPLETE_REQUEST: attachments.1.size_bytes"
    )


def test_the_artifact_lists_them_in_order_with_normalised_times_and_without_content() -> None:
    second = attachment(b"two", created_at_utc="2025-12-18T15:03:22.5+01:00", kind="geometry")
    listed = document(run_request(attachments=[attachment(b"one"), second]))["attachments"]
    assert listed == [
        attachment_ref(b"one"),
        attachment_ref(b"two", kind="geometry", created_at_utc="2025-12-18T14:03:22.500000Z"),
    ]


def test_the_same_content_under_two_names_is_one_blob() -> None:
    request = run_request(attachments=[attachment(), attachment(kind="debug", filename="b")])
    run = judged(request)
    assert len(run.built.document["attachments"]) == 2
    assert len(run.built.blobs) == 1


def test_whether_a_referenced_blob_exists_changes_nothing() -> None:
    missing = run_request(attachments=[attachment_ref(b"never uploaded")])
    assert judged(missing).built.document["status"] == "OK"
