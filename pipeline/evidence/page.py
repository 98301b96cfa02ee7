"""The page of a run for people: its verdict first, then the reasons, then the proof.

One file without scripts, pictures or anything to fetch. It is no evidence itself, and states
that. The template escapes every value; what would act or hide in a text is spelt out before.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.core.visible_text import visible_lines
from pipeline.evidence import words
from pipeline.evidence.evidence import ProvenFile, RunEvidence
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.notes import encode_base64

SHOWN_LIMIT: Final = 20_000
"""Characters of one text on the page; the whole is in the artifact."""

_CONTEXT: Final = (
    *("event_type", "mode", "tool_id", "material_id", "machine_id", "workflow_session_id"),
    *("workflow_mode", "toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash"),
    *("parent_run_id", "parent_plan_run_id", "request_id", "gate_policy_id", "gate_decision"),
    *("engine_version", "toolchain_version", "post_processor_version", "config_fingerprint"),
    *("drift_detected", "notes"),
)


def evidence_page(evidence: RunEvidence, template: str, style: str) -> str:
    """Return the page of a run.

    Args:
        evidence: What there is to show.
        template: The text of page.html.
        style: The style sheet.
    """
    page = page_environment().from_string(template)
    return page.render(
        evidence=evidence,
        run=evidence.run.document(),
        advisories=list(_advisories(evidence)),
        context=_CONTEXT,
        words=words,
        style=Markup(style),  # noqa: S704  # our own file
    )


def page_environment() -> Environment:
    """Return how templates are rendered: each value visible and escaped, whatever it is."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": encode_base64,
        "broker_time": _broker_time,
        "json": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
        "leaf_hash": lambda file: encode_base64(leaf_hash(file.leaf.encode())),
        "shown": _shown,
        "text": lambda value: bytes(value).decode(),
    }
    return environment


def _visible(value: object) -> object:
    return value if isinstance(value, Markup) else visible_lines(str(value))


def _shown(value: str) -> str:
    if len(value) <= SHOWN_LIMIT:
        return value
    more = f"[{len(value) - SHOWN_LIMIT:,} more characters: see the artifact]"
    return f"{value[:SHOWN_LIMIT]}\n{more}"


def _advisories(evidence: RunEvidence) -> Iterator[tuple[ProvenFile, dict[str, Any], str | None]]:
    """Yield each advisory's file, its link, and its content where that is a short text."""
    excerpts = {each.sha256: each.excerpt for each in evidence.attachments}
    for file in evidence.files[1:]:
        link = file.document()
        yield file, link, excerpts.get(link.get("content_sha256", ""))


def _broker_time(file: ProvenFile) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=file.leaf.timestamp_ms)
    except OverflowError:
        return f"{file.leaf.timestamp_ms} ms after 1970"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{file.leaf.timestamp_ms % 1000:03d}Z"
