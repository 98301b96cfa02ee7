"""The verdict on one record of the request topic by itself: a run, or rejected.

Whether the run is new, a duplicate or in conflict the index decides (`pipeline.storage`).
"""

from dataclasses import dataclass

from pipeline.core.dead_letters.carried_record import ReadContent
from pipeline.core.envelope import Envelope, Parsed, Rejected, judged_apart, open_envelope
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import artifact_path
from pipeline.core.runs.artifact import BuiltRun, build_run
from schemas.run_request import RUN_REQUEST_VERSION

__all__ = ["JudgedRun", "Rejected", "judge_run_record"]


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A record that makes a run.

    Attributes:
        run_id: The run.
        request_sha256: Of the canonical body: it decides duplicate or conflict.
        artifact_sha256: Of the artifact's bytes.
        path: Of the artifact, relative to the store.
        built: The artifact and what is stored with it.
    """

    run_id: str
    request_sha256: str
    artifact_sha256: str
    path: str
    built: BuiltRun

    @property
    def is_incomplete(self) -> bool:
        """Whether the request had violations."""
        return self.built.is_incomplete


def judge_run_record(
    key: ReadContent | None, value: ReadContent | None, parsed: Parsed | None = None
) -> JudgedRun | Rejected:
    """Return what a record with this `key` and `value` is; the first rule that fits.

    An exception that is not the record's fault or the machine's becomes INTERNAL_ERROR: one
    record that our program cannot handle must not hold up the others.

    Args:
        key: The record's key.
        value: The record's value.
        parsed: What `parse_object` returns for the value, where the caller has it already.

    Raises:
        OSError: The machine is at fault, not the record.
        MemoryError: The same.
    """
    return judged_apart(lambda: _judge(key, value, parsed))


def _judge(key: ReadContent | None, value: ReadContent | None, parsed: Parsed | None) -> JudgedRun:
    request = open_envelope(key, value, version=RUN_REQUEST_VERSION, parsed=parsed)
    built = build_run(request.document, request.body, request.created_at_utc)
    return judged_run(request, built)


def judged_run(request: Envelope, built: BuiltRun) -> JudgedRun:
    """Return the verdict on a request that makes a run."""
    return JudgedRun(
        request.run_id,
        built.index_fields["provenance"]["request_sha256"],
        sha256_of_bytes(built.content),
        artifact_path(request.created_at_utc, request.run_id),
        built,
    )
