"""The page of a run: everything is on it, and nothing that others wrote can act in it."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import given
from msgspec import structs

from pipeline.core.visible_text import visible_lines
from pipeline.evidence import words
from pipeline.evidence.evidence import NamedAttachment, ProvenFile, RunEvidence, consistency_proof
from pipeline.evidence.words import (
    DOES_NOT_PROVE,
    PROVES,
    SHOWN_LIMIT,
    evidence_page,
    page_environment,
    readme,
)
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.ledger.tlog.checkpoints import Checkpoint, sign_checkpoint
from pipeline.ledger.tlog.merkle import leaf_hash
from pipeline.ledger.tlog.proofs import TlogProof
from tests.builders import judged, red_request, run_request, sha256
from tests.json_values import texts
from tests.ledger.tlog.signers import signer

TEMPLATE, README = (
    Path(words.__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("page.html", "readme.txt")
)
SIGNER = signer("rmos/" + "0" * 32)
ORIGIN = f"{SIGNER.name}/1/rmos.runs.requests/0"
ALLOWED_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "p", "h1", "h2", "h3", "div", "span"),
    *("strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "pre", "code"),
}
ALLOWED_ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class"}
NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J&lt;\"'"


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def evidence_of(
    request: dict[str, Any], attachments: tuple[NamedAttachment, ...] = ()
) -> RunEvidence:
    run = judged(request)
    leaf = LedgerLeaf(
        "run",
        "rmos.runs.requests",
        0,
        7,
        1_766_066_602_123,
        "0" * 64,
        run_id=request["run_id"],
        path=run.path,
        sha256=run.artifact_sha256,
        size_bytes=len(run.built.content),
    )
    checkpoint = Checkpoint(ORIGIN, 1, leaf_hash(leaf.encode()))
    proof = TlogProof(0, (), sign_checkpoint(checkpoint, [SIGNER]))
    file = ProvenFile("run", run.path, run.built.content, leaf, proof, checkpoint)
    may_cut = run.built.document["status"] == "OK"
    return RunEvidence("0" * 32, may_cut, [file], attachments, [SIGNER.key])


def page_of(request: dict[str, Any], *attachments: NamedAttachment) -> Seen:
    seen = Seen(evidence_page(evidence_of(request, attachments), TEMPLATE, "p { color: red }"))
    assert seen.tags <= ALLOWED_TAGS
    assert seen.attributes <= ALLOWED_ATTRIBUTES
    return seen


def test_the_page_shows_verdict_hashes_and_proof() -> None:
    seen = page_of(run_request())
    document = judged(run_request()).built.document
    for shown in (
        document["run_id"],
        "risk GREEN",
        "a machine may cut by it",
        document["created_at_utc"],
        "2025-12-18T14:03:22.123Z, as the broker said",
        *document["hashes"].values(),
        document["outputs"]["gcode_text"],
        str(SIGNER.key),
        ORIGIN,
        *PROVES,
        *DOES_NOT_PROVE,
    ):
        assert shown in seen.text, shown


def test_a_blocked_run_shows_why_and_what_was_withheld() -> None:
    seen = page_of(red_request())
    assert "BLOCKED" in seen.text
    assert "no machine may cut by it" in seen.text
    assert "rim speed above the blade's limit" in seen.text
    assert "outputs.gcode_text" in seen.text
    assert "it holds what was redacted" in seen.text


def test_nothing_is_fetched_and_nothing_can_run() -> None:
    shown = evidence_page(evidence_of(run_request()), TEMPLATE, "")
    assert "default-src 'none'; style-src 'unsafe-inline'" in shown
    assert "<script" not in shown
    assert "http:" not in shown
    assert "https:" not in shown


def nasty(value: Any) -> Any:
    """Put something nasty into every text of a free-form value."""
    if isinstance(value, dict):
        return {NASTY + key: nasty(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nasty(item) for item in value]
    return NASTY if isinstance(value, str) else value


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    request = run_request(
        mode="<script>",
        tool_id="<img src=x>",
        notes=NASTY,
        errors=[NASTY],
        meta=nasty({"a": "b"}),
        feasibility={"risk_level": "GREEN", **nasty({"a": ["b"]})},
        decision={"risk_level": "GREEN", "warnings": [NASTY], "details": nasty({"a": "b"})},
        request=nasty({"operation": "rip"}),
        outputs={"gcode_text": NASTY, "toolpaths": NASTY, "opplan_json": [NASTY]},
    )
    seen = page_of(request, NamedAttachment("0" * 64, "x", NASTY, 1, "missing", NASTY))
    assert seen.text.count("<script>alert(1)</script>") > 8
    assert "\x1b" not in seen.text
    assert "\u202e" not in seen.text
    assert "\\u202e\\u001b[2J" in seen.text


@given(texts())
def test_any_text_is_shown_as_it_is_or_spelt_out(given_: str) -> None:
    template = page_environment().from_string('<p class="{{ value }}">{{ value }}</p>')
    seen = Seen(template.render(value=given_))
    assert seen.tags == {"p"}
    assert seen.attributes == {"class"}
    assert seen.text == visible_lines(given_)


def test_a_long_text_is_cut_and_says_where_the_whole_is() -> None:
    seen = page_of(run_request(outputs={"gcode_text": "G1 X1\n" * 20_000}))
    assert f"[{120_000 - SHOWN_LIMIT:,} more characters: see the artifact]" in seen.text
    assert len(seen.text) < 60_000


def test_an_attachment_that_is_not_here_is_marked() -> None:
    digest = sha256("x")
    seen = page_of(
        run_request(),
        NamedAttachment(digest, "geometry", "part.geo", 12, "missing"),
        NamedAttachment("1" * 64, "dxf_input", "part.dxf", 3, "included"),
    )
    assert f"part.geo{digest}12no: missing" in seen.text
    assert f"part.dxf{'1' * 64}3yes" in seen.text


def test_a_time_that_no_calendar_has_is_reported_as_it_is() -> None:
    found = evidence_of(run_request())
    (file,) = found.files
    leaf = json.loads(file.leaf.encode())
    assert leaf["source"]["timestamp_ms"] == 1_766_066_602_123
    ages_ago = replace(file, leaf=structs.replace(file.leaf, timestamp_ms=-(2**63)))
    seen = Seen(evidence_page(replace(found, files=[ages_ago]), TEMPLATE, ""))
    assert f"{-(2**63)} ms after 1970" in seen.text


def test_the_readme_fits_a_terminal_and_names_what_is_left_out() -> None:
    missing = NamedAttachment("0" * 64, "geometry", "part.geo", 12, "missing")
    told = readme(evidence_of(run_request(), (missing,)), README)
    assert max(map(len, told.splitlines())) <= 100
    assert f"    missing  {'0' * 64}  geometry" in told
    assert "All attachments that are named are in it." in readme(evidence_of(run_request()), README)


def test_a_consistency_proof_has_the_form_of_a_witness_request() -> None:
    assert consistency_proof(3, [b"\x00" * 32], b"note\n") == (
        b"old 3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nnote\n"
    )
    assert consistency_proof(0, [], b"note\n") == b"old 0\n\nnote\n"
