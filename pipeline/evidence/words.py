"""The texts of a bundle for people: README.txt, and the page of the run.

Both state what the bundle proves, what it does not prove, and how to check it. The page shows the
verdict of the run first, then the reasons, then the proof. It is one file without scripts, pictures
or anything to fetch. It is no evidence itself, and states that. The template escapes every value;
what would act or hide in a text is spelt out before.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.core.visible_text import visible_lines
from pipeline.evidence.evidence import ProvenFile, RunEvidence
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.notes import encode_base64

PROVES = (
    "The log of the store recorded the artifact with exactly these bytes, and each advisory shown "
    "with it. With a checkpoint that you hold: it did so before you were given that checkpoint, "
    "and nobody can have changed it since, not even the owner of the key.",
    "With the key of the log: its owner signed a checkpoint that covers them.",
    "The verdict, its reasons, and every hash in the artifact are those that were recorded. The "
    "hashes of the evaluation, of toolpaths, operation plan and G-code can be computed again from "
    "what is here.",
    "An attachment that is here has the content that the artifact names.",
)
DOES_NOT_PROVE = (
    "That what the request said was true: who may publish requests is trusted to evaluate them.",
    "When it was created: created_at_utc is the sender's word. The broker's time and the place in "
    "the log bound it.",
    "That there is nothing else: another run about the same job, or another advisory about this "
    "one, would be in the same log and need not be in this bundle.",
    "What a machine did afterwards.",
    "That the owner of the key shows everybody the same log: compare checkpoints with others who "
    "hold some.",
    "Anything in report.html, README.txt and verify.py: they explain. SHA256SUMS shows that they "
    "are undamaged, and no leaf covers them: whoever makes a bundle writes them. The artifact "
    "under files/runs is the record.",
)
WITHHELD = (
    "The whole request of a run that is not OK is kept in the store's quarantine and is no part of "
    "any bundle: it holds what was redacted and what a machine must not cut. The artifact names "
    "what was withheld, by hash."
)
HOW_TO_CHECK = (
    "python3 verify.py BUNDLE.zip --key VKEY",
    "python3 verify.py BUNDLE.zip --trusted FILE",
)
ABOUT_TRUST = (
    "The key (VKEY) or the trusted checkpoints (FILE, as `rmos ledger checkpoint` printed it) must "
    "come to you from outside this bundle, best of all earlier. Whoever makes a false bundle makes "
    "a key for it too, and another verify.py: take that from a source of your own as well. It "
    "needs Python 3.9 or newer and nothing else. Exit status: 0 proven, 1 refused, 2 unreadable, "
    "3 consistent with itself, origin not proven, 4 incomplete: something named is not here."
)
_WORDS = {
    "PROVES": PROVES,
    "DOES_NOT_PROVE": DOES_NOT_PROVE,
    "WITHHELD": WITHHELD,
    "HOW_TO_CHECK": HOW_TO_CHECK,
    "ABOUT_TRUST": ABOUT_TRUST,
}
"""The texts that readme.txt and page.html show."""

_LINES: Final[dict[str, Any]] = {
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}

SHOWN_LIMIT: Final = 20_000
"""Characters of one text on the page; the whole is in the artifact."""

_CONTEXT: Final = (
    *("event_type", "mode", "tool_id", "material_id", "machine_id", "workflow_session_id"),
    *("workflow_mode", "toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash"),
    *("parent_run_id", "parent_plan_run_id", "request_id", "gate_policy_id", "gate_decision"),
    *("engine_version", "toolchain_version", "post_processor_version", "config_fingerprint"),
    *("drift_detected", "notes"),
)


def readme(evidence: RunEvidence, template: str) -> str:
    """Return the text of README.txt.

    Args:
        evidence: What there is to show.
        template: The text of readme.txt.
    """
    environment = Environment(**_LINES)  # noqa: S701  # no page, and nothing of others but names
    return environment.from_string(template).render(evidence=evidence, words=_WORDS)


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
        words=_WORDS,
        style=Markup(style),  # noqa: S704  # our own file
    )


def page_environment() -> Environment:
    """Return how templates are rendered: each value visible and escaped, whatever it is."""
    environment = Environment(
        autoescape=True,
        finalize=_visible,
        **_LINES,
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
