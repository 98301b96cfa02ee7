"""Reads a store that other processes write: rows of the index, and their files, checked.

A look at a run opens the same number of files whatever is in the store: links are read from the
index, the artifact from its file. Any number of threads may use it at once. What it answers is what
the routes of the API answer and the commands print.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from pipeline.core.advisories.outcome import StoredAdvisory
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.strict import parse_object
from pipeline.core.record import Partition
from pipeline.core.run_view import (
    Members,
    explanation_status,
    joined,
    members_of,
    merged_advisories,
    run_view,
    withheld_blobs,
)
from pipeline.core.runs.artifact_parts import values_without_place
from pipeline.core.runs.cut_program import cut_program
from pipeline.core.runs.diff import diff_runs
from pipeline.core.runs.outcome import StoredRun
from pipeline.core.store.identity import read_identity
from pipeline.errors import IntegrityError, NotFoundError
from pipeline.storage.archives import mark_archived
from pipeline.storage.artifacts import read_artifact, read_kept_request
from pipeline.storage.attachments import AttachmentFiles, BlobCheck
from pipeline.storage.awaited_blobs import missing_attachments
from pipeline.storage.index.listing import RunPage, list_runs
from pipeline.storage.index.named import Named, named_by_advisory, named_by_hash
from pipeline.storage.index.programs import ProgramRuns, runs_of_program
from pipeline.storage.index.run_index import RunIndex
from pipeline.storage.store import Store, open_store_to_read
from schemas.fields import RUN_ID_RULE, is_run_id
from schemas.http_answers import RUNS_PATH
from schemas.run_filter import RunFilter

_EMPTY_LIST = b"[]"


def _result(ref: dict[str, Any], check: BlobCheck) -> dict[str, Any]:
    return {
        "sha256": check.sha256,
        "ok": check.error is None,
        "size_bytes": check.size_bytes,
        "actual_sha256": check.actual_sha256,
        "error": check.error,
        "kind": ref["kind"],
        "filename": ref["filename"],
        "rule": check.rule,
    }


def _download_url(run_id: str, sha256: str) -> str:
    return f"{RUNS_PATH}/{run_id}/attachments/{sha256}"


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run as the index knows it, and its artifact, whose bytes are those of the index.

    Attributes:
        links: In the order of (created_at_utc, advisory_id).
        content: The exact bytes.
    """

    run: StoredRun
    links: list[StoredAdvisory]
    content: bytes

    def document(self) -> dict[str, Any]:
        """Return the artifact as a value, with every digit of its numbers."""
        return parse_object(self.content)[0]

    def view(self) -> dict[str, Any]:
        """Return the artifact with its links."""
        return run_view(self.document(), self.links)


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run as the API answers it.

    Attributes:
        members: Of its artifact.
        added: Beside them, or in place of one.
    """

    members: Members
    added: dict[str, Any]

    @property
    def missing_attachments(self) -> tuple[str, ...]:
        """The SHA-256 of each attachment that is not here now, sorted."""
        missing: tuple[str, ...] = self.added["missing_attachments"]
        return missing

    @property
    def content(self) -> bytes:
        """Its canonical bytes: the members of the file as they are, joined with the others."""
        return joined(self.members, self.added)


@dataclass(frozen=True, slots=True)
class NamedBlob:
    """What a run, or one of its links, says of a blob.

    Attributes:
        mime: None where nothing says it.
        filename: Likewise.
    """

    sha256: str
    mime: str | None
    filename: str | None


@dataclass(frozen=True, slots=True)
class RunProgram:
    """The program of a run.

    Attributes:
        run_id: Of the run.
        sha256: Of the whole program.
        content: Its bytes; of one that is longer than was asked for, only the first.
    """

    run_id: str
    sha256: str
    content: bytes


class RunReader:
    """The runs of one store, for reading.

    What takes a run_id raises NotFoundError where there is no such run, ArchivedError where its
    file is archived, and IntegrityError where its file is missing or has other bytes, or no record
    explains it.
    """

    def __init__(self, store: Store) -> None:
        """Read `store`, which is closed with this."""
        self.store = store
        self.attachments = AttachmentFiles(store.files)
        self._opening = Lock()
        self._opened: RunIndex | None = store.index

    def close(self) -> None:
        """Let go of the index and of the store."""
        if self._opened is not None:
            self._opened.close()
        self.store.let_go()

    def list_runs(self, wanted: RunFilter) -> RunPage:
        """Return one page of a listing; artifacts are not opened. An archived run says so.

        Raises:
            InputError: The cursor is none of ours.
        """
        index = self._index()
        with index.looking_up() as connection:
            listed = list_runs(connection, wanted)
        mark_archived(self.store, listed.items, index.find)
        return listed

    def runs_of_program(self, sha256: str) -> ProgramRuns:
        """Return the runs that decide about a program; artifacts are not opened."""
        with self._index().looking_up() as connection:
            return runs_of_program(connection, sha256)

    def named_by_hash(self, sha256: str) -> list[Named]:
        """Return what has this SHA-256; at most one more than `MOST_NAMED`."""
        with self._index().looking_up() as connection:
            return named_by_hash(connection, sha256)

    def named_by_advisory(self, advisory_id: str) -> list[Named]:
        """Return the runs with a linked advisory of this id; likewise."""
        with self._index().looking_up() as connection:
            return named_by_advisory(connection, advisory_id)

    def run_ids(self) -> list[str]:
        """Return every run_id, in order."""
        return [run.run_id for run in self._index().all_runs()]

    def find(self, run_id: str) -> FoundRun:
        """Return a run, its file compared with the index.

        Raises:
            NotFoundError: There is none, or `run_id` cannot name one.
            ArchivedError: Its file is archived.
            IntegrityError: Its file is missing, has other bytes, or no record explains it.
        """
        run, links = self.rows_of(run_id)
        return FoundRun(run, links, read_artifact(self.store, run))

    def show(self, found: FoundRun) -> ShownRun:
        """Return a run as the API answers it: with its links, and with what is computed."""
        members, links, program = members_of(found.content), found.links, found.run.program
        refs = msgspec.json.decode(members["attachments"])
        with self.store.faults():
            missing = missing_attachments(self.store.files, {"attachments": refs})
        added: dict[str, Any] = {
            "explanation_status": explanation_status(links),
            "missing_attachments": missing,
        }
        if links or bytes(members["advisory_inputs"]) != _EMPTY_LIST:
            added["advisory_inputs"] = merged_advisories(found.document(), links)
        if program is not None:
            added["gcode_sha256"] = program.sha256
            added["gcode_known_by"] = program.known_by
        if given := self._given(found):
            added["given"] = given
        return ShownRun(members, added)

    def _given(self, found: FoundRun) -> dict[str, Any]:
        """Return what the request of a run says and its artifact has no place for."""
        if found.run.status != "OK":
            # Its artifact shows nothing that was generated.
            return {}
        with self.store.faults():
            kept = read_kept_request(self.store.files, found.run.request_sha256)
        if kept is None:
            return {}
        return values_without_place(parse_object(kept)[0], found.document())

    def diff(self, a: str, b: str) -> dict[str, Any]:
        """Return how run `b` differs from `a`, which is looked for first, as the API answers."""
        return diff_runs(self.find(a).view(), self.find(b).view())

    def advisories(self, run_id: str) -> dict[str, Any]:
        """Return the advisories of a run, oldest first, as the API answers them."""
        found = self.find(run_id)
        listed = merged_advisories(found.document(), found.links)
        for each in listed:
            if each.get("content_sha256") is not None:
                each["download_url"] = _download_url(run_id, each["content_sha256"])
        return {"run_id": run_id, "count": len(listed), "advisories": listed}

    def attachments_of(self, run_id: str) -> dict[str, Any]:
        """Return the attachments that a run lists, in its order, as the API answers them."""
        found = self.find(run_id)
        document, listed = found.document(), []
        for ref in document["attachments"]:
            listed.append({**ref, "download_url": _download_url(run_id, ref["sha256"])})
            if not found.run.may_cut and self.is_withheld(document, ref["sha256"]):
                listed[-1]["withheld"] = True
        return {"run_id": run_id, "count": len(listed), "attachments": listed}

    def verify_attachments(self, run_id: str) -> dict[str, Any]:
        """Read every byte of the attachments of a run; return what the API answers.

        Raises:
            IntegrityError: As `find`; what is wrong with an attachment is no error here.
        """
        refs = self.find(run_id).document()["attachments"]
        results = [_result(ref, self.attachments.check(ref["sha256"])) for ref in refs]
        is_ok = all(result["ok"] for result in results)
        return {
            "run_id": run_id,
            "verification": {"ok": is_ok, "count": len(results), "results": results},
        }

    def program_of(self, run_id: str, limit_bytes: int) -> RunProgram:
        """Return exactly the bytes that a machine would cut by a run, all of them hashed.

        Of a run that is not OK nothing is read: what it withholds lies in quarantine.

        Args:
            run_id: The run.
            limit_bytes: Most bytes that are returned.

        Raises:
            NotFoundError: There is no such run; it withholds its program, or names none; or the
                store does not have the attachment.
            IntegrityError: Its artifact or its attachment is not what was stored.
        """
        document = self.find(run_id).document()
        if document["status"] != "OK":
            raise NotFoundError(
                f"PROGRAM_WITHHELD: The run {run_id} is {document['status']}: what it would cut is "
                "withheld."
            )
        program = cut_program(document)
        if program is not None:
            text = document["outputs"].get("gcode_text")
            content = text.encode() if isinstance(text, str) else b""
            if sha256_of_bytes(content) == program.sha256:
                return RunProgram(run_id, program.sha256, content[:limit_bytes])
            if any(ref["sha256"] == program.sha256 for ref in document["attachments"]):
                content = self.attachments.read(program.sha256, limit_bytes)
                return RunProgram(run_id, program.sha256, content)
        if document["provenance"].get("withheld"):
            raise NotFoundError(f"PROGRAM_WITHHELD: What the run {run_id} would cut is withheld.")
        raise NotFoundError(
            f"PROGRAM_NOT_FOUND: The run {run_id} brings no program, or several and names none."
        )

    def named_blob(self, run_id: str, sha256: str) -> NamedBlob:
        """Return what a run or one of its links says of a blob.

        What some run withholds is shown only by a run that may be cut by and lists it: an advisory,
        or a blocked run that lists its program as `debug`, could otherwise lead a machine to it.

        Raises:
            NotFoundError: There is no such run, neither names the blob, or it is withheld.
        """
        found = self.find(run_id)
        document = found.document()
        is_withheld = self.is_withheld(document, sha256)
        for ref in document["attachments"]:
            if ref["sha256"] == sha256 and (found.run.may_cut or not is_withheld):
                return NamedBlob(sha256, ref["mime"], ref["filename"])
        for link in found.links:
            if link.claim.content_sha256 == sha256 and not is_withheld:
                return NamedBlob(sha256, link.mime, _link_filename(link))
        raise NotFoundError(
            f"ATTACHMENT_NOT_FOUND: Neither the run {run_id} nor a link names this blob."
        )

    def is_withheld(self, document: dict[str, Any], sha256: str) -> bool:
        """Return whether the run of `document`, or any other, withholds a blob."""
        return sha256 in withheld_blobs(document) or self._index().is_withheld(sha256)

    def withholds(self, sha256s: Iterable[str]) -> bool:
        """Return whether a run that is not OK keeps any of these from the machines."""
        return any(map(self._index().is_withheld, sha256s))

    def stored_to(self) -> dict[Partition, int]:
        """Return before which offset of each partition of this epoch everything is stored."""
        return self._index().kept_to(read_identity(self.store.files).epoch)

    def rows_of(self, run_id: str) -> tuple[StoredRun, list[StoredAdvisory]]:
        """Return the rows of a run and of its links; its file is not opened.

        Raises:
            NotFoundError: There is none, or `run_id` cannot name one.
            IntegrityError: No record explains it.
        """
        found = self._index().find_with_links(run_id) if is_run_id(run_id) else None
        run, links = found or (None, [])
        if run is None:
            raise run_not_found(run_id)
        if run.source is None:
            raise IntegrityError(
                f"RUN_UNEXPLAINED: Expected a leaf or a record that explains {run.artifact_path}, "
                "found none: nobody vouches for this file."
            )
        return run, links

    def _index(self) -> RunIndex:
        """Return the index, opened again where a rebuild has replaced its file."""
        with self.store.faults():
            opened = self._opened
            if opened is not None and not opened.was_replaced:
                return opened
            with self._opening:
                if self._opened is None or self._opened.was_replaced:
                    if self._opened is not None:
                        self._opened.close()
                    self._opened = None
                    self._opened = self.store.open_index()
                return self._opened


def open_reader(root: Path) -> RunReader:
    """Open the store at `root`; the caller closes it.

    Raises:
        StoreNotReadyError: There is no store, or its index is missing or damaged.
    """
    return RunReader(open_store_to_read(root))


def run_not_found(run_id: str) -> NotFoundError:
    """Return the error that there is no such run; what cannot name one is not repeated."""
    if is_run_id(run_id):
        return NotFoundError(
            f"RUN_NOT_FOUND: There is no run {run_id}.", details={"run_id": run_id}
        )
    return NotFoundError(
        f"RUN_NOT_FOUND: There is no such run, and none can have this run_id: {RUN_ID_RULE}."
    )


def _link_filename(link: StoredAdvisory) -> str:
    ending = {"text/markdown": ".md", "application/json": ".json"}.get(link.mime or "", ".bin")
    return f"{link.advisory_id}{ending}"
