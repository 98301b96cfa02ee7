"""The pages of audits: verdicts in words, findings with the way out, whatever the files hold."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.audit.journal import journal_path, write_report
from pipeline.audit.rules.finding import MEANINGS
from pipeline.disk.durable_files import DurableFiles
from pipeline.page.audits import FINDINGS_A_PAGE, WAYS_OUT, finding_view
from schemas.audit_finding import AuditCode
from tests.audit.audit_reports import REPORT
from tests.page.conftest import Element, Site

HOSTILE = "</dd><script>alert(1)</script>\u202egnp\u200b\"'&{{7*7}}\x00"
SEEN = "</dd><script>alert(1)</script>‹U+202E›gnp‹U+200B›\"'&{{7*7}}‹U+0000›"


def finding(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": "rmos.audit_finding/1",
        "audit_id": "a",
        "code": "BYTES_DIFFER",
        "path": "runs/2025-12-18/run_0.json",
        "expected": "SHA-256 1",
        "found": "SHA-256 2",
        "severity": "error",
        **changes,
    }


def keep(root: Path, audit_id: str, *findings: Any, **report: Any) -> None:
    """Keep an audit as the worker does; without report fields it is under way."""
    lines = [{"begun": {}}, *findings, {"done": "rest", "counts": {}, "files": 0}]
    path = journal_path(root, audit_id)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if report:
        counts = {**REPORT["counts"], "findings": len(findings)}
        write_report(
            DurableFiles(root), {**REPORT, "counts": counts, "audit_id": audit_id, **report}
        )


def verdicts(**changed: tuple[str, str]) -> dict[str, dict[str, str]]:
    given = {name: ("ok", f"{name} is well") for name in REPORT["verdicts"]} | changed
    return {name: {"result": result, "reason": why} for name, (result, why) in given.items()}


def articles(page: Element) -> list[Element]:
    return list(page.all("article"))


async def test_the_last_audit_is_first_with_four_verdicts(site: Site) -> None:
    root = site.api.root
    keep(root, "first", verdicts=verdicts(), mode="full")
    keep(
        root, "second", finding(), codes={"BYTES_DIFFER": 1},
        verdicts=verdicts(integrity=("failed", "x"), anchored=("unknown", "x")),
    )  # fmt: skip
    keep(root, "third")
    page = await site.page("/audits")
    third, second, first = (row.words for row in page.one("tbody").all("tr"))
    assert "third No report under way, or broken off" in third
    assert "INTEGRITY FAILED COMPLETENESS OK ANCHORED NOT KNOWN LATE OK 1 finding" in second
    assert "INTEGRITY OK COMPLETENESS OK ANCHORED OK LATE OK 0 findings the whole" in first
    assert "full" in first


async def test_an_audit_in_parts_is_one_audit(site: Site) -> None:
    root = site.api.root
    for number in (1, 2):
        keep(root, f"whole.part-{number}-of-3", verdicts=verdicts())
    keep(root, "whole.part-3-of-3", finding())
    (row,) = (await site.page("/audits")).one("tbody").all("tr")
    assert "whole No report 2 of 3 parts are done" in row.words
    page = await site.page("/audits/whole")
    assert "under way" in page.one("p", class_="note").words
    assert "done in parts" in page.words
    keep(root, "whole.part-3-of-3", finding(), verdicts=verdicts())
    keep(root, "whole", finding(), verdicts=verdicts(integrity=("failed", "x")))
    (row,) = (await site.page("/audits")).one("tbody").all("tr")
    assert "INTEGRITY FAILED" in row.words
    assert len(articles(await site.page("/audits/whole"))) == 1


async def test_only_an_audit_under_way_renews_itself(site: Site) -> None:
    keep(site.api.root, "going")
    keep(site.api.root, "done", verdicts=verdicts())
    going, done = [
        (await site.page(f"/audits/{each}")).one("section", id="audit")
        for each in ("going", "done")
    ]
    assert going.attributes["hx-get"] == "/audits/going?start=0"
    assert "Checked 20" in going.words
    assert "hx-get" not in done.attributes


async def test_older_audits_are_on_the_next_page(site: Site) -> None:
    for number in range(26):
        keep(site.api.root, f"audit-{number:02}", verdicts=verdicts())
    newest = await site.page("/audits")
    (link,) = newest.all("a", rel="next")
    oldest = await site.page(str(link.attributes["href"]))
    assert len(list(newest.one("tbody").all("tr"))) == 25
    assert "audit-00" in oldest.one("tbody").words


async def test_a_finding_says_what_to_do_where_it_is(site: Site) -> None:
    keep(
        site.api.root, "a", finding(), codes={"BYTES_DIFFER": 1},
        verdicts=verdicts(integrity=("failed", "Findings: BYTES_DIFFER 1.")),
    )  # fmt: skip
    page = await site.page("/audits/a")
    assert "Something was changed" in page.one("main").words
    assert "INTEGRITY FAILED" in page.one("dl", class_="verdicts").words
    (shown,) = articles(page)
    assert shown.one("h3").words == "error BYTES_DIFFER runs/2025-12-18/run_0.json"
    assert "Expected SHA-256 1" in shown.words
    assert "What to do Do not cut by this run." in shown.words
    assert "rmos replay restore" in [code.text for code in shown.all("code")]


UNKNOWN = verdicts(completeness=("unknown", "nobody asked"))


@pytest.mark.parametrize(
    ("words", "report"),
    [
        ("Nothing to do", {"codes": {}}),
        ("Nothing to do", {"codes": {"ARCHIVED": 3}}),
        ("Somebody should look", {"codes": {"INTERNAL_ERROR": 1}}),
        ("Nothing was found; not every byte was read", {"mode": "quick"}),
        ("Nothing was found; not known: COMPLETENESS", {"verdicts": UNKNOWN}),
    ],
)
async def test_nothing_to_do_is_said_only_where_all_was_looked_at(
    words: str, report: dict[str, Any], site: Site
) -> None:
    keep(site.api.root, "a", **{"mode": "full", "verdicts": verdicts(), **report})
    page = await site.page("/audits/a")
    head = next(page.one("p", class_="facts").all("span"))
    assert (head.words, head.attributes["class"]) == (
        words,
        "good" if words == "Nothing to do" else "care",
    )
    if "ARCHIVED" in report.get("codes", {}):
        assert "rmos archive verify" in page.one("main").words
    assert f"{words} INTEGRITY OK" in (await site.page("/ledger")).one("main").words


async def test_many_findings_come_page_by_page_each_once(site: Site) -> None:
    many = [finding(path=f"runs/{number}") for number in range(2 * FINDINGS_A_PAGE + 1)]
    keep(site.api.root, "a", *many, codes={"BYTES_DIFFER": len(many)}, verdicts=verdicts())
    seen, path = [], "/audits/a"
    for expected in (FINDINGS_A_PAGE, FINDINGS_A_PAGE, 1):
        page = await site.page(path)
        found = articles(page)
        assert len(found) == expected
        seen += [each.one("h3").words.rpartition("/")[2] for each in found]
        path = next((str(link.attributes["href"]) for link in page.all("a", rel="next")), "")
    assert seen == [str(number) for number in range(len(many))]
    assert path == ""


async def test_a_page_that_begins_within_a_finding_is_none(site: Site) -> None:
    keep(site.api.root, "a", finding(), verdicts=verdicts())
    await site.page("/audits/a?start=3", 404)


async def test_an_audit_under_way_shows_what_it_has_found(site: Site) -> None:
    keep(site.api.root, "a", finding())
    with journal_path(site.api.root, "a").open("a") as file:
        file.write('{"code":"FILE_MISSING","path":"cut sh')
    page = await site.page("/audits/a")
    assert "under way" in page.one("p", class_="note").words
    assert len(articles(page)) == 1
    assert not list(page.all("dl", class_="verdicts"))


async def test_texts_of_others_are_texts(site: Site) -> None:
    fields = {"path": HOSTILE, "expected": HOSTILE, "found": HOSTILE}
    odd = {"code": HOSTILE, "path": ["x", {"y": 2**63}], "severity": 7}
    keep(
        site.api.root, "a", finding(**fields), odd, codes={HOSTILE: 2},
        verdicts=verdicts(late=("failed", HOSTILE)),
    )  # fmt: skip
    page = await site.page("/audits/a")
    assert not [each for each in page.all("script") if "src" not in each.attributes]
    known, unknown = articles(page)
    assert known.text.count(SEEN) == 3
    assert SEEN in unknown.one("h3").text
    assert str(2**63) in unknown.text
    assert SEEN in page.one("dl", class_="verdicts").text


async def test_a_report_that_is_none_is_named_and_never_ok(site: Site) -> None:
    keep(site.api.root, "a", verdicts=verdicts())
    file = site.api.root / "audits/a.json"
    file.chmod(0o600)
    file.write_text('{"verdicts": "ok"}')
    row = (await site.page("/audits")).one("tbody").words
    assert "No report Expected the report of the audit a" in row
    assert "OK" not in row
    await site.page("/audits/a", 500)


@pytest.mark.parametrize("audit_id", ["nothing", "..", "%2e%2e", "a" * 101, "ü"])
async def test_what_is_no_audit_here_is_not_found(site: Site, audit_id: str) -> None:
    await site.page(f"/audits/{audit_id}", 404 if audit_id != ".." else 200)


def test_each_code_has_a_way_out() -> None:
    assert WAYS_OUT.keys() == set(get_args(AuditCode)) == MEANINGS.keys()


def test_a_code_of_a_newer_program_counts_as_an_error() -> None:
    assert finding_view({"code": "NEWER"})["severity"] == "error"
