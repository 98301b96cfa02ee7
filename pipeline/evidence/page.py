"""The page on which a person reads a run: its verdict first, then why, then the proof.

One file without scripts, pictures or anything to fetch; every text of others is escaped. It is no
evidence itself, and says so.

HTML that is made of values: every text is escaped, and nothing in it can act.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, Final

from pipeline.core.visible_text import visible_lines
from pipeline.evidence.evidence import NamedAttachment, ProvenFile, RunEvidence
from pipeline.evidence.words import (
    DOES_NOT_PROVE,
    HOW_TO_CHECK,
    PROVES,
    WITHHELD,
    about_trust,
)
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.notes import encode_base64


class Html(str):
    """A text that is HTML already; every other one is escaped on its way in."""

    __slots__ = ()


def element(name: str, *parts: object, **attributes: str) -> Html:
    """Return an element; `class_` stands for the attribute of that name."""
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{named}>{joined(parts)}</{name}>")


def joined(parts: object) -> Html:
    """Return parts one after the other, each escaped unless it is HTML."""
    assert isinstance(parts, tuple | list)
    return Html("".join(text(part) for part in parts))


def text(value: object) -> Html:
    """Return a value as HTML shows it; what would act or hide is spelt out."""
    if isinstance(value, Html):
        return value
    return Html(escape(visible_lines(str(value))))


SHOWN_LIMIT: Final = 20_000
"""Characters of one text on the page; the whole is in the artifact."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NO_EVIDENCE = (
    "This page explains and proves nothing by itself: anybody can write one. The artifact beside "
    "it is the record, and verify.py checks it."
)
_LOOKS = {"OK": "ok", "BLOCKED": "stop", "ERROR": "stop"}
_CONTEXT = (
    *("event_type", "mode", "tool_id", "material_id", "machine_id", "workflow_session_id"),
    *("workflow_mode", "toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash"),
    *("parent_run_id", "parent_plan_run_id", "request_id", "gate_policy_id", "gate_decision"),
    *("engine_version", "toolchain_version", "post_processor_version", "config_fingerprint"),
    *("drift_detected", "notes"),
)


def evidence_page(evidence: RunEvidence, style: str) -> str:
    """Return the page of a run.

    Args:
        evidence: What there is to show.
        style: The style sheet.
    """
    document = evidence.run.document()
    head = [
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", f"Run {evidence.run_id}"),
        element("style", Html(style)),
    ]
    body = [
        *_heading(evidence, document),
        *_decision(document),
        *_request(document),
        *_outputs(document),
        *_attachments(evidence),
        *_advisories(evidence),
        *_proof(evidence),
        *_claims(),
    ]
    page = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _heading(evidence: RunEvidence, document: Mapping[str, Any]) -> Iterator[Html]:
    status, decision = document["status"], document["decision"]
    cut = "a machine may cut by it" if evidence.may_cut else "no machine may cut by it"
    yield element("p", "Evidence about a run", class_="kind")
    yield element("h1", evidence.run_id)
    reason = decision.get("block_reason")
    yield element(
        "div",
        element("strong", status),
        element("span", f"risk {decision['risk_level']}"),
        element("span", cut),
        element("p", _shown(reason)) if reason else "",
        class_=f"verdict {_LOOKS.get(status, 'stop')}",
    )
    yield _table(
        [
            ("created", f"{document['created_at_utc']}, as the request says"),
            ("received", f"{_broker_time(evidence.run)}, as the broker said"),
            ("artifact", _code(evidence.run.path)),
            ("SHA-256", _code(str(evidence.run.leaf.sha256))),
        ]
    )
    yield element("p", _NO_EVIDENCE, class_="note")


def _decision(document: Mapping[str, Any]) -> Iterator[Html]:
    decision = document["decision"]
    yield element("h2", "Why it was decided so")
    rows = [("risk level", decision["risk_level"])]
    rows += [("score", decision["score"])] if "score" in decision else []
    yield _table(rows)
    if decision.get("warnings"):
        yield element("h3", "Warnings")
        yield element("ul", *(element("li", _shown(each)) for each in decision["warnings"]))
    if decision.get("details"):
        yield element("h3", "Details")
        yield _json(decision["details"])
    yield element("h3", "The evaluation, as it came")
    yield _json(document["feasibility"])
    if document.get("errors"):
        yield element("h3", "Errors")
        yield element("ul", *(element("li", _shown(each)) for each in document["errors"]))


def _request(document: Mapping[str, Any]) -> Iterator[Html]:
    yield element("h2", "What was asked for")
    yield _table([(name, _shown(str(document[name]))) for name in _CONTEXT if name in document])
    yield element("h3", "Request, without verdicts and secrets")
    yield _json(document["request_summary"])
    for name in ("meta", "drift_summary", "error"):
        if document.get(name):
            yield element("h3", name)
            yield _json(document[name])


def _outputs(document: Mapping[str, Any]) -> Iterator[Html]:
    yield element("h2", "What came out of it")
    yield _table([(name, _code(value)) for name, value in document["hashes"].items()])
    outputs = document["outputs"]
    for name in ("gcode_path", "opplan_path", "preview_svg_path"):
        if name in outputs:
            yield _table([(name, _code(outputs[name]))])
    if "gcode_text" in outputs:
        yield element("h3", "G-code")
        yield element("pre", _shown(outputs["gcode_text"]))
    for name in ("toolpaths", "opplan_json"):
        if name in outputs:
            yield element("h3", name)
            yield _json(outputs[name])
    withheld = document["provenance"].get("withheld")
    if withheld:
        yield element("h3", "Withheld, as the run is not OK")
        yield element("ul", *(element("li", _code(each)) for each in withheld))
        yield element("p", WITHHELD, class_="note")
    yield element("h3", "Provenance")
    yield _json(document["provenance"])


def _attachments(evidence: RunEvidence) -> Iterator[Html]:
    yield element("h2", "Attachments")
    if not evidence.attachments:
        yield element("p", "None.")
        return
    heads = ("kind", "name and SHA-256", "bytes", "in the bundle")
    head = element("tr", *(element("th", name) for name in heads))
    rows = [_attachment(each) for each in evidence.attachments]
    yield element("table", element("thead", head), element("tbody", *rows), class_="files")


def _attachment(attachment: NamedAttachment) -> Html:
    size = "" if attachment.size_bytes is None else f"{attachment.size_bytes:,}"
    included = attachment.state == "included"
    state = "yes" if included else element("span", f"no: {attachment.state}", class_="missing")
    name = joined([element("div", attachment.filename), element("div", _code(attachment.sha256))])
    cells = (attachment.kind, name, size, state)
    return element("tr", *(element("td", cell) for cell in cells))


def _advisories(evidence: RunEvidence) -> Iterator[Html]:
    yield element("h2", "Advisories")
    yield element("p", "What others say about the run. It changes nothing in it.", class_="note")
    contents = {each.sha256: each for each in evidence.attachments}
    if len(evidence.files) == 1:
        yield element("p", "None.")
    for file in evidence.files[1:]:
        link = file.document()
        yield element("h3", link.get("title", link["advisory_id"]))
        names = ("kind", "advisory_id", "created_at_utc", "engine_id", "engine_version")
        rows: list[tuple[str, object]] = [(name, link[name]) for name in names if name in link]
        yield _table(
            [*rows, ("link", _code(file.path)), ("SHA-256", _code(str(file.leaf.link_sha256)))]
        )
        content = contents.get(link.get("content_sha256", ""))
        if content is not None and content.excerpt is not None:
            yield element("pre", _shown(content.excerpt))


def _proof(evidence: RunEvidence) -> Iterator[Html]:
    yield element("h2", "The proof")
    yield element(
        "p",
        "Each file is named by a leaf of the store's log. The hashes lead from the leaf to the "
        "root of the signed checkpoint (RFC 6962); the checkpoint is a signed note (C2SP).",
    )
    for key in evidence.keys:
        yield _table([("key of the store", _code(str(key)))])
    for file in evidence.files:
        yield element("h3", f"{file.name}: {file.path}")
        yield _table(
            [
                ("log", _code(file.checkpoint.origin)),
                ("leaf", f"{file.proof.index:,} of {file.checkpoint.size:,}"),
                ("hash of the leaf", _code(encode_base64(leaf_hash(file.leaf.encode())))),
                ("root", _code(encode_base64(file.checkpoint.root))),
            ]
        )
        yield element("pre", file.leaf.encode().decode())
        yield element("pre", bytes(file.proof).decode())


def _claims() -> Iterator[Html]:
    yield element("h2", "Check it yourself")
    yield element("pre", "\n".join(HOW_TO_CHECK))
    yield element("p", about_trust())
    yield element("h3", "What that proves")
    yield element("ul", *(element("li", claim) for claim in PROVES))
    yield element("h3", "What it does not prove")
    yield element("ul", *(element("li", claim) for claim in DOES_NOT_PROVE))


def _table(rows: Sequence[tuple[str, object]]) -> Html:
    cells = [element("tr", element("th", name), element("td", value)) for name, value in rows]
    return element("table", element("tbody", *cells))


def _code(value: str) -> Html:
    return element("code", value)


def _json(value: object) -> Html:
    shown = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return element("pre", _shown(shown))


def _shown(value: str) -> Html:
    if len(value) <= SHOWN_LIMIT:
        return text(value)
    more = f"\n[{len(value) - SHOWN_LIMIT:,} more characters: see the artifact]"
    return joined([value[:SHOWN_LIMIT], more])


def _broker_time(file: ProvenFile) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=file.leaf.timestamp_ms)
    except OverflowError:
        return f"{file.leaf.timestamp_ms} ms after 1970"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{file.leaf.timestamp_ms % 1000:03d}Z"
