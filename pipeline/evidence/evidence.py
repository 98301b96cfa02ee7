"""The evidence about one run, for a reader who trusts nobody: files, leaves, proofs, keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.json.strict import parse_object
from pipeline.core.layout import attachment_path
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import VerifierKey, encode_base64
from pipeline.ledger.tlog.proofs import TlogProof

BlobState = Literal["included", "missing", "withheld"]


@dataclass(frozen=True, slots=True)
class ProvenFile:
    """An artifact or a link, and the leaf that names it.

    Attributes:
        name: `run`, or `advisory-1` and so on.
        path: Relative to the store.
        content: The exact bytes.
        leaf: Of the ledger.
        proof: Where the leaf is.
        checkpoint: What the proof leads to.
        consistency: That the log begins with a trusted checkpoint; None where none was given.
    """

    name: str
    path: str
    content: bytes
    leaf: LedgerLeaf
    proof: TlogProof
    checkpoint: Checkpoint
    consistency: bytes | None = None

    def document(self) -> dict[str, Any]:
        """Return the file as a value, with every digit of its numbers."""
        return parse_object(self.content)[0]


@dataclass(frozen=True, slots=True)
class NamedAttachment:
    """An attachment that the artifact or a link names.

    Attributes:
        kind: As in the artifact; of an advisory's content `advisory`.
        filename: As in the artifact; of an advisory's content its id.
        size_bytes: As in the artifact or the link, if it is there.
        state: Missing where the store has no such blob; withheld where some verdict keeps it from
            the machines.
        excerpt: The content, where it is a short text that a reader will look for.
    """

    sha256: str
    kind: str
    filename: str
    size_bytes: int | None
    state: BlobState
    excerpt: str | None = None

    @property
    def path(self) -> str:
        """Its path, relative to the store."""
        return attachment_path(self.sha256)


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """The evidence about one run.

    Attributes:
        store_id: Of the store.
        may_cut: Whether a machine may cut by the run.
        files: The run's artifact, then its links, oldest first.
        attachments: Each once, in the order in which they are named.
        keys: Who signed the checkpoints.
    """

    store_id: str
    may_cut: bool
    files: Sequence[ProvenFile]
    attachments: Sequence[NamedAttachment]
    keys: Sequence[VerifierKey]

    @property
    def run(self) -> ProvenFile:
        """The artifact."""
        return self.files[0]

    @property
    def run_id(self) -> str:
        """Of the run."""
        return str(self.run.leaf.run_id)

    @property
    def included(self) -> list[NamedAttachment]:
        """The attachments that go into the bundle."""
        return [each for each in self.attachments if each.state == "included"]

    @property
    def left_out(self) -> list[NamedAttachment]:
        """Those that do not."""
        return [each for each in self.attachments if each.state != "included"]


def consistency_proof(old_size: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """Return a consistency proof in the form of C2SP tlog-witness, "add-checkpoint".

    Args:
        old_size: Of the smaller tree.
        proof: The hashes.
        checkpoint: The signed note of the larger tree.
    """
    lines = [f"old {old_size}", *map(encode_base64, proof), "", ""]
    return "\n".join(lines).encode() + checkpoint
