"""Files of trusted checkpoints: written, cut apart again, and refused in every other form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    empty_checkpoint,
    open_checkpoint,
    parse_trusted,
    sign_checkpoint,
    write_trusted,
)
from pipeline.ledger.tlog.merkle import leaf_hash
from tests.laws import offenders
from tests.ledger.tlog.signers import signer

SIGNERS = [signer(), signer(seed=2)]
ROOT = leaf_hash(b"leaf")


def note(origin: str, size: int = 1, signers: int = 1) -> bytes:
    checkpoint = Checkpoint(origin, size, ROOT) if size else empty_checkpoint(origin)
    return sign_checkpoint(checkpoint, SIGNERS[:signers])


NOTES = [note("rmos/a/1/t/0", 0), note("rmos/a/1/t/10", 300, signers=2), note("rmos/a/1/t/2")]
FILE = write_trusted(reversed(NOTES))


def test_a_file_is_the_notes_in_order_of_origin_with_an_empty_line_between() -> None:
    assert NOTES[0] + b"\n" + NOTES[1] + b"\n" + NOTES[2] == FILE


def test_every_note_is_cut_out_byte_for_byte_and_still_verifies() -> None:
    trusted = parse_trusted(FILE)
    assert [each.note for each in trusted] == NOTES
    for each in trusted:
        assert open_checkpoint(each.note, [SIGNERS[0].key]) == each.checkpoint


def test_a_log_without_leaves_is_in_it() -> None:
    assert parse_trusted(FILE)[0].checkpoint.size == 0


def test_one_note_alone_is_a_file() -> None:
    (trusted,) = parse_trusted(NOTES[1])
    assert trusted.note == NOTES[1]
    assert write_trusted([NOTES[1]]) == NOTES[1]


@given(st.sets(st.integers(0, 99), min_size=1, max_size=9), st.integers(0, 10**18))
def test_what_is_written_is_read_back(partitions: set[int], size: int) -> None:
    notes = [note(f"rmos/a/1/t/{each}", size) for each in partitions]
    trusted = parse_trusted(write_trusted(notes))
    assert sorted(each.note for each in trusted) == sorted(notes)
    assert write_trusted(each.note for each in trusted) == write_trusted(notes)


def test_another_form_is_refused() -> None:
    def holds(content: bytes) -> None:
        with pytest.raises(EvidenceError):
            parse_trusted(content)

    assert (
        offenders(
            holds,
            [
                b"",
                b"\n",
                b"\n\n",
                FILE + b"\n",
                b"\n" + FILE,
                FILE[:-1],
                NOTES[0] + NOTES[1],
                NOTES[0] + b"\n\n" + NOTES[1],
                NOTES[1] + b"\n" + NOTES[0],
                NOTES[0] + b"\n" + NOTES[0],
                NOTES[0] + b"\n" + note("rmos/a/1/t/0", 7),
                FILE.replace(b"\n", b"\r\n"),
                b"\xef\xbb\xbf" + FILE,
                b"# trusted since May\n" + FILE,
                NOTES[0].split(b"\n\n")[0] + b"\n",
            ],
        )
        == []
    )


def test_a_file_that_was_cut_holds_no_checkpoint_that_was_not_in_it() -> None:
    texts = [each.checkpoint for each in parse_trusted(FILE)]
    for end in range(len(FILE)):
        try:
            trusted = parse_trusted(FILE[:end])
        except EvidenceError:
            continue
        assert [each.checkpoint for each in trusted] == texts[: len(trusted)]


def test_every_changed_byte_is_refused_or_noticed_by_a_signature() -> None:
    content = write_trusted([NOTES[0], NOTES[2]])
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(EvidenceError):
            open_all(bytes(changed))


def open_all(content: bytes) -> None:
    for each in parse_trusted(content):
        open_checkpoint(each.note, [SIGNERS[0].key])


def test_two_checkpoints_of_one_log_are_not_written() -> None:
    with pytest.raises(EvidenceError, match="in the order of origins"):
        write_trusted([note("rmos/a/1/t/0"), note("rmos/a/1/t/0", 7)])


def test_no_checkpoint_is_not_written() -> None:
    with pytest.raises(EvidenceError, match="expected a checkpoint, found none"):
        write_trusted([])
