"""The page of a run: the verdict first, and nothing that the verdict keeps away."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.layout import attachment_path
from tests.builders import (
    ABSENT,
    GCODE,
    advisory_request,
    attachment,
    red_request,
    rosette_request,
    router_request,
    run_request,
    sha256,
)
from tests.evidence.proven_stores import proven_store
from tests.ledger.ledgers import KEYS
from tests.legacy_rows import v1_row
from tests.page.conftest import Element, Site, site_over
from tests.storage.stores import change_index
from tests.storage.test_program_verdict import migrated

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
DXF = b"0\nSECTION\n"
RUN = "run_1"


def picture(**changes: Any) -> dict[str, Any]:
    return attachment(SVG, **({"kind": "geometry_svg", "mime": "image/svg+xml"} | changes))


def verdict(page: Element) -> str:
    return page.one("p", class_="verdict").words


def panel(page: Element, heading: str) -> Element:
    (found,) = (
        each
        for each in page.all("section")
        if any(head.words == heading for head in each.all("h2"))
    )
    return found


async def test_a_green_run_may_be_cut_by_exactly_its_bytes(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    page = await site.page(f"/run/{RUN}")
    assert verdict(page) == "✔ MAY CUT"
    assert page.one("title").words == f"MAY CUT: {RUN} · RMOS Runs"
    program = panel(page, "The program").words
    assert sha256(GCODE) in program
    assert "computed from the G-code that came with the request" in program
    assert f"sha256sum {RUN}.json" in panel(page, "Hashes").words


async def test_a_blocked_run_says_why_and_shows_nothing_to_cut_by(site: Site) -> None:
    request = red_request(run_id=RUN, attachments=[picture(), attachment(kind="gcode")])
    site.api.add_runs(request)
    answer = await site.get(f"/run/{RUN}")
    page = await site.page(f"/run/{RUN}")
    assert verdict(page) == "✖ DO NOT CUT: rim speed above the blade's limit"
    assert "outputs.gcode_text" in panel(page, "Withheld").words
    assert list(page.one("main").all("img")) == []
    for cut in ("G1 X3.0000", sha256(GCODE)):
        assert cut not in answer.text
    assert list(page.one("main").all("figure")) == []
    for path in ("preview.svg", f"pictures/{sha256(SVG)}", "toolpath.svg", "toolpath.json"):
        assert (await site.get(f"/run/{RUN}/{path}")).status_code == 404


async def test_a_program_that_a_blocked_run_lists_as_debug_is_nowhere(site: Site) -> None:
    program = b"G90\nG1 Z-30\n"
    path = {"gcode_path": attachment_path(sha256(program))}
    listed = attachment(program, kind="debug", filename="log.txt")
    site.api.add_runs(red_request(run_id=RUN, outputs=path, attachments=[listed]))
    row = panel(await site.page(f"/run/{RUN}"), "Attachments").one("tbody")
    assert "withheld" in row.words
    assert list(row.all("a")) == []
    assert (await site.get(f"/run/{RUN}/attachments/{sha256(program)}")).status_code == 404


async def test_the_api_says_of_such_a_program_that_it_is_withheld(site: Site) -> None:
    path = {"gcode_path": attachment_path(sha256(DXF))}
    listed = [attachment(DXF, kind="debug"), attachment(SVG)]
    site.api.add_runs(red_request(run_id=RUN, outputs=path, attachments=listed))
    answer = (await site.api.get(f"/{RUN}/attachments")).json()
    assert [each.get("withheld") for each in answer["attachments"]] == [True, None]
    for each in answer["attachments"]:
        status = (await site.api.http.get(each["download_url"])).status_code
        assert status == (404 if each.get("withheld") else 200)


async def test_a_run_says_that_another_refuses_its_program(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN), red_request(run_id="run_red"))
    page = await site.page(f"/run/{RUN}")
    alone = "◆ MAY CUT by this run alone: the run run_red refuses exactly the same file"
    assert verdict(page) == alone
    assert "verdict-go" not in (page.one("p", class_="verdict").attributes["class"] or "")
    words = page.one("main").words
    assert "The run run_red refuses exactly the same program." in words
    assert NO_OTHERS not in words
    assert "refuses" not in (await site.page("/run/run_red")).one("main").words
    compared = await site.page(f"/compare?a={RUN}&b=run_red")
    assert next(compared.all("p", class_="verdict")).words == alone


NO_OTHERS = "a machine may cut by exactly these bytes"


async def test_a_run_that_may_not_be_cut_offers_no_bytes_to_cut_by(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN, attachments=[attachment(DXF)]))
    assert NO_OTHERS in panel(await site.page(f"/run/{RUN}"), "The program").words
    damage(site, DXF, b"1\nSECTION\n")
    page = await site.page(f"/run/{RUN}")
    assert verdict(page).startswith("✖ DO NOT CUT")
    assert NO_OTHERS not in page.one("main").words
    assert sha256(GCODE) in panel(page, "The program").words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "outputs": None,
                "attachments": [
                    attachment(content, kind="gcode", filename=name)
                    for content, name in ((b"G1 X1\n", "a.nc"), (b"G1 X2\n", "b.nc"))
                ],
            },
            "✖ DO NOT CUT: it has 2 programs, and does not say which of them it cuts",
        ),
        ({"outputs": None}, "✖ DO NOT CUT: its record names no program"),
        (
            {"outputs": {"gcode_path": "jobs/part.nc"}},
            "✖ DO NOT CUT: its record names no program",
        ),
        (
            {"outputs": {"toolpaths": [1]}},
            "✔ MAY CUT: by what its artifact holds; it releases no file",
        ),
    ],
)
async def test_a_run_that_names_no_program_releases_none(
    changes: dict[str, Any], words: str, site: Site
) -> None:
    site.api.add_runs(run_request(run_id=RUN, **changes))
    assert verdict(await site.page(f"/run/{RUN}")) == words


async def test_warnings_are_part_of_the_verdict(site: Site) -> None:
    site.api.add_runs(router_request(run_id=RUN), run_request(run_id="run_2"))
    for path in (
        f"/run/{RUN}",
        f"/file?sha256={sha256(router_request()['outputs']['gcode_text'])}",
    ):
        page = await site.page(path)
        assert verdict(page).startswith("◆ MAY CUT, with warnings"), path
        assert page.one("title").words.startswith("MAY CUT, with warnings")


async def test_a_row_that_its_artifact_does_not_confirm_shows_nothing(site: Site) -> None:
    site.api.add_runs(red_request(run_id=RUN), run_request(run_id="run_2"))
    change_index(site.api.root, "UPDATE runs SET status = 'OK', risk_level = 'GREEN'")
    for path in (f"/run/{RUN}", f"/run/{RUN}/verified", f"/compare?a={RUN}&b=run_2"):
        page = await site.page(path, 500)
        assert page.one("h1").words == "This run is damaged: do not cut"


async def test_a_damaged_run_says_so_and_nothing_else(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    (file,) = (site.api.root / "runs").glob("*/*.json")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"maple", b"walnu"))
    page = await site.page(f"/run/{RUN}", 500)
    assert page.one("h1").words == "This run is damaged: do not cut"
    assert "MAY" not in page.one("main").text
    assert "walnu" not in page.text
    for path in ("artifact", "verified", "preview.svg", f"pictures/{sha256(SVG)}"):
        assert (await site.get(f"/run/{RUN}/{path}")).status_code in {404, 500}


async def test_a_run_that_is_not_there_has_a_page_that_says_so(site: Site) -> None:
    page = await site.page("/run/nothing", 404)
    assert page.one("h1").words == "There is no such run"


def damage(site: Site, content: bytes, instead: bytes | None) -> None:
    file = site.api.root / attachment_path(sha256(content))
    file.chmod(0o600)
    if instead is None:
        file.unlink()
    else:
        file.write_bytes(instead)


@pytest.mark.parametrize(
    ("instead", "state", "words"),
    [
        (b"G0\n", "whole", "✔ MAY CUT"),
        (b"G1\n", "damaged", "✖ DO NOT CUT: the attachment part.nc is not what was stored"),
        (None, "missing", "✖ DO NOT CUT: the store does not have the program part.nc"),
    ],
)
async def test_an_attachment_that_is_not_whole_is_a_doubt(
    site: Site, instead: bytes | None, state: str, words: str
) -> None:
    program = attachment(b"G0\n", kind="gcode", filename="part.nc")
    site.api.add_runs(run_request(run_id=RUN, outputs={}, attachments=[program]))
    damage(site, b"G0\n", instead)
    page = await site.page(f"/run/{RUN}")
    assert state in panel(page, "Attachments").one("tbody").words
    assert verdict(page) == words


async def test_what_is_too_large_for_the_page_is_read_when_it_is_asked_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.api.add_runs(run_request(run_id=RUN, attachments=[attachment(b"1" * 10)]))
    damage(site, b"1" * 10, b"2" * 10)
    monkeypatch.setattr("pipeline.page.run.CHECKED_BYTES", 9)
    page = await site.page(f"/run/{RUN}")
    assert "not read" in panel(page, "Attachments").one("tbody").words
    page = await site.page(f"/run/{RUN}/verified")
    assert "damaged" in panel(page, "Attachments").one("tbody").words


async def test_a_program_that_was_not_read_is_a_doubt_until_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = attachment(b"G0 X1\n", kind="gcode", filename="part.nc")
    site.api.add_runs(run_request(run_id=RUN, outputs={}, attachments=[program]))
    monkeypatch.setattr("pipeline.page.run.CHECKED_BYTES", 5)
    page = await site.page(f"/run/{RUN}")
    assert (
        verdict(page) == "✖ DO NOT CUT: the program part.nc is too large to be read for this page"
    )
    (way,) = page.all("a", class_="button", href=f"/run/{RUN}/verified")
    assert verdict(await site.page(str(way.attributes["href"]))) == "✔ MAY CUT"


async def test_a_picture_of_a_producer_is_an_image_in_a_sandbox(site: Site) -> None:
    site.api.add_runs(rosette_request(run_id=RUN, attachments=[picture()]))
    page = await site.page(f"/run/{RUN}")
    sources = [each.attributes["src"] for each in page.one("main").all("img")]
    assert f"/run/{RUN}/pictures/{sha256(SVG)}" in sources
    assert f"/run/{RUN}/preview.svg" in sources
    assert list(page.all("svg")) == []
    for path in sources:
        answer = await site.get(str(path))
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy == "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    damage(site, SVG, SVG + b" ")
    assert (await site.get(f"/run/{RUN}/pictures/{sha256(SVG)}")).status_code == 500


async def test_what_is_no_picture_is_not_served_as_one(site: Site) -> None:
    page = b"<script>alert(1)</script>"
    listed = [attachment(page, mime="text/html", filename="x.svg")]
    site.api.add_runs(run_request(run_id=RUN, attachments=listed))
    assert (await site.get(f"/run/{RUN}/pictures/{sha256(page)}")).status_code == 404
    download = await site.get(f"/run/{RUN}/attachments/{sha256(page)}")
    assert download.headers["content-disposition"].startswith("attachment")
    assert download.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_the_files_of_a_run_are_those_of_the_api(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN, attachments=[attachment()]))
    blob = f"attachments/{sha256(DXF)}"
    for name, same in (("artifact", "download"), (blob, blob)):
        page, api = await site.get(f"/run/{RUN}/{name}"), await site.api.get(f"/{RUN}/{same}")
        assert (page.status_code, page.content) == (200, api.content)
        assert page.headers["content-type"] == api.headers["content-type"]


async def test_the_evaluation_is_a_table_with_every_digit(site: Site) -> None:
    evaluation = {
        "risk_level": "YELLOW",
        "warnings": ["stepdown is high"],
        "rules_triggered": ["DOC_LIMIT"],
        "details": {"count": 2**63, "nested": [{"x": 1e308}, None]},
    }
    site.api.add_runs(run_request(run_id=RUN, feasibility=evaluation))
    page = await site.page(f"/run/{RUN}")
    rows = {
        row.one("th").words: row.one("td").words
        for row in panel(page, "The evaluation").one("tbody").all("tr")
    }
    assert rows["details.count"] == "9223372036854775808"
    assert rows["details.nested[0].x"] == "1e+308"
    assert rows["details.nested[1]"] == "null"
    decision = panel(page, "The decision")
    assert [each.words for each in decision.all("li")] == ["stepdown is high", "DOC_LIMIT"]


async def test_an_advisory_is_restrained_markdown(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    text = (
        "# Title\n**bold** [a](https://a.example/?x=1) [b](javascript:alert(1)) <b>c</b>\n"
        "![d](https://d.example/d.png) <https://e.example> [f](//f.example) [g](data:text/html,x)\n"
        '\n<script>alert(1)</script>\n\n|h|\n|-:|\n|i|\n\n```x" onclick="y\nz\n```\n'
    )
    site.api.add_advisories(advisory_request(run_id=RUN, content_text=text))
    shown = (await site.page(f"/run/{RUN}")).one("div", class_="markdown")
    links = list(shown.all("a"))
    assert all(each.attributes["rel"] == "nofollow noopener noreferrer" for each in links)
    assert {each.attributes["href"] for each in links} == {
        *("https://a.example/?x=1", "https://d.example/d.png", "https://e.example"),
    }
    assert {each.name for each in shown.all()} == {
        *("p", "strong", "a", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"),
    }
    names = {name for each in shown.all() for name in each.attributes}
    assert names <= {"class", "href", "rel"}
    assert "<script>alert(1)</script>" in shown.text


@pytest.mark.parametrize("instead", [None, b"another text"])
async def test_content_that_is_not_there_as_it_was_is_not_offered(
    instead: bytes | None, site: Site
) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    advisory = advisory_request(run_id=RUN)
    site.api.add_advisories(advisory)
    damage(site, str(advisory["content_text"]).encode(), instead)
    article = panel(await site.page(f"/run/{RUN}"), "Advisories").one("article")
    assert article.one("span", class_="bad").words == ("Damaged" if instead else "Missing")
    assert list(article.all("a")) == []
    assert "Withheld" not in article.words


async def test_a_page_has_room_for_so_many_advisories(site: Site) -> None:
    texts = ["|" * 2_500 + "\n" + "|-" * 2_500 + "\n" + "|\n" * 5_000, "[" * 2_000, "a" * 19_000]
    site.api.add_runs(run_request(run_id=RUN))
    site.api.add_advisories(
        *(
            advisory_request(
                run_id=RUN,
                advisory_id=f"adv_{number:02}",
                content_text=texts[number % 3] + str(number),
                created_at_utc=f"2026-01-01T00:00:{number:02}Z",
            )
            for number in range(15)
        )
    )
    answer = await site.get(f"/run/{RUN}")
    page = await site.page(f"/run/{RUN}")
    assert len(answer.content) < 200_000
    shown = panel(page, "Advisories")
    articles = list(shown.all("article"))
    assert len(articles) == 10
    assert "adv_14" in articles[0].words
    # A table that is too large, and too many brackets, are plain text; the rest is offered.
    assert [len(list(each.all("pre"))) for each in articles[:4]] == [0, 1, 1, 0]
    assert list(shown.all("td")) == []
    assert "Download its content" in articles[-1].words
    assert next(shown.all("a")).attributes["href"] == f"/run/{RUN}/advisories.json"
    assert len((await site.get(f"/run/{RUN}/advisories.json")).json()["advisories"]) == 15


async def test_what_has_no_fields_is_a_sentence(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN, request={}))
    assert "Nothing was recorded." in panel(await site.page(f"/run/{RUN}"), "What was asked").words


async def test_many_warnings_are_counted(site: Site) -> None:
    feasibility = {"risk_level": "YELLOW", "warnings": [f"warning {n}" for n in range(150)]}
    site.api.add_runs(run_request(run_id=RUN, feasibility=feasibility))
    words = panel(await site.page(f"/run/{RUN}"), "The decision").words
    assert "warning 99 50 more are in the artifact" in words


async def test_a_run_of_an_older_store_has_a_page(site: Site) -> None:
    migrated(site.api.root, v1_row(advisory_inputs=[{"note": "x"}, {"advisory_id": "adv_1"}]))
    run_id = v1_row()["run_id"]
    page = await site.page(f"/run/{run_id}")
    assert verdict(page) == (
        "✖ DO NOT CUT: it is history of an older store, which no machine cuts by"
    )
    assert "Without a name" in panel(page, "Advisories").words


@pytest.mark.parametrize("path", [f"/run/{RUN}", f"/file?sha256={sha256(GCODE)}"])
async def test_a_verdict_says_when_it_was_checked_and_renews_itself(path: str, site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    section = (await site.page(path)).one("section", id="verdict")
    assert "Checked 20" in section.words
    assert "MAY CUT" in section.words
    assert section.attributes["hx-get"] == path
    assert section.attributes["hx-select"] == "#verdict"


async def test_content_that_a_verdict_withholds_is_not_shown_for_the_sake_of_an_advisory(
    site: Site,
) -> None:
    site.api.add_runs(
        run_request(run_id=RUN), red_request(run_id="run_red", outputs={"gcode_text": "G1 X9\n"})
    )
    digest = sha256("G1 X9\n")
    await site.api.put(digest, b"G1 X9\n")
    site.api.add_advisories(
        advisory_request(run_id=RUN, content_text=ABSENT, content_sha256=digest)
    )
    page = await site.page(f"/run/{RUN}")
    assert "G1 X9" not in page.text
    assert "Withheld" in panel(page, "Advisories").words


async def test_the_proof_says_which_leaf_under_which_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS)
    root = proven_store(tmp_path / "store")
    async with site_over(root) as site:
        proof = panel(await site.page("/run/saw_red"), "Proof")
        assert "Leaf 1 of the log" in proof.words
        assert "under the checkpoint of 4 leaves" in proof.words
        assert "— " in proof.one("pre").text
        assert "rmos evidence saw_red" in proof.words
        monkeypatch.setattr("pipeline.storage.ledger_key.verifier_keys", lambda *_: [])
        proof = panel(await site.page("/run/saw_red"), "Proof")
        assert "Not proven here" in proof.words
        assert list(proof.all("pre")) == []


async def test_a_server_without_the_key_says_that_it_checked_nothing(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    proof = panel(await site.page(f"/run/{RUN}"), "Proof")
    assert "does not have the public key of the ledger" in proof.words


async def test_the_way_of_the_tool_is_a_picture_that_scripts_may_turn(site: Site) -> None:
    site.api.add_runs(run_request(run_id=RUN))
    figure = (await site.page(f"/run/{RUN}")).one("figure")
    assert figure.attributes["data-toolpath"] == f"/run/{RUN}/toolpath.json"
    picture = await site.get(str(figure.one("img").attributes["src"]))
    assert picture.headers["content-type"] == "image/svg+xml"
    assert picture.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    moves = (await site.get(f"/run/{RUN}/toolpath.json")).json()
    assert (moves["run_id"], moves["gcode_sha256"]) == (RUN, sha256(GCODE))


async def test_a_program_that_is_not_whole_has_no_picture(site: Site) -> None:
    program = attachment(b"G0 X1\n", kind="gcode", filename="part.nc")
    site.api.add_runs(run_request(run_id=RUN, outputs={}, attachments=[program]))
    assert list((await site.page(f"/run/{RUN}")).all("figure"))
    damage(site, b"G0 X1\n", b"G0 X2\n")
    assert not list((await site.page(f"/run/{RUN}")).all("figure"))
    assert (await site.get(f"/run/{RUN}/toolpath.svg")).status_code == 500
