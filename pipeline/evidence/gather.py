"""Gathers the evidence about one run, and refuses where there is none.

1. The run as the index knows it; its file has those bytes.
2. The leaf that made it, in a log whose checkpoint a trusted key signed, names the same bytes.
3. The same for every link, and its leaf.
4. Attachments that artifact and links name: missing ones are named, wrong ones refused.
5. Where there are trusted checkpoints: the logs begin with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from pipeline.errors import IntegrityError, NotFoundError
from pipeline.evidence.evidence import (
    NamedAttachment,
    ProvenFile,
    RunEvidence,
    consistency_proof,
)
from pipeline.ledger.reader import (
    FoundLeaf,
    StoreLogs,
    find_advisory_leaf,
    find_run_leaf,
    has_run_leaf,
)
from pipeline.ledger.tlog.checkpoints import Checkpoint
from pipeline.ledger.tlog.notes import parse_note
from pipeline.storage.artifacts import read_recorded
from pipeline.storage.reader import FoundRun, RunReader

EXCERPT_LIMIT_BYTES = 20_000
_OF_LINK = "advisory"
_READABLE = ("text/", "application/json")

Ref = Mapping[str, Any]
"""An attachment as an artifact names it; that of a link in the same form."""

Trusted = Mapping[str, Checkpoint]
"""Trusted checkpoints, by origin."""


def gather_evidence(
    reader: RunReader, logs: StoreLogs, run_id: str, trusted: Trusted | None = None
) -> RunEvidence:
    """Return the evidence about a run.

    Raises:
        NotFoundError: There is no such run.
        IntegrityError: Run, link, leaf, log or attachment are not what was written, or a log does
            not begin with the trusted checkpoint.
        StoreError: The disk or the index failed.
    """
    found = find_run(reader, logs, run_id)  # 1.
    leaf = find_run_leaf(logs, found.run)  # 2.
    files = [_proven("run", found.run.artifact_path, found.content, leaf, trusted or {})]
    for number, link in enumerate(found.links, 1):  # 3.
        leaf, path = find_advisory_leaf(logs, link), str(link.link_path)
        sources = found.run.source, link.source
        content = read_recorded(reader.store, path, link.link_sha256, sources=sources)
        files.append(_proven(f"advisory-{number}", path, content, leaf, trusted or {}))
    signatures = [each for file in files for each in parse_note(file.proof.checkpoint).signatures]
    signers = {(each.name, each.key_id) for each in signatures}
    return RunEvidence(
        logs.store_id,
        found.run.may_cut,
        files,
        list(_attachments(reader, run_id, files)),  # 4.
        [key for key in logs.keys if (key.name, key.key_id) in signers],
    )


def find_run(reader: RunReader, logs: StoreLogs, run_id: str) -> FoundRun:
    """Return a run as the index knows it.

    Raises:
        NotFoundError: Neither index nor ledger know it.
        IntegrityError: The ledger knows it alone, or its file has other bytes.
        StoreError: The disk or the index failed.
    """
    try:
        return reader.find(run_id)
    except NotFoundError:
        if not has_run_leaf(logs, run_id):
            raise
    raise IntegrityError(
        f"The ledger has a leaf of the run {run_id}, the index does not know it: run rmos index "
        "rebuild."
    )


def _proven(name: str, path: str, content: bytes, found: FoundLeaf, trusted: Trusted) -> ProvenFile:
    checkpoint = found.reader.checkpoint
    consistency = None
    if checkpoint.origin in trusted:  # 5.
        old = trusted[checkpoint.origin]
        proof = found.reader.prove_consistency(old)
        consistency = consistency_proof(old.size, proof, found.reader.note)
    proof_of_leaf = found.reader.prove(found.index)
    return ProvenFile(name, path, content, found.leaf, proof_of_leaf, checkpoint, consistency)


def _attachments(
    reader: RunReader, run_id: str, files: Sequence[ProvenFile]
) -> Iterator[NamedAttachment]:
    seen = set()
    for ref in _refs(files):
        if ref["sha256"] not in seen:
            seen.add(ref["sha256"])
            yield _attachment(reader, run_id, ref)


def _refs(files: Sequence[ProvenFile]) -> Iterator[Ref]:
    artifact, *links = (file.document() for file in files)
    yield from artifact["attachments"]
    for link in links:
        if "content_sha256" in link:
            yield {
                "sha256": link["content_sha256"],
                "kind": _OF_LINK,
                "filename": link["advisory_id"],
                "size_bytes": link.get("size_bytes"),
                "mime": link.get("mime"),
            }


def _attachment(reader: RunReader, run_id: str, ref: Ref) -> NamedAttachment:
    sha256 = ref["sha256"]
    named = NamedAttachment(sha256, ref["kind"], ref["filename"], ref["size_bytes"], "missing")
    if _is_withheld(reader, run_id, sha256):
        return replace(named, state="withheld")
    check = reader.attachments.check(sha256)
    if check.error == "hash_mismatch":
        raise IntegrityError(
            f"Expected {named.path} to have the SHA-256 that is its name, found "
            f"{check.actual_sha256}."
        )
    if check.error is not None:
        return named
    return replace(named, state="included", excerpt=_excerpt(reader, named, ref))


def _is_withheld(reader: RunReader, run_id: str, sha256: str) -> bool:
    """Return whether a verdict withholds a blob that the run or a link of it names."""
    try:
        reader.named_blob(run_id, sha256)
    except NotFoundError:
        return True
    return False


def _excerpt(reader: RunReader, named: NamedAttachment, ref: Ref) -> str | None:
    """Return the content of an advisory, where it is a text that fits on a page."""
    readable = str(ref.get("mime")).startswith(_READABLE)
    if named.kind != _OF_LINK or not readable:
        return None
    with closing(reader.attachments.open(named.sha256)) as blob, reader.store.faults():
        content = blob.read(0, EXCERPT_LIMIT_BYTES + 1)
    return content.decode(errors="replace") if len(content) <= EXCERPT_LIMIT_BYTES else None
