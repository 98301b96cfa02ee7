"""The documents that the routes of a run's parts answer and that the commands print, alike."""

from collections.abc import Iterable
from typing import Any

from pipeline.storage.attachments import BlobCheck, StoredBlob

_PREFIX = "/api/rmos/runs"


def advisories_answer(run_id: str, advisories: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of a run's advisories."""
    listed = [_with_content_url(run_id, each) for each in advisories]
    return {"run_id": run_id, "count": len(listed), "advisories": listed}


def attachments_answer(run_id: str, refs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of a run's attachments."""
    listed = [{**ref, "download_url": _download_url(run_id, ref["sha256"])} for ref in refs]
    return {"run_id": run_id, "count": len(listed), "attachments": listed}


def verification_answer(
    run_id: str, checks: Iterable[tuple[dict[str, Any], BlobCheck]]
) -> dict[str, Any]:
    """Return the document of a verification."""
    results = [_result(ref, check) for ref, check in checks]
    verification = {
        "ok": all(result["ok"] for result in results),
        "count": len(results),
        "results": results,
    }
    return {"run_id": run_id, "verification": verification}


def stored_answer(stored: StoredBlob) -> dict[str, Any]:
    """Return the document of an upload."""
    return {
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "status": "created" if stored.created else "exists",
    }


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


def _with_content_url(run_id: str, advisory: dict[str, Any]) -> dict[str, Any]:
    sha256 = advisory.get("content_sha256")
    if sha256 is None:
        return advisory
    return {**advisory, "download_url": _download_url(run_id, sha256)}


def _download_url(run_id: str, sha256: str) -> str:
    return f"{_PREFIX}/{run_id}/attachments/{sha256}"
