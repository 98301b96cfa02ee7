"""A proof of one leaf that needs nothing else: index, path and checkpoint (C2SP tlog-proof)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.ledger.tlog.checkpoints import Checkpoint, open_checkpoint
from pipeline.ledger.tlog.errors import EvidenceError
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.notes import VerifierKey, decode_base64, encode_base64
from pipeline.ledger.tlog.proofs import verify_inclusion

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Where a leaf is, and why.

    Attributes:
        index: Of the leaf, from zero.
        path: From its sibling up (RFC 6962 section 2.1.1).
        checkpoint: The signed note, as the log published it.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def __bytes__(self) -> bytes:
        lines = [_HEADER, f"index {self.index}", *map(encode_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    def verify(
        self, leaf: bytes, keys: Iterable[VerifierKey], *, origin: str | None = None
    ) -> Checkpoint:
        """Check that the checkpoint, signed by one of `keys`, covers `leaf`; return it.

        Raises:
            EvidenceError: It does not.
        """
        checkpoint = open_checkpoint(self.checkpoint, keys, origin=origin)
        verify_inclusion(leaf_hash(leaf), self.index, checkpoint.size, self.path, checkpoint.root)
        return checkpoint


def parse_tlog_proof(content: bytes) -> TlogProof:
    """Return the proof in `content` (tlog-proof, "Format"), nothing checked yet.

    Without the optional `extra` line, which we never write: nothing vouches for it.

    Raises:
        EvidenceError: It is not of the form.
    """
    head, separator, checkpoint = content.partition(b"\n\n")
    try:
        header, index_line, *hashes = head.decode("ascii").split("\n")
    except ValueError as error:
        raise EvidenceError("expected a header and an index in a proof") from error
    match = _INDEX.fullmatch(index_line)
    if header != _HEADER or match is None or not separator:
        raise EvidenceError(f"expected {_HEADER}, an index and an empty line in a proof")
    return TlogProof(int(match[1]), tuple(map(decode_base64, hashes)), checkpoint)
